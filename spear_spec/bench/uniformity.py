"""Is a sample uniform on [0, 1)? Kolmogorov-Smirnov and chi-square, Holm's adjustment, and what they would have noticed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

ALPHA = 0.001  # a check fails below this, after Holm's adjustment
BINS = 20
_SIMULATIONS = 2000
_POWER_Z = 1.2816  # 90 % power


def chi_square_tail(statistic: float, freedom: int) -> float:
    """P(X >= statistic) of a chi-square variable."""
    return float(torch.special.gammaincc(torch.tensor(freedom / 2, dtype=torch.float64), torch.tensor(statistic / 2, dtype=torch.float64)))


def kolmogorov_tail(distance: float, n: int) -> float:
    """P(D >= distance) of n uniform draws; Kolmogorov's series with Stephens' correction for finite n."""
    x = distance * (math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n))
    if x < 0.2:
        return 1.0
    return min(1.0, max(0.0, 2 * sum((-1) ** (k - 1) * math.exp(-2 * (k * x) ** 2) for k in range(1, 101))))


def _bisect(low: float, high: float, too_small: Any) -> float:
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if too_small(middle) else (low, middle)
    return high


def binned_check(name: str, cells: NDArray[np.int64], count: int, seed: int = 0) -> dict[str, Any]:
    """Chi-square of equally likely cells (indices below `count`); tv: total variation from uniform over the cells.

    detectable_tv: the distance (mass moved from half of the cells to the other half) found with 90 % power.
    """
    n = len(cells)
    seen = np.bincount(cells, minlength=count)
    tv = float(np.abs(seen / n - 1 / count).sum() / 2)
    null = np.random.default_rng(seed).multinomial(n, [1 / count] * count, size=_SIMULATIONS)
    null_tv = np.abs(null / n - 1 / count).sum(1) / 2
    freedom = count - 1
    critical = _bisect(freedom, 100.0 * count, lambda x: chi_square_tail(x, freedom) > ALPHA)
    excess = _bisect(0, 1e6, lambda x: (freedom + x - critical) / math.sqrt(2 * (freedom + 2 * x)) < _POWER_Z)
    return {"name": name, "n": n, "tv": tv, "null_q99": float(np.quantile(null_tv, 0.99)),
            "p_value": chi_square_tail(float(((seen - n / count) ** 2).sum() * count / n), freedom),
            "detectable_tv": min(1.0, math.sqrt(excess / (4 * n)))}


def ks_check(name: str, values: NDArray[np.float64]) -> dict[str, Any]:
    """Kolmogorov-Smirnov against uniform; `tv` holds its distance (largest difference of the distribution functions)."""
    n = len(values)
    ordered = np.sort(values)
    distance = float(max((np.arange(1, n + 1) / n - ordered).max(), (ordered - np.arange(n) / n).max()))
    q99, critical = (_bisect(0, 2, lambda x, level=level: kolmogorov_tail(x, n) > level) for level in (0.01, ALPHA))
    return {"name": name, "n": n, "tv": distance, "null_q99": q99, "p_value": kolmogorov_tail(distance, n),
            "detectable_tv": min(1.0, critical + _POWER_Z * 0.5 / math.sqrt(n))}


def uniform_checks(name: str, values: NDArray[np.float64], seed: int = 0) -> list[dict[str, Any]]:
    """Whether values are independent and uniform: distribution function, bins, and bins of neighbouring pairs."""
    side = 5
    coarse = np.minimum((values * side).astype(np.int64), side - 1)
    pairs = coarse[0 : 2 * (len(values) // 2) : 2] * side + coarse[1::2][: len(values) // 2]
    return [
        ks_check(f"{name}: distribution", values),
        binned_check(f"{name}: bins", np.minimum((values * BINS).astype(np.int64), BINS - 1), BINS, seed),
        binned_check(f"{name}: neighbours", pairs, side * side, seed),
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment: each p-value as if it were the only one."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
