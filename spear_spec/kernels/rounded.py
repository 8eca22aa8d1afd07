"""A linear map whose weights and inputs are whole numbers of 8 bits (`bytes.c`), for drafts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.kernels.matrix import STEPS, whole_rows
from spear_spec.kernels.pointers import pointer
from spear_spec.kernels.structures import TILE_IN, TILE_OUT, CBytes

_LEAST = 1e-30  # as in bytes.c: the largest number of a row below this is as good as none


class RoundedLinear:
    """x [R, in] -> [R, out], without bias; rows of the weight have a scale each, and so has every row of x.

    Only for drafts, as `PackedLinear`. On a CPU in float32 the products are those of C to the last sum, which is a
    whole number; `exact` keeps weights and inputs as they are (other devices and dtypes do so anyway).
    """

    def __init__(self, weight: Tensor, *, exact: bool = False) -> None:
        """weight [out, in]."""
        weight = weight.detach()
        self.shape = weight.shape
        self._scale: Tensor | None = None
        if exact or weight.device.type != "cpu" or weight.dtype != torch.float32:
            self._weight = weight.clone()
            return
        self._weight, self._scale = whole_rows(weight)

    @property
    def rounds(self) -> bool:
        """Whether weights and inputs are rounded."""
        return self._scale is not None

    def __call__(self, x: Tensor) -> Tensor:
        """The product, in the dtype of x."""
        if self._scale is None:
            return F.linear(x, self._weight)
        top = x.abs().amax(-1, keepdim=True)
        steps = torch.full_like(top, STEPS) / top  # a plain number would be multiplied by the reciprocal
        codes = (x * torch.where(top >= _LEAST, steps, 0)).round()
        # below 2^24 float32 holds every sum; above (more than a thousand inputs) float64 does
        sums = F.linear(codes.double(), self._weight.double()).to(torch.float32)
        return sums * (top / STEPS) * self._scale

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        """to + product."""
        return to + self(x)

    def packed(self, first: int = 0) -> Tiles:
        """The map as C reads it, of outputs from `first` on."""
        assert self._scale is not None, "these weights are not rounded"
        return Tiles(self._weight[first:], self._scale[first:].contiguous())


class Tiles:
    """A map in tiles of outputs, and the structure that points at it."""

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        """weight [out, in]: whole numbers; scale [out]."""
        out, inputs = weight.shape
        padded = F.pad(weight, (0, -inputs % TILE_IN, 0, -out % TILE_OUT))
        codes = (padded + 128).to(torch.uint8)  # that of nothing is 128 too: its input is 0, its output not written
        self.shape = (out, inputs)
        self.strips = codes.view(-1, TILE_OUT, padded.shape[1] // 4, 4).transpose(1, 2).contiguous()
        self._scale = scale
        shape = (-(-out // TILE_OUT), padded.shape[1] // 4, TILE_OUT, 4)
        self.struct = CBytes(
            pointer(self.strips, shape, torch.uint8, "8-bit weights"),
            pointer(scale, (out,), torch.float32, "scales of weights"),
            inputs,
            out,
        )

    def move(self, strips: Tensor) -> None:
        """The same weights lie here now; whoever has copied the structure has the place before."""
        self.strips = strips
        self.struct.codes = pointer(strips, strips.shape, torch.uint8, "8-bit weights")

    def behind(self, first: int) -> CBytes | None:
        """The outputs from `first` on, as C reads them; None where they do not begin with a tile."""
        if first % TILE_OUT:
            return None
        struct = self.struct
        skipped = first * self.strips.shape[1] * 4  # tiles lie one after the other
        return CBytes(struct.codes + skipped, struct.scale + 4 * first, struct.in_, struct.out - first)
