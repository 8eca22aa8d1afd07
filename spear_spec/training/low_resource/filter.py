"""Which pseudo-pairs are good enough to learn to read from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from spear_spec.config import Strict, number, whole
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.ctc import PhonemeCTC, phones
from spear_spec.training.low_resource.backtranslate import Heard
from spear_spec.training.low_resource.likelihood import ctc_likelihood

_CYCLES = 12  # longest block of phones whose repetitions are counted


@dataclass(frozen=True)
class Filter(Strict):
    """keep: share of the pairs that pass by each likelihood, that of the back-translator and that of the CTC.

    slack: how far beyond the range of the parallel part the number of phones a token may lie, as a factor. repeats: so
    many times the same block of phones in a row, and of `longest` phones together, is no speech.
    """

    keep: float = 0.85
    slack: float = 1.15
    repeats: int = 3
    longest: int = 8

    def __post_init__(self) -> None:
        number("keep", self.keep, 0.01, 1)
        number("slack", self.slack, 1, 10)
        whole("repeats", self.repeats, 2, 100)
        whole("longest", self.longest, 2, 1000)


def stuck(spoken: str, repeats: int, longest: int) -> bool:
    """Whether a block of phones stands `repeats` times or more in a row, over at least `longest` phones."""
    for cycle in range(1, _CYCLES + 1):
        run = 0
        for i in range(cycle, len(spoken)):
            run = run + 1 if spoken[i] == spoken[i - cycle] else 0
            if run + cycle >= max(repeats * cycle, longest):
                return True
    return False


def spoken_range(clips: Iterable[Clip], tokens: Mapping[str, Tensor]) -> tuple[float, float]:
    """Fewest and most phones a semantic token in true pairs."""
    rates = [len(phones(clip.phonemes or "")) / len(tokens[clip.id]) for clip in clips if clip.id in tokens]
    return min(rates), max(rates)


def sift(
    heard: Sequence[Heard],
    tokens: Mapping[str, Tensor],
    ctc: PhonemeCTC,
    between: tuple[float, float],
    cfg: Filter,
) -> tuple[list[Heard], list[tuple[str, str]]]:
    """Pseudo-pairs that are kept, and id and reason of those that are not.

    between: fewest and most phones a token in the parallel part, see `spoken_range`.
    """
    left: list[tuple[Heard, float, float]] = []
    dropped = []
    for item in heard:
        spoken = phones(item.phonemes)
        rate = len(spoken) / max(1, len(tokens[item.id]))
        if item.ended != "eos":
            dropped.append((item.id, f"not ended: {item.ended}"))
        elif not between[0] / cfg.slack <= rate <= between[1] * cfg.slack:
            dropped.append((item.id, f"length: {rate:.3f} phones a token"))
        elif stuck(spoken, cfg.repeats, cfg.longest):
            dropped.append((item.id, "repeats itself"))
        else:
            left.append((item, item.likelihood, ctc_likelihood(ctc, tokens[item.id], item.phonemes)))
    own = _threshold([first for _, first, _ in left], cfg.keep)
    other = _threshold([second for _, _, second in left], cfg.keep)
    kept = []
    for item, first, second in left:
        if first < own:
            dropped.append((item.id, f"unlikely: {first:.3f} by the back-translator"))
        elif second < other:
            dropped.append((item.id, f"unlikely: {second:.3f} by the CTC"))
        else:
            kept.append(item)
    return kept, dropped


def _threshold(values: Sequence[float], keep: float) -> float:
    """The least of the best `keep` of the values."""
    ordered = sorted(values, reverse=True)
    return ordered[max(1, round(keep * len(ordered))) - 1] if ordered else float("-inf")
