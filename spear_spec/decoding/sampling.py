"""The one place where logits become probabilities: for the baseline, the draft and the target alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.errors import NumericsError
from spear_spec.kernels import native

_LOOKS = (64, 256)  # speech laws are peaked: the nucleus nearly always lies within the first 64 tokens
_COLD = 1e-3


def probabilities(logits: Tensor, sampling: SamplingConfig | Sequence[SamplingConfig]) -> Tensor:
    """The law that a token is drawn from: temperature, then top-k, then top-p. [..., V] -> [..., V], rows sum to 1.

    sampling: one for all, or one for each entry of the first dimension.

    In float32, or in float64 when the logits are. Temperature 0 is one-hot on the first best token. Top-p keeps the
    token that crosses: removed is what has more than top_p before it. Tokens tied with the last one kept stay.

    Raises:
        NumericsError: a logit is NaN or infinite.
    """
    x = logits if logits.dtype == torch.float64 else logits.float()
    if not isinstance(sampling, SamplingConfig) and all(other == sampling[0] for other in sampling):
        sampling = sampling[0]
    if x.device.type == "cpu" and x.dtype == torch.float32 and not x.requires_grad and native.available():
        return native.law_of(x, sampling)
    if not isinstance(sampling, SamplingConfig):
        return torch.cat([probabilities(row[None], own) for row, own in zip(x, sampling, strict=True)])
    if not math.isfinite(x.sum().item()):
        raise NumericsError
    temperature = sampling.temperature
    if temperature == 0:
        return torch.zeros_like(x).scatter_(-1, x.argmax(-1, keepdim=True), 1.0)
    if temperature < _COLD:  # x / temperature could overflow
        x = x - x.amax(-1, keepdim=True)
    law = torch.softmax(x if temperature == 1 else x / temperature, -1)
    if sampling.top_p >= 1 and not 0 < sampling.top_k < law.shape[-1]:
        return law
    kept = law * (law >= _threshold(law, sampling.top_k, sampling.top_p))
    return kept / kept.sum(-1, keepdim=True)


def _threshold(law: Tensor, top_k: int, top_p: float) -> Tensor:
    """The smallest probability that survives, [..., 1]."""
    size = law.shape[-1]
    if top_k:
        values = law.topk(min(top_k, size), dim=-1).values
        if top_p >= 1:
            return values[..., -1:]
        last = _crossing(values, values.sum(-1, keepdim=True) * top_p)
    else:
        for width in (*_LOOKS, size):
            values = law.topk(min(width, size), dim=-1).values
            last = _crossing(values, top_p)
            if width >= size or int(last.max()) < width:
                break
    return values.gather(-1, last.clamp_(max=values.shape[-1] - 1))


def _crossing(values: Tensor, mass: Tensor | float) -> Tensor:
    """Index of the token that takes the falling values past `mass`, [..., 1]."""
    return (values.cumsum(-1) <= mass).sum(-1, keepdim=True)
