"""Reading somebody else's checkpoint: nothing is unpickled, and something is asked of every tensor."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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


def plain(path: Path) -> Any:
    """What a file of torch holds, nothing of it unpickled."""
    return torch.load(path, map_location="cpu", weights_only=True)


def read_checkpoint(
    path: Path,
    load: Callable[[Path], Any] = plain,
    more: str = "holds more than plain tensors, numbers and names",
) -> Any:
    """What a file holds, if it is tensors, numbers and names alone.

    Args:
        load: reads it; anything that it raises is told as damage. more: what is said of a file that holds more.

    Raises:
        BundleError: it is missing, damaged, or holds more.
    """
    if not path.is_file():
        raise BundleError(f"{path}: no such checkpoint file")
    try:
        return load(path)
    except Exception as error:  # broken bytes bring out errors of many types
        reason = str(error).partition("\n")[0][:150].strip() or type(error).__name__
        if isinstance(error, pickle.UnpicklingError) and "Weights only" in reason:
            raise BundleError(f"{path}: {more}") from None
        raise BundleError(f"{path}: damaged, truncated or no checkpoint ({reason})") from None


class Weights:
    """A state dict whose tensors are read once, checked, in float64. said: what leads to a shape that is wanted."""

    said = "not"

    def __init__(self, state: Mapping[str, Any]) -> None:
        self.state, self.read = state, set[str]()

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor of so many dimensions, none of them 0."""
        value = self.state.get(name)
        if not isinstance(value, Tensor) or value.ndim != dimensions or not value.numel():
            raise BundleError(f"checkpoint: {name} is missing or has another shape; is it the right model?")
        return tuple(value.shape)

    def dtype(self, name: str) -> torch.dtype:
        return self.state[name].dtype  # type: ignore[no-any-return]

    def take(self, name: str, *shape: int) -> Tensor:
        """The tensor of this name and shape."""
        if name not in self.state:
            raise BundleError(f"checkpoint: {name} is missing")
        value = self.state[name]
        if not isinstance(value, Tensor):
            raise BundleError(f"checkpoint: {name} is a {type(value).__name__}, no tensor")
        check_tensor(name, value, shape, self.said)
        self.read.add(name)
        return value.detach().double()
