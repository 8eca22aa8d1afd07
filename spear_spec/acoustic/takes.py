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
from spear_spec.errors import ConfigError, ContractError, MissingExtraError
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


def check_best_of(count: object, judge: object, temperature: float) -> BestOf | None:
    """What was asked for; None: one take. judge None: "mos" where distillmos is installed, else "likelihood".

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
    if not isinstance(judge, str):
        return BestOf(count, judge)
    if judge == LIKELIHOOD:
        return BestOf(count)
    if judge == "mos" and find_spec("distillmos") is None:
        raise MissingExtraError(
            "judge mos needs distillmos (requirements/judges-nodeps.txt); or take the judge likelihood"
        )
    return BestOf(count, JUDGES.get(judge)())
