"""In which order a trainer sees its data, and what it draws: both told from the seed and the step alone, so that a run
that was stopped anywhere goes on as if it had not been.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Generic, TypeVar

import torch

from spear_spec.errors import ConfigError

Item = TypeVar("Item")


def seed_of(seed: int, *what: str | int) -> int:
    """A seed for one purpose and step, unlike that of any other: seed_of(0, "masks", 7)."""
    return int.from_bytes(blake2b(repr((seed, *what)).encode(), digest_size=8).digest(), "big") >> 1


def chance(seed: int, *what: str | int) -> torch.Generator:
    """Random numbers (on the CPU) for one purpose and step."""
    return torch.Generator().manual_seed(seed_of(seed, *what))


class Order(Generic[Item]):
    """An endless sequence of batches, made epoch by epoch; `order[step]` is the batch of a step.

    An epoch is a function of the seed and its number. What a checkpoint keeps (`state`) is with which step each known
    epoch begins; without it the epochs are counted anew.
    """

    def __init__(self, epoch: Callable[[random.Random], Sequence[Item]], seed: int) -> None:
        """epoch: all batches of one, with the random numbers that it is given and no others."""
        self._make, self._seed = epoch, seed
        self._first = [0]
        self._number, self._items = -1, list[Item]()

    def __getitem__(self, step: int) -> Item:
        """The batch of this step (0 is the first).

        Raises:
            ConfigError: an epoch has no batches.
        """
        number = bisect_right(self._first, step) - 1
        self._open(number)
        while step - self._first[number] >= len(self._items):
            number += 1
            if number == len(self._first):
                self._first.append(self._first[-1] + len(self._items))
            self._open(number)
        return self._items[step - self._first[number]]

    def _open(self, number: int) -> None:
        if number == self._number:
            return
        self._items = list(self._make(random.Random(seed_of(self._seed, "order", number))))
        self._number = number
        if not self._items:
            raise ConfigError("there is nothing to train on")

    def state(self) -> dict[str, Any]:
        """What `load` goes on from."""
        return {"first": list(self._first)}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, of the same data and seed."""
        self._first = [int(step) for step in state["first"]]
