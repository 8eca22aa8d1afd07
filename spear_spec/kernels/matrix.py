"""Matrices as `product.c` reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.errors import ContractError
from spear_spec.kernels import native
from spear_spec.kernels.pointers import pointer
from spear_spec.kernels.structures import BYTES, FLOATS, HALVES, STRIP, TILE_IN, CMatrix

_PAGE = 2**21  # a large page of most machines
_LINE = 64
_TYPES = {torch.float32: FLOATS, torch.half: HALVES, torch.int8: BYTES}


STEPS = 127  # on either side of zero


def whole_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a weight [out, in] as whole numbers from -127 to 127, in its dtype, and a scale of each row [out]."""
    scale = weight.abs().amax(1).clamp_min(1e-12) / STEPS
    return (weight / scale[:, None]).round().clamp_(-STEPS, STEPS), scale


class Matrix:
    """A matrix [out, in] in strips of outputs, and the structure that points at it."""

    strips: Tensor
    _scale: Tensor | None

    def __init__(self, weight: Tensor) -> None:
        """weight: float32 on the CPU; kept in half precision where that holds every one of them exactly.

        Raises:
            ContractError: another dtype, device or number of dimensions.
        """
        weight = weight.detach()
        if weight.ndim != 2 or weight.dtype is not torch.float32 or not weight.is_cpu:
            raise ContractError(f"the kernel's weights are float32 [out, in] on the CPU, not {weight.dtype}")
        rounded = weight.half()
        self._pack(rounded if bool((rounded.float() == weight).all()) else weight, None)

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
        side, whole = (1, 1) if scale is None else (4, TILE_IN)  # inputs that lie side by side; a multiple of inputs
        padded = F.pad(weight, (0, -inputs % whole, 0, -out % STRIP))
        strips = padded.view(-1, STRIP, padded.shape[1] // side, side).transpose(1, 2).contiguous()
        shape = (-(-out // STRIP), padded.shape[1] // side, STRIP, side)
        self.bytes = strips.numel() * strips.element_size()
        self.shape = (out, inputs)
        self.strips, self._scale = strips, scale  # what the structure points at
        self.struct = CMatrix(
            pointer(strips, shape, weight.dtype, "weights"),
            inputs,
            out,
            _TYPES[weight.dtype],
            None if scale is None else pointer(scale, (out,), torch.float32, "scales of weights"),
        )

    def move(self, strips: Tensor) -> None:
        """The same weights lie here now; whoever has copied the structure has the place before."""
        self.strips = strips
        self.struct.weights = pointer(strips, strips.shape, strips.dtype, "weights")


class Movable(Protocol):
    """Weights that may lie anywhere."""

    strips: Tensor

    def move(self, strips: Tensor) -> None: ...


def side_by_side(matrices: Sequence[Movable]) -> None:
    """Move weights that one step reads into one piece of memory, in this order, on large pages where the system gives
    them. Less than half such a page stays where it is.
    """
    held = [matrix.strips for matrix in matrices]
    places, end = [], 0
    for strips in held:
        places.append(end)
        end += -(-strips.numel() * strips.element_size() // _LINE) * _LINE
    if end < _PAGE // 2:
        return
    room = torch.empty(-(-end // _PAGE) * _PAGE + _PAGE, dtype=torch.uint8)
    first = -room.data_ptr() % _PAGE
    native.library().spear_large_pages(room.data_ptr() + first, room.numel() - _PAGE)
    for matrix, strips, place in zip(matrices, held, places, strict=True):
        size = strips.numel() * strips.element_size()
        own = room[first + place : first + place + size].view(strips.dtype).view(strips.shape)
        own.copy_(strips)
        matrix.move(own)
