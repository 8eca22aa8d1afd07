"""A draft decoder's chain on tensors alone: fixed memory, gamma steps whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.drafters.block import SURVIVAL, BlockDrafter
from spear_spec.decoding.drafters.decoder import DecoderChain
from spear_spec.decoding.drafters.prophet import ProphetDrafter
from spear_spec.decoding.rounds.laws import Law
from spear_spec.decoding.verifiers.tensors import at
from spear_spec.errors import ConfigError
from spear_spec.models.contract import Target
from spear_spec.models.drafts.block import BlockDecoder
from spear_spec.models.drafts.block_runner import BlockRunner
from spear_spec.models.drafts.decoder import DraftDecoder, DraftState
from spear_spec.models.drafts.runner import DraftRunner
from spear_spec.models.memory import Memory
from spear_spec.nn.attention import seeing
from spear_spec.nn.static import StaticCache
from spear_spec.runtime.static import Arrived, Text, bucket, put_cache


class Drawn(NamedTuple):
    """tokens int64 [R, G], 0 behind a row's own; counts int64 [R]; laws [R, G, V] that they were drawn from; fine bool
    [R]: False where one of those that count was made of NaN or infinity.
    """

    tokens: Tensor
    counts: Tensor
    laws: Tensor
    fine: Tensor


class StaticDraft(Protocol):
    """A view of the first rows' draft: one chain on it."""

    @property
    def cache(self) -> StaticCache: ...

    @property
    def fuse(self) -> Callable[[list[Tensor]], Tensor]:
        """The target's features, layer by layer, to what the draft is fed with."""
        ...

    def draw(
        self,
        fresh: Tensor,
        count: Tensor,
        features: Tensor,
        base: Tensor,
        limits: Tensor,
        uniforms: Tensor,
        gamma: int,
        law_of: Law,
    ) -> Drawn:
        """A chain behind each row's fresh tokens, as the drafter's `propose` draws it.

        Args:
            fresh [R, W], count [R], features [R, W, D]: see `Rows`. base int64 [R]: tokens that the draft has read.
            limits int64 [R]: most tokens of the row. uniforms float64 [R, at least gamma]: its next ones; token i uses
            number i.
        """
        ...


@dataclass(frozen=True)
class StaticChain:
    """A decoder that runs ahead on its own tokens, as `DecoderChain` does: gamma steps."""

    runner: DraftRunner
    state: DraftState
    cache: StaticCache
    fuse: Callable[[list[Tensor]], Tensor]
    window: bool
    eos: int

    def draw(
        self,
        fresh: Tensor,
        count: Tensor,
        features: Tensor,
        base: Tensor,
        limits: Tensor,
        uniforms: Tensor,
        gamma: int,
        law_of: Law,
    ) -> Drawn:
        """See `StaticDraft`."""
        if self.window:  # it starts anew at the newest token
            fresh, features = at(fresh, count - 1)[:, None], at(features, count - 1)[:, None]
            base, count = torch.zeros_like(base), torch.ones_like(count)
        hidden = at(self._step(fresh, features, base), count - 1)[:, None]
        base = base + count

        def logits(place: int, before: Tensor | None) -> Tensor:
            nonlocal hidden, base
            if before is not None:
                hidden = self._step(before[:, None], hidden, base)
                base = base + 1
            return self.runner.logits(hidden[:, 0])

        return chain(logits, gamma, limits, uniforms, law_of, self.eos)

    def _step(self, tokens: Tensor, features: Tensor, lengths: Tensor) -> Tensor:
        self.cache.lengths = lengths
        return self.runner.step(tokens, features, self.state)


@dataclass(frozen=True)
class StaticBlock:
    """A block decoder, as `BlockDrafter` draws from it: fresh tokens are read, one pass says of all positions. Keys and
    values of the block stand behind those of settled tokens, which are written over them later.
    """

    runner: BlockRunner
    state: DraftState
    cache: StaticCache
    fuse: Callable[[list[Tensor]], Tensor]
    eos: int

    def draw(
        self,
        fresh: Tensor,
        count: Tensor,
        features: Tensor,
        base: Tensor,
        limits: Tensor,
        uniforms: Tensor,
        gamma: int,
        law_of: Law,
    ) -> Drawn:
        """See `StaticDraft`."""
        runner, cache = self.runner, self.cache
        cache.lengths = base
        turns = cache.table[cache.coming(fresh.shape[1])]
        contexts = runner.read(fresh, features, turns, cache.append)
        cache.lengths = settled = base + count
        turns = cache.table[cache.coming(gamma)]
        # a row that may draft nothing has a position all the same: nobody sees it
        mask = cache.within(settled - runner.window, settled + limits.clamp(min=1))
        newest = at(contexts, count - 1)[:, None]
        said = runner.behind(newest, turns, self.state, lambda layer: seeing(mask, cache=cast(Any, cache), layer=layer))

        def logits(place: int, before: Tensor | None) -> Tensor:
            return runner.follow(said, place, at(fresh, count - 1) if before is None else before)

        return chain(logits, gamma, limits, uniforms, law_of, self.eos)


def chain(
    logits: Callable[[int, Tensor | None], Tensor],
    gamma: int,
    limits: Tensor,
    uniforms: Tensor,
    law_of: Law,
    eos: int,
) -> Drawn:
    """gamma tokens a row from the logits [R, V] of each place, which are told the tokens [R] before it (None at the
    first); those behind an end token or a row's limit do not count.
    """
    allowed = torch.arange(gamma, device=limits.device) < limits[:, None]
    going, goes, tokens, laws, sums = allowed[:, 0], list[Tensor](), list[Tensor](), list[Tensor](), list[Tensor]()
    for place in range(gamma):
        if place:
            going = going & (tokens[-1] != eos) & allowed[:, place]  # nothing follows an end token
        law, token, total = law_of.draw(logits(place, tokens[-1] if place else None), uniforms, place)
        for line, new in ((goes, going), (tokens, token), (laws, law), (sums, total)):
            line.append(new)
    drew = torch.stack(goes, 1)
    fine = (torch.stack(sums, 1).isfinite() | ~drew).all(1)
    return Drawn(torch.stack(tokens, 1).masked_fill(~drew, 0), drew.sum(1), torch.stack(laws, 1), fine)


class DraftRows:
    """Caches and texts of a draft decoder for rows that come and go."""

    def __init__(self, drafter: Drafter, target: Target, gamma: int) -> None:
        """Raises ConfigError: a drafter whose chain does not run on tensors alone."""
        self.draft = chain_decoder(drafter)
        self.window = isinstance(drafter, ProphetDrafter)
        self.target, self.gamma = target, gamma
        # whole weights: on a CPU the rounded ones have kernels that want lists
        kind: Any = BlockRunner if isinstance(self.draft, BlockDecoder) else DraftRunner
        self.runner: DraftRunner | BlockRunner = kind(self.draft, target, exact=True)
        self.layers = self.draft.cfg.target_layers
        self.fed = target.dim if self.layers else 0
        self._k: Tensor
        self._v: Tensor
        self._text: Text | None = None
        self._table: Tensor

    def room(self, memory: Memory, rows: int, positions: int, slots: int) -> None:
        """As much room as the target's rows have."""
        cfg, weight, old = self.draft.cfg, self.draft.enter.weight, self._text
        positions = bucket(self.gamma + 1, 8) if self.window else positions
        small = self.draft.start(memory.select([0]), 1)
        shape = (cfg.depth, rows, cfg.heads, positions, cfg.dim_head)
        k, v = weight.new_zeros(shape), weight.new_zeros(shape)
        text = Text.like(small.memory, rows, slots)
        if old is not None:
            here = slice(0, self._k.shape[1])
            k[:, here, :, : self._k.shape[3]], v[:, here, :, : self._k.shape[3]] = self._k, self._v
            text.take(old, here)
        self._k, self._v, self._text = k, v, text
        self._table = self.draft.rotary(positions)

    def admit(self, arrived: Arrived) -> Tensor:
        """Rows begin: the draft reads their prefixes but for the last token. Returns what it is fed with at that one
        (at the start where there is no prefix), [B, D]; D is 0 for one that is not fed.
        """
        assert self._text is not None
        memory, prefixes = arrived.memory, arrived.prefixes
        device, dtype = self._k.device, self._k.dtype
        at_ = torch.tensor(arrived.slots, dtype=torch.int64, device=device)
        state = self.draft.start(memory, 1)
        longest, batch = max(len(prefix) for prefix in prefixes), len(prefixes)
        fed = torch.zeros(batch, longest + 1, self.fed, dtype=dtype, device=device)
        if self.fed and arrived.output is not None:
            texts = torch.tensor(arrived.texts, dtype=torch.int64, device=device)
            fed = self.draft.fuse_target([layer[texts, : longest + 1] for layer in arrived.output.features])
        if longest and not self.window:
            start = self.target.start_id
            rows = [([start, *prefix[:-1]] if prefix else []) for prefix in prefixes]
            ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows], dtype=torch.int64, device=device)
            self.runner.step(ids, fed[:, :longest] if self.fed else None, state)
            state.cache.crop([len(row) for row in rows])
        self._text.put(state.memory, at_)
        put_cache(state.cache, (self._k, self._v), at_)
        newest = torch.tensor([len(prefix) for prefix in prefixes], dtype=torch.int64, device=device)
        return at(fed, newest)

    def begin(self, memory: Memory, at_: Tensor) -> None:
        """Rows without prefix begin at these places: as `admit`, and nothing is read back."""
        assert self._text is not None
        cross = [layer.cross_attn.keys_values(memory.hidden) for layer in self.draft.layers]
        self._text.put(Memory(memory.hidden, memory.mask, cross, None), at_)
        for store in (self._k, self._v):
            store.index_fill_(1, at_, 0.0)

    def view(self, rows: int, positions: int, eos: int) -> StaticDraft:
        """The first so many rows, at most so many positions of each."""
        assert self._text is not None
        cache = StaticCache(self._k[:, :rows, :, :positions], self._v[:, :rows, :, :positions], self._table)
        state = DraftState(cast(Any, cache), self._text.view(slice(0, rows), 1))
        if isinstance(self.runner, BlockRunner):
            return StaticBlock(self.runner, state, cache, self.draft.fuse_target, eos)
        return StaticChain(self.runner, state, cache, self.draft.fuse_target, self.window, eos)


def longest_draft(drafter: Drafter) -> int | None:
    """Most tokens that it can draft at once; None: any number."""
    return drafter.draft.cfg.block if isinstance(drafter, BlockDrafter) else None


def chain_decoder(drafter: Drafter) -> DraftDecoder | BlockDecoder:
    """The decoder of a drafter whose chains can be drawn on tensors alone.

    Raises:
        ConfigError: they cannot: it is no chain of a decoder, or it stops where a rule on the host says.
    """
    name = drafter.name
    ours = (BlockDrafter, DecoderChain)
    if not isinstance(drafter, ours) or type(drafter).advance not in [kind.advance for kind in ours]:
        raise ConfigError(f"runtime graphs runs chains of a draft decoder, which {name} is not: use runtime eager")
    stop = SURVIVAL if isinstance(drafter, BlockDrafter) and drafter.cost is not None else drafter.stop
    if stop is not None:
        raise ConfigError(f"runtime graphs drafts gamma tokens: leave stop={stop} out, or use runtime eager")
    if drafter.guided:
        raise ConfigError("runtime graphs drafts with the text alone: leave guided out, or use runtime eager")
    return drafter.draft
