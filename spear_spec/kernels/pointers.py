"""The one way in which a tensor's address is taken: C knows neither types nor sizes, so they are checked here."""

from __future__ import annotations

import torch
from torch import Tensor

from spear_spec.errors import ContractError


def pointer(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> int:
    """The address of a contiguous tensor on the CPU.

    Raises:
        ContractError: it has another shape, dtype, device or layout; `name` says which tensor in the message.
    """
    if not (_fits(tensor, shape, dtype) and tensor.is_contiguous()):
        raise _refused(tensor, shape, dtype, name)
    return tensor.data_ptr()


def stacked_pointer(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> int:
    """The same for a tensor [L, B, H, T, D] whose layers may lie apart: each is contiguous, and they do not overlap.

    Raises:
        ContractError: as `pointer`.
    """
    if _fits(tensor, shape, dtype):
        layers, batch, heads, positions, dim = shape
        apart, row, *within = tensor.stride()
        size = heads * positions * dim
        if (
            within == [positions * dim, dim, 1]
            and (batch == 1 or row == size)
            and (layers == 1 or apart >= batch * size)
        ):
            return tensor.data_ptr()
    raise _refused(tensor, shape, dtype, name)


def _fits(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> bool:
    """Everything but strides. A meta tensor has no address, a conjugate or negative view other values than it holds."""
    return (
        tensor.dtype is dtype
        and tensor.shape == shape
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and not tensor.is_neg()
        and not (dtype.is_complex and tensor.is_conj())
    )


def _refused(tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> ContractError:
    strides = f"strides {tensor.stride()}" if tensor.layout is torch.strided else tensor.layout
    return ContractError(
        f"the kernel was given {name} {list(tensor.shape)} {tensor.dtype} on {tensor.device} ({strides}), "
        f"it must be {list(shape)} {dtype} on the cpu, contiguous"
    )
