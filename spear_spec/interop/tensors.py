"""What is asked of every tensor of somebody else's checkpoint."""

from __future__ import annotations

from typing import Any

import torch

from spear_spec.errors import BundleError


def check_tensor(name: str, value: Any, shape: tuple[int, ...], said: str) -> None:
    """Refuse a tensor that cannot be used. said: what leads to the shape that it should have.

    Raises:
        BundleError: another shape, no floating point, NaN or infinity.
    """
    if tuple(value.shape) != shape:
        raise BundleError(f"checkpoint: {name} has shape {list(value.shape)}, {said} {list(shape)}")
    if not value.is_floating_point():
        raise BundleError(f"checkpoint: {name} is {value.dtype}, not floating point")
    if not bool(torch.isfinite(value).all()):
        raise BundleError(f"checkpoint: {name} holds NaN or infinity")
