"""The one way in which a tensor's address is taken: C knows neither types nor sizes, so they are checked here."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.errors import ContractError


def pointer(tensor: Tensor, shape: Sequence[int], dtype: torch.dtype, name: str) -> int:
    """The address of a contiguous tensor on the CPU.

    Raises:
        ContractError: it has another shape, dtype, device or layout; `name` says which tensor in the message.
    """
    _check(tensor, shape, dtype, name)
    if not tensor.is_contiguous():
        raise ContractError(f"the kernel was given {name} with strides {tensor.stride()}, it must be contiguous")
    return tensor.data_ptr()


def stacked_pointer(tensor: Tensor, shape: Sequence[int], dtype: torch.dtype, name: str) -> int:
    """The same for a tensor [L, ...] whose first dimension may have gaps between its entries; they do not overlap.

    Raises:
        ContractError: as `pointer`.
    """
    _check(tensor, shape, dtype, name)
    first = tensor[0]
    if not first.is_contiguous() or (len(tensor) > 1 and tensor.stride(0) < first.numel()):
        raise ContractError(
            f"the kernel was given {name} with strides {tensor.stride()}, each entry of the first dimension "
            "must be contiguous"
        )
    return tensor.data_ptr()


def _check(tensor: Tensor, shape: Sequence[int], dtype: torch.dtype, name: str) -> None:
    """Everything but strides. A meta or fake tensor has no address, a conjugate or negative view other values."""
    if (
        tensor.dtype is dtype
        and tensor.shape == torch.Size(shape)
        and tensor.device.type == "cpu"
        and tensor.layout is torch.strided
        and not tensor.is_neg()
        and not (dtype.is_complex and tensor.is_conj())
    ):
        return
    raise ContractError(
        f"the kernel was given {name} {list(tensor.shape)} {tensor.dtype} on {tensor.device} ({tensor.layout}), "
        f"it must be {list(shape)} {dtype} on the cpu"
    )
