"""A draft decoder's chain on tensors alone: fixed memory, gamma steps whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.drafters.decoder import DecoderChain
from spear_spec.decoding.drafters.prophet import ProphetDrafter
from spear_spec.decoding.rounds.laws import Law
from spear_spec.decoding.verifiers.tensors import at
from spear_spec.errors import ConfigError
from spear_spec.models.contract import Target
from spear_spec.models.drafts.decoder import DraftDecoder, DraftState
from spear_spec.models.drafts.runner import DraftRunner
from spear_spec.models.memory import Memory
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


@dataclass(frozen=True)
class StaticDraft:
    """A view of the first rows' draft: one chain on it."""

    runner: DraftRunner
    state: DraftState
    cache: StaticCache
    fuse: Callable[[list[Tensor]], Tensor]  # the target's features, layer by layer, to what the draft is fed with
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
        law_of: Law,
    ) -> Drawn:
        """A chain behind each row's fresh tokens, as `DecoderChain.propose` draws it.

        Args:
            fresh [R, W], count [R], features [R, W, D]: see `Rows`. base int64 [R]: tokens that the draft has read.
            limits int64 [R]: most tokens of the row. uniforms float64 [R, G]: its next ones; token i uses number i.
        """
        if self.window:  # it starts anew at the newest token
            fresh, features = at(fresh, count - 1)[:, None], at(features, count - 1)[:, None]
            base, count = torch.zeros_like(base), torch.ones_like(count)
        hidden = at(self._step(fresh, features, base), count - 1)[:, None]
        base = base + count
        allowed = torch.arange(uniforms.shape[1], device=limits.device) < limits[:, None]
        going, token = allowed[:, 0], fresh[:, 0]
        goes, tokens, laws, sums = [going], list[Tensor](), list[Tensor](), list[Tensor]()
        for place in range(uniforms.shape[1]):
            if place:
                hidden = self._step(token[:, None], hidden, base)
                base = base + 1
                going = going & (token != self.eos) & allowed[:, place]  # nothing follows an end token
                goes.append(going)
            law, token, total = law_of.draw(self.runner.logits(hidden[:, 0]), uniforms, place)
            tokens.append(token)
            laws.append(law)
            sums.append(total)
        drew = torch.stack(goes, 1)
        fine = (torch.stack(sums, 1).isfinite() | ~drew).all(1)
        return Drawn(torch.stack(tokens, 1).masked_fill(~drew, 0), drew.sum(1), torch.stack(laws, 1), fine)

    def _step(self, tokens: Tensor, features: Tensor, lengths: Tensor) -> Tensor:
        self.cache.lengths = lengths
        return self.runner.step(tokens, features, self.state)


class DraftRows:
    """Caches and texts of a draft decoder for rows that come and go."""

    def __init__(self, drafter: Drafter, target: Target, gamma: int) -> None:
        """Raises ConfigError: a drafter whose chain does not run on tensors alone."""
        self.draft = chain_decoder(drafter)
        self.window = isinstance(drafter, ProphetDrafter)
        self.target, self.gamma = target, gamma
        # whole weights: on a CPU the rounded ones have kernels that want lists
        self.runner = DraftRunner(self.draft, target, exact=True)
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
        return StaticDraft(self.runner, state, cache, self.draft.fuse_target, self.window, eos)


def chain_decoder(drafter: Drafter) -> DraftDecoder:
    """The decoder of a drafter whose chains can be drawn on tensors alone.

    Raises:
        ConfigError: they cannot: it is no chain of a decoder, or it stops where a rule on the host says.
    """
    name = drafter.name
    if not isinstance(drafter, DecoderChain) or type(drafter).advance is not DecoderChain.advance:
        raise ConfigError(f"runtime graphs runs chains of a draft decoder, which {name} is not: use runtime eager")
    if drafter.stop is not None:
        raise ConfigError(f"runtime graphs drafts gamma tokens: leave stop={drafter.stop} out, or use runtime eager")
    if drafter.guided:
        raise ConfigError("runtime graphs drafts with the text alone: leave guided out, or use runtime eager")
    return drafter.draft
