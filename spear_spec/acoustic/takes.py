"""Several takes of a sentence, of which a judge keeps the best, as SPEAR-TTS does (Kharitonov et al. 2023, section 4:
of several samples the one with the highest predicted mean opinion score).

Take k of a text has a seed of its own (`take_seed`), so what is kept is what `synthesize` with that seed alone says in
this sentence. Each sentence is judged by itself: n takes of m sentences hold n^m readings of the text, and a stream has
to wait for one sentence only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import isnan
from typing import Any, Protocol, runtime_checkable

from spear_spec.audio import FloatArray
from spear_spec.config import shown
from spear_spec.decoding.chance import TAKE, derive
from spear_spec.decoding.likelihood import mean_log_probability
from spear_spec.engine import Utterance
from spear_spec.errors import ConfigError, ContractError, MissingExtraError
from spear_spec.models.contract import Target
from spear_spec.registry import Registry

MOST_TAKES = 64
JUDGED_S = 1.0  # shorter takes are judged by their likelihood: predictors of opinion scores need to hear more
LIKELIHOOD = "likelihood"


@runtime_checkable
class SoundJudge(Protocol):
    """Who listens to takes. name: as results tell it, with the version."""

    @property
    def name(self) -> str: ...

    def score(self, samples: FloatArray, sample_rate: int) -> float:
        """How good speech float32 [T] is, more is better."""
        ...


JUDGES: Registry[Callable[[], SoundJudge]] = Registry(
    "judge", "spear_spec.judges", {"mos": "spear_spec.evaluation.takes:mos"}
)


@dataclass(frozen=True)
class BestOf:
    """So many takes of each sentence; judge None: by their mean log-probability (`decoding/likelihood.py`)."""

    count: int
    judge: SoundJudge | None = None


@dataclass(frozen=True)
class Chosen:
    """What was kept of a sentence. seed: of the text, which alone says the same. scores: of all takes, by `judge`."""

    sentence: int
    judge: str
    chosen: int
    seed: int
    scores: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """An entry of `best_of.sentences` in say/1."""
        scores = [round(score, 4) if abs(score) < float("inf") else None for score in self.scores]
        return {
            "sentence": self.sentence,
            "judge": self.judge,
            "chosen": self.chosen,
            "seed": self.seed,
            "scores": scores,
        }


def take_seed(seed: int, take: int) -> int:
    """The seed of a text's take; take 0 has the text's own."""
    return derive(seed, take, TAKE) if take else seed


def best(scores: Sequence[float], ended: Sequence[str | None]) -> int:
    """The first of those with the highest score; one that was cut off is kept only where all were."""
    whole = any(why == "eos" for why in ended)
    order = [(why == "eos" or not whole, float("-inf") if isnan(score) else score) for score, why in zip(scores, ended)]
    return order.index(max(order))


def scored(judge: SoundJudge, samples: FloatArray, sample_rate: int) -> float:
    """What a judge says.

    Raises:
        ContractError: it is no number.
    """
    score: object = judge.score(samples, sample_rate)
    try:
        return float(score)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ContractError(f"judge {judge.name}: a score must be a number, not {shown(score)}") from None


def judge_of(best_of: BestOf, takes: Sequence[Utterance], rate: float) -> SoundJudge | None:
    """Who judges these takes of a sentence, `rate` tokens of which are a second; None: their likelihood."""
    short = min(len(take.speech) for take in takes) < JUDGED_S * rate
    return None if short else best_of.judge


def likelihoods(target: Target, ids: Sequence[int], takes: Sequence[Utterance]) -> list[float]:
    """The mean log-probability of each take's tokens, for text ids."""
    return [mean_log_probability(target, ids, take.tokens) for take in takes]


@dataclass(frozen=True)
class Kept:
    """The take that is kept, with the silence before it and its speech, float32 [T] each; all scores, by `judge`."""

    number: int
    silence: FloatArray
    speech: FloatArray
    judge: str
    scores: tuple[float, ...]

    def chosen(self, sentence: int, seed: int) -> Chosen:
        """What results tell of it; seed: of the text."""
        return Chosen(sentence, self.judge, self.number, take_seed(seed, self.number), self.scores)


def choose(
    judge: SoundJudge | None,
    likely: Sequence[float],
    takes: Sequence[Utterance],
    sound: Callable[[int], tuple[FloatArray, FloatArray]],
    sample_rate: int,
) -> Kept:
    """The best of takes that have ended.

    Args:
        judge, likely: of `judge_of`, `likelihoods`; these are needed where nobody listens. sound: makes the silence and
            the speech of a take; where nobody listens, of the one that is kept alone.

    Raises:
        ContractError: the judge says what is no number.
    """
    ended = [take.ended for take in takes]
    if judge is None:
        number = best(likely, ended)
        return Kept(number, *sound(number), LIKELIHOOD, tuple(likely))
    sounds = [sound(number) for number in range(len(takes))]
    scores = [scored(judge, speech, sample_rate) for _, speech in sounds]
    number = best(scores, ended)
    return Kept(number, *sounds[number], judge.name, tuple(scores))


def check_takes(count: object, judge: object, temperature: float) -> str | SoundJudge | None:
    """The judge that was asked for; None: one take. judge None: "mos" where distillmos is installed, else "likelihood".

    Raises:
        ConfigError: a count or a judge that cannot be used. MissingExtraError: the judge is not installed.
    """
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_TAKES:
        raise ConfigError(f"best_of must be a whole number from 1 to {MOST_TAKES}, not {shown(count)}")
    if judge is None:
        judge = "mos" if find_spec("distillmos") is not None else LIKELIHOOD
    if not isinstance(judge, str | SoundJudge):
        raise ConfigError(f"judge must be a name or an object with name and score, not {type(judge).__name__}")
    if isinstance(judge, str) and judge != LIKELIHOOD and judge not in JUDGES:
        raise ConfigError(f"there is no judge {shown(judge)}; available: {', '.join((*JUDGES.names(), LIKELIHOOD))}")
    if count == 1:
        return None
    if temperature == 0:
        raise ConfigError("best_of needs a temperature above 0: at 0 all takes are the same")
    if judge == "mos" and find_spec("distillmos") is None:
        raise MissingExtraError(
            "judge mos needs distillmos (requirements/judges-nodeps.txt); or take the judge likelihood"
        )
    return judge


def check_best_of(count: int, judge: str | SoundJudge | None, temperature: float) -> BestOf | None:
    """What was asked for, the judge made ready; None: one take.

    Raises:
        As `check_takes`.
    """
    given = check_takes(count, judge, temperature)
    if given is None:
        return None
    if not isinstance(given, str):
        return BestOf(count, given)
    return BestOf(count) if given == LIKELIHOOD else BestOf(count, JUDGES.get(given)())
