"""A linear map for drafts: on a CPU its weights are kept in 8 bits, because a step of one token costs what it reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 32  # the kernel reads the input width in blocks of 16; a width that is no multiple would read past the end


class PackedLinear:
    """x [R, in] float -> [R, out], without bias; rows of the weight have a scale each (symmetric, 8 bits).

    Only for drafts: what a draft says may be rounded, since the law it was drawn from is the law that verification is
    given. `exact` keeps the weights as they are (other devices and dtypes do so anyway).
    """

    def __init__(self, weight: Tensor, *, exact: bool = False) -> None:
        """weight [out, in]."""
        self._codes: Tensor | None = None
        if exact or weight.device.type != "cpu" or weight.dtype != torch.float32:
            self._plain = weight.t()
            return
        self._pad = -weight.shape[1] % _BLOCK
        weight = F.pad(weight, (0, self._pad))
        scale = weight.abs().amax(1).clamp_min(1e-12) / 127
        self._codes = (weight / scale[:, None]).round().to(torch.int8).contiguous()
        self._scale = scale.to(torch.bfloat16)

    def __call__(self, x: Tensor) -> Tensor:
        """The product, in bfloat16 where the weights are packed."""
        if self._codes is None:
            return torch.mm(x, self._plain)
        x = x.to(torch.bfloat16)
        if self._pad:
            x = F.pad(x, (0, self._pad))
        return torch._weight_int8pack_mm(x, self._codes, self._scale)

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        """to + product, in the dtype of `to`."""
        return torch.addmm(to, x, self._plain) if self._codes is None else to + self(x)
