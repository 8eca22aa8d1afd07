"""A linear map for drafts: on a CPU its weights are kept in 8 bits, because a step of one token costs what it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

_BLOCK = 32  # the kernel reads the input width in blocks of 16; a width that is no multiple would read past the end


class PackedLinear:
    """x [R, in] float -> [R, out], without bias; rows of the weight have a scale each (symmetric, 8 bits).

    Only for drafts: what a draft says may be rounded, since the law it was drawn from is the law that verification is
    given. `exact` keeps the weights as they are (other devices and dtypes do so anyway). Either way it has a copy.
    """

    def __init__(self, weight: Tensor, *, exact: bool = False) -> None:
        """weight [out, in]."""
        weight = weight.detach()
        self._codes: Tensor | None = None
        if exact or weight.device.type != "cpu" or weight.dtype != torch.float32:
            self._plain = weight.clone().t()
            return
        self._in = weight.shape[1]
        self._pad = -self._in % _BLOCK
        weight = F.pad(weight, (0, self._pad))
        self._scale = (weight.abs().amax(1).clamp_min(1e-12) / 127).to(torch.bfloat16)
        # codes for the scale as it is after rounding, or each row would be off by up to .2 %
        self._codes = (
            (weight / self._scale.to(torch.float32)[:, None]).round().clamp_(-127, 127).to(torch.int8).contiguous()
        )

    @property
    def packed(self) -> bool:
        """Whether the weights are in 8 bits."""
        return self._codes is not None

    def rounded(self) -> tuple[Tensor, Tensor]:
        """Codes int8 [out, in] and the scale of each row [out]: the weight is their product."""
        assert self._codes is not None
        return self._codes[:, : self._in], self._scale

    def whole(self) -> Tensor:
        """The weight [out, in], where it is not packed."""
        assert self._codes is None
        return self._plain.t()

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


Map = TypeVar("Map")


@dataclass
class PackedLayer(Generic[Map]):
    """Maps of one decoder layer, norm gains folded in."""

    heads: int
    dim_head: int
    to_qkv: Map
    self_out: Map
    to_q: Map
    cross_out: Map
    up: Map
    up_bias: Tensor
    down: Map
    down_bias: Tensor
