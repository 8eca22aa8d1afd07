"""What a round knows of each row: tensors that stay where they are."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from spear_spec.decoding.chance import device_uniforms
from spear_spec.decoding.rounds.laws import Settings

POOL = 1024  # uniforms of a row that are made at once; making them takes some 150 operations
TOLD = 5  # columns of `told` in front of the tokens
KEPT, ACCEPTED, DRAFTED, ENDED, FINE = range(TOLD)
GOES_ON, EOS, CAP = range(3)


@dataclass(frozen=True)
class Rows:
    """Rows [R] in fixed memory; W = gamma + 1.

    fresh int64 [R, W]: the tokens that the last round settled; count int64 [R]: how many, at least 1, the newest last.
    kept, cap int64 [R]: tokens kept, an utterance's prefix among them, and most of them. The target has read `kept`
    tokens: the start and all kept ones but the newest. seed, drawn int64 [R]: the row's stream and its next number;
    pool float64 [R, POOL]: uniforms of the stream from number `pooled` on. active bool [R]: whether the row is one and
    goes on. features [R, W, D]: what a draft is fed with at the fresh tokens, D 0 where it is not. told int64
    [R, TOLD + W]: what the last round has to say to the host, -1 behind the kept tokens.
    """

    fresh: Tensor
    count: Tensor
    kept: Tensor
    cap: Tensor
    seed: Tensor
    drawn: Tensor
    pool: Tensor
    pooled: Tensor
    active: Tensor
    features: Tensor
    told: Tensor
    how: Settings

    @classmethod
    def empty(cls, rows: int, width: int, dim: int, dtype: torch.dtype, device: torch.device) -> Rows:
        """Rows that nobody has. width: W; dim, dtype: of the features."""

        def numbers(*shape: int) -> Tensor:
            return torch.zeros(rows, *shape, dtype=torch.int64, device=device)

        return cls(
            numbers(width),
            numbers() + 1,
            numbers(),
            numbers() + 1,
            numbers(),
            numbers(),
            torch.zeros(rows, POOL, dtype=torch.float64, device=device),
            numbers(),
            torch.zeros(rows, dtype=torch.bool, device=device),
            torch.zeros(rows, width, dim, dtype=dtype, device=device),
            numbers(TOLD + width),
            Settings.empty(rows, device),
        )

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them."""
        return (*(getattr(self, field.name) for field in fields(self) if field.name != "how"), *self.how.tensors)

    def first(self, rows: int) -> Rows:
        """The first rows, the same memory."""
        mine = {field.name: getattr(self, field.name)[:rows] for field in fields(self) if field.name != "how"}
        return Rows(**mine, how=self.how.first(rows))

    def take(self, other: Rows) -> None:
        """What fewer rows hold, into the first rows."""
        for mine, old in zip(self.tensors, other.tensors):
            mine[: len(old)] = old

    def refill(self) -> None:
        """New uniforms for every row, from its next one on."""
        self.pool.copy_(device_uniforms(self.seed, self.drawn, POOL))
        self.pooled.copy_(self.drawn)

    def ahead(self, count: int) -> Tensor:
        """Each row's next `count` uniforms, float64 [R, count]."""
        place = torch.arange(count, device=self.pool.device)
        return self.pool.gather(1, (self.drawn - self.pooled)[:, None] + place)


def longest_draw(gamma: int) -> int:
    """Uniforms that a round looks at, and most that it uses: the draft's, the trials' and the last token's."""
    return gamma + 2 * (gamma + 1) if gamma else 1


def rounds_a_pool(gamma: int) -> int:
    """Rounds that a pool lasts for, whatever they use."""
    return POOL // longest_draw(gamma)
