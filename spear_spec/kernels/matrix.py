"""Matrices as `product.c` reads them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.errors import ContractError
from spear_spec.kernels.pointers import pointer
from spear_spec.kernels.structures import BYTES, FLOATS, HALVES, STRIP, CMatrix

_TYPES = {torch.float32: FLOATS, torch.half: HALVES, torch.int8: BYTES}


class Matrix:
    """A matrix [out, in] in strips of outputs, and the structure that points at it."""

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
        )
