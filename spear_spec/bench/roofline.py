"""The roofline: what a step of the target cannot be faster than on this machine (Williams et al., CACM 52(4), 2009).

A call must read the weights of the decoder once, and make two operations of each for every token that it scores. Time
is at least what the slower of the two takes, at the bandwidth and the arithmetic rate that are measured here, in one
run with everything else. Keys and values, the text's among them, are not counted, so a bound is a little too low.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from spear_spec.bench.machine import now
from spear_spec.models.contract import Target

_TRIES = 5


@dataclass(frozen=True)
class Roofline:
    """weights: numbers that a token is multiplied with; bytes: what is read of them; bandwidth in bytes a second, peak
    in operations a second.
    """

    weights: int
    bytes: int
    bandwidth: float
    peak: float

    def bound_ms(self, tokens: int) -> float:
        """Milliseconds that a call which scores so many tokens, of all rows, takes at least."""
        return 1e3 * max(self.bytes / self.bandwidth, 2 * self.weights * tokens / self.peak)

    def to_dict(self) -> dict[str, Any]:
        """For bench/1: gigabytes and billions of operations a second."""
        return {
            "weights": self.weights,
            "weight_bytes": self.bytes,
            "bandwidth_gb_s": round(self.bandwidth / 1e9, 2),
            "peak_gflop_s": round(self.peak / 1e9, 1),
        }


def roofline(target: Target) -> Roofline | None:
    """Of this target with the threads and the dtype that it runs with now; None for one that does not say what its
    decoder's weights are.
    """
    decoder = getattr(target, "decoder", None)
    if not isinstance(decoder, torch.nn.Module):
        return None
    parts = [*decoder.parameters(), target.head]
    weights = sum(weight.numel() for weight in parts if weight.ndim > 1)
    size = sum(weight.numel() * weight.element_size() for weight in parts)
    step = getattr(target.new_cache(1, 1), "native", None)
    size = size if step is None else step.stack.bytes
    return Roofline(weights, size, _bandwidth(target, size), _peak(target))


def _bandwidth(target: Target, size: int) -> float:
    """Bytes a second that a sum over as many bytes as the weights have reads, so that the same cache holds them."""
    x = torch.zeros(max(size // 4, 1), dtype=torch.float32, device=target.device)
    return size / _fastest(target, lambda: x.sum())


def _peak(target: Target) -> float:
    """Operations a second of a large product."""
    side = 1024 if target.device.type == "cpu" else 8192
    dtype = target.dtype if target.device.type != "cpu" else torch.float32
    x = torch.ones(side, side, dtype=dtype, device=target.device)
    return 2 * side**3 / _fastest(target, lambda: x @ x)


def _fastest(target: Target, call: Any) -> float:
    """Seconds of the middle of the tries, the first, which warms up, left out."""
    times = []
    with torch.inference_mode():
        for _ in range(_TRIES + 1):
            began = now(target.device)
            call()
            times.append(now(target.device) - began)
    return median(times[1:])
