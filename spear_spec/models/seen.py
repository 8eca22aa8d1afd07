"""Weights as they were when something was made of them: whether it must be made again."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

Made = TypeVar("Made")


@dataclass(frozen=True)
class Seen:
    """A weight as it was when a plan was made of it.

    It keeps the weight's memory, so that no other weight can come to lie at the same address, and its version counter,
    which every change in place raises. Tensors made in inference mode have none: of these it keeps the bits instead.
    """

    alias: Tensor
    version: int | None
    bits: Tensor | None

    @classmethod
    def of(cls, weight: Tensor) -> Seen:
        if weight.is_inference():
            return cls(weight.detach(), None, weight.detach().clone())
        return cls(weight.detach(), weight._version, None)

    def still(self, weight: Tensor) -> bool:
        """Whether the weight is where and what it was."""
        alias = self.alias
        if weight.data_ptr() != alias.data_ptr() or weight.dtype != alias.dtype or weight.shape != alias.shape:
            return False
        if weight.device != alias.device or weight.stride() != alias.stride():
            return False
        if self.bits is None:
            return not weight.is_inference() and weight._version == self.version
        return torch.equal(weight.detach(), self.bits)  # a NaN is never equal: then the runner is made again


class Plans(WeakKeyDictionary[nn.Module, tuple[list[Seen], Any]]):
    """What was made of modules' weights, once, and again when a weight has been changed in place, moved or replaced.

    Changes that PyTorch itself does not count (through `.data` or a numpy view) are seen only of weights that were made
    in inference mode, whose bits are compared. What is made refers to weights, never to a module: a module that nobody
    else holds goes, and its entry with it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._making = Lock()

    def of(self, module: nn.Module, weights: Iterable[Tensor], make: Callable[[], Made | None]) -> Made | None:
        """What was made of this module's weights; None, and not kept, where `make` makes nothing of them."""
        weights = list(weights)
        with self._making:  # two threads that start at once make one
            known = self.get(module)
            if known is None or len(known[0]) != len(weights) or not all(map(Seen.still, known[0], weights)):
                with torch.inference_mode():
                    made = make()
                    if made is None:
                        return None
                    self[module] = known = ([Seen.of(weight) for weight in weights], made)
            kept: Made = known[1]
            return kept
