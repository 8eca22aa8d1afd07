"""What drafters, rules, runtimes, trainers and the engine know of a transformer that writes semantic tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from spear_spec.models.memory import DecoderOutput, Memory, Skip
from spear_spec.nn.tree import Tree


class Geometry(Protocol):
    """What the shape of a draft follows from, of a target or of its configuration: width and number of decoder layers,
    number and width of their heads, tokens that there are laws over.
    """

    @property
    def dim(self) -> int: ...

    @property
    def depth(self) -> int: ...

    @property
    def heads(self) -> int: ...

    @property
    def dim_head(self) -> int: ...

    @property
    def vocab_size(self) -> int: ...


class Cache(Protocol):
    """What a target remembers of the tokens that each row has read. Runtimes and drafters ask no more of it; what is in
    it is the target's own affair (`nn.cache.KVCache` where there is attention).

    `lengths` counts each row's committed tokens. A call of the target writes its tokens behind them and commits them.
    """

    lengths: list[int]

    def crop(self, lengths: list[int]) -> None:
        """Chain rollback: keep the first lengths[b] tokens of row b."""
        ...

    def keep(self, base: list[int], path: list[list[int]]) -> None:
        """Tree rollback: of the nodes written behind base[b], keep those of row b's path, in order."""
        ...

    def select(self, rows: list[int]) -> None:
        """Only these rows go on, in this order. A beam search names rows in any order and more than once."""
        ...

    def join(self, other: Self) -> None:
        """Take in the rows of another cache of the same target, behind the rows that are here."""
        ...


class Target(Protocol):
    """An autoregressive decoder on an encoded text.

    It reads `[start_id, token_1, token_2, ...]`; logits at position i are the law of token i + 1 over `vocab_size` ids,
    the end token `eos_id` among them. `start_id` is `vocab_size`: it is read and never written. dim: width of `hidden`,
    of `embed` and of the features; depth: decoder layers, counted from 1 in `features`. text_ids: a request's text ids
    lie below it. max_tokens: positions that there are, so no row gets a higher cap; None where there is no end of them.
    """

    eos_id: int
    vocab_size: int
    start_id: int
    dim: int
    depth: int
    heads: int
    dim_head: int
    text_ids: int
    max_tokens: int | None

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def embedding(self) -> Tensor:
        """Vectors of the tokens and, last, of the start: [vocab_size + 1, dim]. A draft shares them."""
        ...

    @property
    def head(self) -> Tensor:
        """The linear part [vocab_size, dim] of `logits`: a draft's own head."""
        ...

    def shared(self) -> tuple[Tensor, ...]:
        """The weights that `embedding` and `head` are made of: when one changes, what was derived from it is made
        again.
        """
        ...

    def text(self, ids: Sequence[int]) -> list[int]:
        """Text ids of a request as `encode` wants them: with an end token where the transformer has one.

        Raises:
            TextError: an id that the transformer does not know, or more than it can read.
        """
        ...

    def encode(self, text_ids: Tensor, mask: Tensor | None = None) -> Memory:
        """text_ids [B, S], ragged rows padded with 0; mask [B, S], True where there is text."""
        ...

    def new_cache(self, batch: int, capacity: int = 512) -> Cache:
        """An empty cache for so many rows; it grows. It is what `cache` stands for below."""
        ...

    def embed(self, tokens: Tensor) -> Tensor:
        """Ids [B, T], `start_id` included, to vectors [B, T, dim]."""
        ...

    def __call__(
        self,
        tokens: Tensor,
        memory: Memory,
        cache: Any = None,
        *,
        tree: Tree | None = None,
        features: Sequence[int] = (),
        skip: Skip | None = None,
        below: tuple[int, Tensor] | None = None,
    ) -> DecoderOutput:
        """Score tokens [B, T]: the whole sequence, or with a cache what follows each row's committed prefix.

        New tokens see earlier ones or, with `tree`, their ancestors. features: layers whose output is kept. skip:
        sublayers that are left out. below (n, x): what the first n layers said of the first tokens, whose cache rows
        are there already. A transformer may refuse `skip` and `below` with a ConfigError.
        """
        ...

    def first_layers(self, tokens: Tensor, memory: Memory, cache: Any, count: int) -> Tensor:
        """The first `count` layers alone on tokens [B, T] behind each row: [B, T, dim]; for early exits.

        Raises:
            ConfigError: the transformer has no such layers.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [B, T, dim] after the last norm -> logits [B, T, vocab_size]."""
        ...
