"""All chance in the decoder comes from here: one Bernoulli draw, one categorical draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

_BLOCK = 1024  # uniforms drawn at once: a draw is then a list look-up
_BELOW_ONE = 1.0 - 2.0**-40  # u * total stays below total, so a draw never runs off the end of the table


class Chance(Protocol):
    """A source of randomness. Rows are those of the whole session, also after some of them have left the batch."""

    def bernoulli(self, p: float, row: int) -> bool:
        """True with probability p (values above 1 count as 1)."""
        ...

    def categorical(self, weights: Tensor, rows: Sequence[int]) -> list[int]:
        """One index for each row of weights [B, V] (non-negative, sum above 0, not necessarily 1)."""
        ...


class GeneratorChance:
    """Chance from torch generators, one stream a row.

    Promise: row r's draws depend on its own seed and on how many draws it has made, not on the batch around it. A
    row's tokens can therefore differ between batch sizes only where the rounding of a batched matrix product moves a
    probability across a draw.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._blocks: list[list[float]] = [[] for _ in seeds]

    @classmethod
    def from_generator(cls, generator: torch.Generator, rows: int) -> GeneratorChance:
        """One stream a row, seeded by `generator` in row order."""
        draw = torch.randint(0, 2**62, (rows,), generator=generator, device=generator.device)
        return cls([int(seed) for seed in draw.tolist()])

    def _uniform(self, row: int) -> float:
        block = self._blocks[row]
        if not block:
            self._refill(row)
        return block.pop()

    def _refill(self, row: int) -> None:
        """Another block behind what is there (a block is taken from its end)."""
        fresh = torch.rand(_BLOCK, generator=self._generators[row], dtype=torch.float64)
        self._blocks[row][:0] = fresh.clamp_(max=_BELOW_ONE).tolist()

    def ahead(self, row: int, count: int) -> list[float]:
        """The uniforms in [0, 1) that the row's next `count` draws will use, one a draw; they stay there."""
        while len(self._blocks[row]) < count:
            self._refill(row)
        return self._blocks[row][: -count - 1 : -1]

    def passed(self, row: int, count: int) -> None:
        """So many of them have been used elsewhere: `categorical` of a law is the first token whose running sum
        exceeds u.
        """
        if count:
            del self._blocks[row][-count:]

    def bernoulli(self, p: float, row: int) -> bool:
        return self._uniform(row) < p

    def categorical(self, weights: Tensor, rows: Sequence[int]) -> list[int]:
        # inverse of the cumulative sum in float64; strictly greater, so that a token of weight 0 is never drawn
        table = weights.cumsum(-1, dtype=torch.float64)
        if len(rows) == 1:
            return [int(torch.searchsorted(table[0], table[0, -1] * self._uniform(rows[0]), right=True))]
        u = torch.tensor([[self._uniform(row)] for row in rows], dtype=torch.float64, device=table.device)
        return torch.searchsorted(table, u * table[:, -1:], right=True)[:, 0].tolist()
