"""The roofline: what a step of the target cannot be faster than on this machine (Williams et al., CACM 52(4), 2009).

A call must read the weights of the decoder once, and make two operations of each for every token that it scores. Time
is at least what the slower of the two takes, at the bandwidth and the arithmetic rate that are measured here, in one
run with everything else. Keys and values, the text's among them, are not counted, so a bound is a little too low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from spear_spec.bench.machine import now
from spear_spec.kernels import native
from spear_spec.models.contract import Target

_TRIES = 10


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


def roofline(target: Target, *, by_torch: bool = False) -> Roofline | None:
    """Of this target with the threads and the dtype that it runs with now; None for one that does not say what its
    decoder's weights are. by_torch: whoever runs it has no kernels in C, whose weights may be shorter.
    """
    decoder = getattr(target, "decoder", None)
    if not isinstance(decoder, torch.nn.Module):
        return None
    # keys and values of the text were made when it was encoded
    read = (weight for name, weight in decoder.named_parameters() if not ("cross" in name and "kv" in name))
    parts = [*read, target.head]
    weights = sum(weight.numel() for weight in parts if weight.ndim > 1)
    size = sum(weight.numel() * weight.element_size() for weight in parts)
    step = getattr(target.new_cache(1, 1), "native", None)
    size = size if step is None or by_torch else step.stack.bytes
    return Roofline(weights, size, _bandwidth(target, size), _peak(target))


def _bandwidth(target: Target, size: int) -> float:
    """Bytes a second that a sum over as many bytes as the weights have reads, so that the same cache holds them."""
    x = torch.zeros(max(size // 4, 1), dtype=torch.float32, device=target.device)
    seconds = _fastest(target, lambda: x.sum())
    if target.device.type == "cpu" and native.available():  # on one thread torch's sum adds more slowly than one reads
        read = native.library().spear_read
        seconds = min(seconds, _fastest(target, lambda: read(x.data_ptr(), x.numel())))
    return size / seconds


def _peak(target: Target) -> float:
    """Operations a second of a large product."""
    side = 1024 if target.device.type == "cpu" else 8192
    dtype = target.dtype if target.device.type != "cpu" else torch.float32
    x = torch.ones(side, side, dtype=dtype, device=target.device)
    return 2 * side**3 / _fastest(target, lambda: x @ x)


def _fastest(target: Target, call: Any) -> float:
    """Seconds of the fastest try: a bound is what the machine can do."""
    times = []
    with torch.inference_mode():
        for _ in range(_TRIES):
            began = now(target.device)
            call()
            times.append(now(target.device) - began)
    return min(times)
