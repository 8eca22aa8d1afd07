"""Decoder layers one on another behind a cache: what the transformers that write semantic tokens have in common."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from spear_spec.errors import ConfigError
from spear_spec.models.memory import DecoderOutput, Memory, Skip, cached_positions
from spear_spec.nn.cache import KVCache
from spear_spec.nn.transformer import Layers
from spear_spec.nn.tree import Tree

L = TypeVar("L", bound=nn.Module)


class DecoderStack(nn.Module, Generic[L]):
    """`Target.__call__` and `first_layers` for a list `decoder` of layers that are called as
    `nn.transformer.DecoderLayer` is, a `decoder_norm` and a `logits`.

    A transformer says how its tokens enter (`enter`), and what a position is given (`positions`).
    """

    decoder: Layers[L]
    decoder_norm: nn.Module
    max_tokens: int | None = None  # positions that there are; None: as many as one likes

    def positions(self, count: int) -> Tensor:
        """What the first `count` positions are given, [at least count, ...]: rotations, or vectors to add."""
        raise NotImplementedError

    def enter(self, tokens: Tensor, here: Tensor, memory: Memory) -> Tensor:
        """Tokens [B, T] at positions whose entries of `positions` are here [T, ...] or [B, T, ...] -> [B, T, D]."""
        raise NotImplementedError

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [B, T, D] after the last norm -> logits [B, T, V]."""
        raise NotImplementedError

    def forward(
        self,
        tokens: Tensor,
        memory: Memory,
        cache: KVCache | None = None,
        *,
        tree: Tree | None = None,
        features: Sequence[int] = (),
        skip: Skip | None = None,
        below: tuple[int, Tensor] | None = None,
    ) -> DecoderOutput:
        """Score tokens [B, T].

        Without a cache the T tokens are the whole sequence. With one they are written behind each row's length and see
        that row's committed prefix and, among themselves, earlier tokens or (with `tree`) their ancestors.

        features: layers (1 is the first) whose output is kept. skip: sublayers that are left out (self-speculation,
        arXiv 2309.08168).

        below (n, x [B, T0, D]): what the first n layers said of the first T0 tokens, whose rows of these layers are
        in the cache already (early exit: the draft ran them); there they run for the other tokens alone.
        """
        if cache is not None and self._native(cache):
            return self._step(tokens, memory, cache, tree, features, skip, below)
        here, mask, causal = self._places(tokens, cache, tree)
        x, reused, kept = self.enter(tokens, here, memory), 0, []
        if below is not None:
            assert cache is not None and tree is None, "rows are reused from a cache, for chains"
            reused, known = below
            x = self._finish(x, known, reused, memory, cache)
        for index in range(len(self.decoder)):
            if index >= reused:
                x = self._run(x, [index], here, mask, causal, memory, cache, skip)
            if index + 1 in features:
                kept.append(x)
        if cache is not None:
            cache.advance(tokens.shape[1])
        hidden = self.decoder_norm(x)
        return DecoderOutput(self.logits(hidden), hidden, kept)

    def first_layers(self, tokens: Tensor, memory: Memory, cache: KVCache, count: int) -> Tensor:
        """The first `count` layers alone on tokens [B, T] behind each row's length: the residual stream [B, T, D]."""
        if self._native(cache):
            self.room(tokens.shape[1], cache)
            x, *_ = self._call(tokens, memory, cache, 0, count)
            cache.advance(tokens.shape[1])
            return x
        here, mask, causal = self._places(tokens, cache, None)
        x = self._run(self.enter(tokens, here, memory), range(count), here, mask, causal, memory, cache)
        cache.advance(tokens.shape[1])
        return x

    @staticmethod
    def _native(cache: KVCache) -> bool:
        """Whether C runs steps on this cache. It knows neither gradients nor autocast."""
        return cache.native is not None and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")

    def _step(
        self,
        tokens: Tensor,
        memory: Memory,
        cache: KVCache,
        tree: Tree | None,
        features: Sequence[int],
        skip: Skip | None,
        below: tuple[int, Tensor] | None,
    ) -> DecoderOutput:
        """`forward` by one call into C, or two where the first layers have run for some of the tokens."""
        length = tokens.shape[1]
        self.room(length, cache)
        entering, reused, known = tokens, 0, []
        if below is not None:
            assert tree is None, "rows are reused from a cache, for chains"
            reused, entering = below
            done = entering.shape[1]
            if done < length:
                cache.advance(done)
                rest, *_ = self._call(tokens[:, done:], memory, cache, 0, reused)
                cache.crop([position - done for position in cache.lengths])
                entering = torch.cat((entering, rest), 1)
            known = [entering for layer in features if layer <= reused]
        bits = None
        if skip is not None:
            bits = [(i in skip.attention) + 2 * (i in skip.feed_forward) for i in range(len(self.decoder))]
        wanted = sorted(layer for layer in set(features) if layer > reused)
        _, hidden, logits, kept = self._call(entering, memory, cache, reused, len(self.decoder), tree, wanted, bits)
        cache.advance(length)
        assert hidden is not None and logits is not None
        return DecoderOutput(logits, hidden, [*known, *kept])

    def _call(
        self,
        entering: Tensor,
        memory: Memory,
        cache: KVCache,
        first: int,
        last: int,
        tree: Tree | None = None,
        features: Sequence[int] = (),
        skip: Sequence[int] | None = None,
    ) -> Any:
        """See `kernels.step.NativeStep.run`."""
        angles = self.positions(cache.longest + entering.shape[1])
        return cache.native.run(
            entering, memory.cross, memory.cross_mask, cache, angles, first, last, tree, features, skip
        )

    def _run(
        self,
        x: Tensor,
        layers: Iterable[int],
        here: Tensor,
        mask: Tensor | None,
        causal: bool,
        memory: Memory,
        cache: KVCache | None,
        skip: Skip | None = None,
    ) -> Tensor:
        for index in layers:
            x = self.decoder[index](
                x,
                here,
                mask,
                memory.cross[index],
                memory.cross_mask,
                causal=causal,
                cache=cache,
                layer=index,
                attention=skip is None or index not in skip.attention,
                feed_forward=skip is None or index not in skip.feed_forward,
            )
        return x

    def _finish(self, x: Tensor, known: Tensor, count: int, memory: Memory, cache: KVCache) -> Tensor:
        """The first `count` layers of x [B, T, D], of which known [B, T0, D] has run."""
        done, lengths = known.shape[1], list(cache.lengths)
        more = x.shape[1] - done
        if not more:
            return known
        cache.advance(done)
        here, mask, causal = cached_positions(self.positions(cache.longest + more), cache, more, None)
        rest = self._run(x[:, done:], range(count), here, mask, causal, memory, cache)
        cache.crop(lengths)
        return torch.cat((known, rest), 1)

    def _places(self, tokens: Tensor, cache: KVCache | None, tree: Tree | None) -> tuple[Tensor, Tensor | None, bool]:
        """Positions and self-attention mask of the new tokens; room for them in the cache."""
        length = tokens.shape[1]
        if cache is not None:
            self.room(length, cache)
            return cached_positions(self.positions(cache.longest + length), cache, length, tree)
        self._fits(length)
        table = self.positions(length)
        if tree is None:
            return table[:length], None, length > 1
        return table[tree.depth], tree.mask[:, None], False

    def room(self, length: int, cache: KVCache) -> None:
        """Room in the cache for so many new tokens."""
        self._fits(cache.longest + 1)
        cache.reserve(cache.longest + length)

    def _fits(self, positions: int) -> None:
        if self.max_tokens is not None and positions > self.max_tokens:
            raise ConfigError(f"this transformer has {self.max_tokens} positions: set max_tokens to that or lower")
