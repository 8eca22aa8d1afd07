"""Bootstrap intervals over sentences, seeded: the percentile method (Efron 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spear_spec.errors import SpearSpecError
from spear_spec.evaluation.judge import Measurement

_CHUNK = 256  # resamples drawn at once: bounds memory to chunk x sentences


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its percentile interval."""

    value: float
    lo: float
    hi: float

    def to_dict(self) -> dict[str, float]:
        return {"value": self.value, "lo": self.lo, "hi": self.hi}


def _ratio(top: NDArray[np.float64], bottom: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)


def _columns(measurements: Sequence[Measurement]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not measurements:
        raise SpearSpecError("no measurement to summarise: give at least one sentence")
    top = np.array([m.numerator for m in measurements], dtype=np.float64)
    bottom = np.array([m.denominator for m in measurements], dtype=np.float64)
    return top, bottom


def _draws(size: int, resamples: int, seed: int) -> list[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    counts = [min(_CHUNK, resamples - start) for start in range(0, resamples, _CHUNK)]
    return [generator.integers(0, size, size=(count, size)) for count in counts]


def ratio_interval(
    measurements: Sequence[Measurement], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """sum(numerator) / sum(denominator) and its percentile interval over resampled sentences."""
    top, bottom = _columns(measurements)
    samples = [_ratio(top[pick].sum(axis=1), bottom[pick].sum(axis=1)) for pick in _draws(len(top), resamples, seed)]
    return _interval(float(_ratio(top.sum(), bottom.sum())), samples, confidence)


def paired_difference(
    first: Sequence[Measurement],
    second: Sequence[Measurement],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Value of `first` minus value of `second` over the same sentences, resampled together (paired bootstrap)."""
    if len(first) != len(second):
        raise SpearSpecError(f"paired sets differ in length: {len(first)} and {len(second)}")
    top_a, bottom_a = _columns(first)
    top_b, bottom_b = _columns(second)
    samples = [
        _ratio(top_a[pick].sum(axis=1), bottom_a[pick].sum(axis=1))
        - _ratio(top_b[pick].sum(axis=1), bottom_b[pick].sum(axis=1))
        for pick in _draws(len(top_a), resamples, seed)
    ]
    value = float(_ratio(top_a.sum(), bottom_a.sum()) - _ratio(top_b.sum(), bottom_b.sum()))
    return _interval(value, samples, confidence)


def _interval(value: float, samples: list[NDArray[np.float64]], confidence: float) -> Interval:
    draws = np.concatenate(samples)
    draws = draws[np.isfinite(draws)]
    if draws.size == 0:
        return Interval(value, float("nan"), float("nan"))
    lo, hi = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(lo), float(hi))
