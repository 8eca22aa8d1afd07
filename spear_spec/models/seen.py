"""Weights as they were when something was made of them: whether it must be made again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
