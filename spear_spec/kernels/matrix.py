"""Matrices as `product.c` reads them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.errors import ContractError
from spear_spec.kernels import native
from spear_spec.kernels.pointers import pointer
from spear_spec.kernels.structures import BYTES, EDGE, FLOATS, HALVES, STRIP, CMatrix

_TYPES = {torch.float32: FLOATS, torch.half: HALVES, torch.int8: BYTES}


class Matrix:
    """A matrix [out, in] in strips of outputs, and the structure that points at it."""

    _held: tuple[Tensor | None, ...]

    def __init__(self, weight: Tensor, *, tiles: bool = False) -> None:
        """weight: float32 on the CPU; kept in half precision where that holds every one of them exactly. tiles: kept a
        second time for the tile unit, where there is one and the weights are such that nothing is lost.

        Raises:
            ContractError: another dtype, device or number of dimensions.
        """
        weight = weight.detach()
        if weight.ndim != 2 or weight.dtype is not torch.float32 or not weight.is_cpu:
            raise ContractError(f"the kernel's weights are float32 [out, in] on the CPU, not {weight.dtype}")
        rounded = weight.half()
        self._pack(rounded if bool((rounded.float() == weight).all()) else weight, None)
        second = tiled(weight) if tiles and native.library().spear_tiles() else None
        if second is not None:
            self._held = (*self._held, second)
            self.struct.tiles = pointer(second, second.shape, torch.bfloat16, "tiles of weights")

    @classmethod
    def of_codes(cls, codes: Tensor, scale: Tensor) -> Matrix:
        """Of 8 bits: codes int8 [out, in], the scale of each output [out].

        Raises:
            ContractError: another dtype, device or shape.
        """
        if codes.ndim != 2 or codes.dtype is not torch.int8:
            raise ContractError(f"8-bit weights are int8 [out, in], not {codes.dtype} {list(codes.shape)}")
        matrix = cls.__new__(cls)
        matrix._pack(codes, scale.detach().float().contiguous())
        return matrix

    def _pack(self, weight: Tensor, scale: Tensor | None) -> None:
        out, inputs = weight.shape
        padded = F.pad(weight, (0, 0, 0, -out % STRIP))
        strips = padded.view(-1, STRIP, inputs).transpose(1, 2).contiguous()
        shape = (-(-out // STRIP), inputs, STRIP)
        self.bytes = strips.numel() * strips.element_size()
        self.shape = (out, inputs)
        self._held = (strips, scale)  # what the structure points at
        self.struct = CMatrix(
            pointer(strips, shape, weight.dtype, "weights"),
            inputs,
            out,
            _TYPES[weight.dtype],
            None if scale is None else pointer(scale, (out,), torch.float32, "scales of weights"),
            None,
        )


def tiled(weight: Tensor) -> Tensor | None:
    """Weights [out, in] as tiles.h has them: two bfloat16 numbers each; None where these do not hold every weight
    exactly (as they hold whatever half precision does).
    """
    weight = weight.detach()
    out, inputs = weight.shape
    most = weight.bfloat16()
    rest = weight - most.float()
    less = rest.bfloat16()
    if not torch.equal(less.float(), rest):
        return None
    parts = F.pad(torch.stack([most, less]), (0, -inputs % (2 * EDGE), 0, -out % EDGE))
    parts = parts.view(2, -1, EDGE, parts.shape[2] // (2 * EDGE), EDGE, 2)  # part, panel, output, depth, pair, of it
    return parts.permute(1, 3, 0, 4, 2, 5).contiguous()
