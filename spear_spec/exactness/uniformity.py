"""Is a sample uniform on [0, 1)? Kolmogorov-Smirnov, chi-square, Holm's adjustment, and what they would have noticed.

Every check is a row of verify/1: n values, their distance `tv` from uniform, the distance that 1 % of correct builds
exceed (`null_q99`), the p-value, and the distance that would have been found in nine runs of ten (`detectable_tv`), at
the significance `level` that Holm's adjustment leaves to one check among many.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ALPHA = 0.001  # of all checks together: a check fails when its Holm-adjusted p-value lies below
FEWEST = 100  # values: below, chi-square's tail is not the statistic's
BINS = 20
SIDE = 5  # of the square in which pairs are counted
UNIFORM_CHECKS = 3  # made by `uniform_checks`
_EXPECTED = 10  # values in a cell, at least
_SIMULATIONS = 2000
_POWER_Z = 1.2816  # 90 % power


def chi_square_tail(statistic: float, freedom: int) -> float:
    """P(X >= statistic) of a chi-square variable."""
    return float(
        torch.special.gammaincc(
            torch.tensor(freedom / 2, dtype=torch.float64), torch.tensor(statistic / 2, dtype=torch.float64)
        )
    )


def kolmogorov_tail(distance: float, n: int) -> float:
    """P(D >= distance) of n uniform draws; Kolmogorov's series with Stephens' correction for finite n."""
    x = distance * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    if x < 0.2:
        return 1.0
    return min(1.0, max(0.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))))


def _bisect(low: float, high: float, too_small: Callable[[float], bool]) -> float:
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return high


@lru_cache(maxsize=64)
def _null_tv_q99(n: int, count: int) -> float:
    """99th percentile of the distance that n uniform draws have from uniform over `count` cells."""
    null = np.random.default_rng(0).multinomial(n, [1 / count] * count, size=_SIMULATIONS)
    return float(np.quantile(np.abs(null / n - 1 / count).sum(1) / 2, 0.99))


@lru_cache(maxsize=64)
def _detectable_binned(n: int, count: int, level: float) -> float:
    """Mass moved from half of the cells to the other half that chi-square finds; power by the normal approximation."""
    freedom = count - 1
    critical = _bisect(freedom, 100.0 * count, lambda x: chi_square_tail(x, freedom) > level)
    excess = _bisect(0, 1e6, lambda x: (freedom + x - critical) / math.sqrt(2 * (freedom + 2 * x)) < _POWER_Z)
    return min(1.0, math.sqrt(excess / (4 * n)))


def binned_check(name: str, cells: NDArray[np.int64], count: int, level: float = ALPHA) -> dict[str, Any]:
    """Chi-square of equally likely cells (indices below `count`); tv: total variation from uniform over the cells."""
    n = len(cells)
    seen = np.bincount(cells, minlength=count)
    return {
        "name": name,
        "n": n,
        "tv": float(np.abs(seen / n - 1 / count).sum() / 2),
        "null_q99": _null_tv_q99(n, count),
        "p_value": chi_square_tail(float(((seen - n / count) ** 2).sum() * count / n), count - 1),
        "detectable_tv": _detectable_binned(n, count, level),
    }


def ks_check(name: str, values: NDArray[np.float64], level: float = ALPHA) -> dict[str, Any]:
    """Kolmogorov-Smirnov against uniform; `tv` holds its distance (largest difference of the distribution
    functions).
    """
    n = len(values)
    ordered = np.sort(values)
    distance = float(max((np.arange(1, n + 1) / n - ordered).max(), (ordered - np.arange(n) / n).max()))
    q99 = _bisect(0, 2, lambda x: kolmogorov_tail(x, n) > 0.01)
    critical = _bisect(0, 2, lambda x: kolmogorov_tail(x, n) > level)
    # a share estimated from n draws has a standard deviation of at most .5 / sqrt(n)
    return {
        "name": name,
        "n": n,
        "tv": distance,
        "null_q99": q99,
        "p_value": kolmogorov_tail(distance, n),
        "detectable_tv": min(1.0, critical + _POWER_Z * 0.5 / math.sqrt(n)),
    }


def pairs_check(
    name: str, first: NDArray[np.float64], second: NDArray[np.float64], level: float = ALPHA
) -> dict[str, Any]:
    """Chi-square of pairs of values in a square of equal cells: whether the two are independent."""
    side = max(2, min(SIDE, math.isqrt(len(first) // _EXPECTED)))
    return binned_check(name, _cells(first, side) * side + _cells(second, side), side * side, level)


def shift_check(
    name: str, first: NDArray[np.float64], second: NDArray[np.float64], level: float = ALPHA
) -> dict[str, Any]:
    """Whether each second value is uniform whatever the first is, which need not be: bins of the way around the circle
    from one to the other.
    """
    bins = max(2, min(BINS, len(first) // _EXPECTED))
    return binned_check(name, _cells((second - first) % 1, bins), bins, level)


def two_sample_check(
    name: str, first: Sequence[NDArray[np.float64]], second: Sequence[NDArray[np.float64]], level: float = ALPHA
) -> dict[str, Any]:
    """Rank sums of two samples, text by text (van Elteren 1960; ties by their mean rank, the variance that of all
    orders, the tail a normal one). tv: |P(X > Y) + P(X = Y) / 2 - 1/2|, which no total variation is smaller than.
    """
    moved = weight = variance = 0.0
    for x, y in zip(first, second):
        n = len(x) + len(y)
        if not len(x) or not len(y):
            continue
        both = np.concatenate([x, y])
        _, at, counts = np.unique(both, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(counts) - (counts - 1) / 2)[at] - (n + 1) / 2
        share, pairs = 1 / (n + 1), len(x) * len(y)
        moved += share * float(ranks[: len(x)].sum())
        weight += share * pairs
        variance += share**2 * pairs / (n * (n - 1)) * float((ranks**2).sum())
    off, spread = (moved / weight, math.sqrt(variance) / weight) if weight else (0.0, 0.0)
    z = abs(off) / spread if spread else 0.0
    critical = _bisect(0, 40, lambda x: math.erfc(x / math.sqrt(2)) > level)
    return {
        "name": name,
        "n": sum(map(len, first)) + sum(map(len, second)),
        "tv": abs(off),
        "null_q99": 2.5758 * spread,
        "p_value": math.erfc(z / math.sqrt(2)),
        "detectable_tv": min(1.0, (critical + _POWER_Z) * spread) if spread else 1.0,
    }


def uniform_checks(name: str, values: NDArray[np.float64], level: float = ALPHA) -> list[dict[str, Any]]:
    """Whether values are independent and uniform: distribution function, bins, and bins of neighbouring pairs."""
    bins = max(2, min(BINS, len(values) // _EXPECTED))
    even = 2 * (len(values) // 2)
    return [
        ks_check(f"{name}: distribution", values, level),
        binned_check(f"{name}: bins", _cells(values, bins), bins, level),
        pairs_check(f"{name}: neighbours", values[:even:2], values[1:even:2], level),
    ]


def never_check(name: str, seen: int, n: int) -> dict[str, Any]:
    """Of n cases, `seen` showed what a correct build never shows; tv is their share."""
    return _certain(name, n, seen / n, min(1.0, math.log(10) / n))


def same_check(name: str, wrong: int, texts: int, n: int) -> dict[str, Any]:
    """Of so many texts, n tokens together, `wrong` were not said as a correct build always says them; tv is their
    share.
    """
    return _certain(name, n, wrong / texts, 1 / texts)


def _certain(name: str, n: int, share: float, detectable: float) -> dict[str, Any]:
    """A check without chance: one case is enough."""
    return {
        "name": name,
        "n": n,
        "tv": share,
        "null_q99": 0.0,
        "p_value": 0.0 if share else 1.0,
        "detectable_tv": detectable,
    }


def _cells(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    return np.minimum((values * count).astype(np.int64), count - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: each p-value as if it were the only one."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def settle(checks: Sequence[dict[str, Any]]) -> None:
    """Adjust the p-values of all checks of one run together, and add `pass` to each."""
    for check, p in zip(checks, holm([check["p_value"] for check in checks])):
        check["p_value"] = p
        check["pass"] = p >= ALPHA
