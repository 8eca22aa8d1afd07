"""What the device keeps for the draft decoder of rows that come and go."""

from __future__ import annotations

import logging
from typing import Any, cast

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.drafters.block import SURVIVAL, BlockDrafter
from spear_spec.decoding.drafters.decoder import DecoderChain
from spear_spec.decoding.drafters.prophet import ProphetDrafter
from spear_spec.decoding.rounds.draft import Fresh, StaticBlock, StaticChain, StaticDraft
from spear_spec.decoding.rounds.fused.chain import Ahead
from spear_spec.decoding.rounds.fused.ops import FusedLaw, first_line
from spear_spec.decoding.rounds.laws import Kinds, Law, Settings
from spear_spec.decoding.verifiers.tensors import at
from spear_spec.errors import ConfigError
from spear_spec.models.contract import Target
from spear_spec.models.drafts.block import BlockDecoder
from spear_spec.models.drafts.block_runner import BlockRunner
from spear_spec.models.drafts.decoder import DraftDecoder, DraftState
from spear_spec.models.drafts.runner import DraftRunner
from spear_spec.models.memory import Memory
from spear_spec.nn.static import StaticCache
from spear_spec.runtime.static import Arrived, Text, bucket, put_cache

log = logging.getLogger("spear_spec")


class DraftRows:
    """Caches and texts of a draft decoder for rows that come and go."""

    def __init__(self, drafter: Drafter, target: Target, gamma: int, *, fused: bool = False) -> None:
        """fused: whether there are kernels for whole chains.

        Raises:
            ConfigError: a drafter whose chain does not run on tensors alone.
        """
        self.draft = chain_decoder(drafter)
        self.window = isinstance(drafter, ProphetDrafter)
        self.target, self.gamma = target, gamma
        # whole weights: on a CPU the rounded ones have kernels that want lists
        kind: Any = BlockRunner if isinstance(self.draft, BlockDecoder) else DraftRunner
        self.runner: DraftRunner | BlockRunner = kind(self.draft, target, exact=True)
        self.ahead = Ahead.of(self.runner) if fused and isinstance(self.runner, DraftRunner) else None
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
        if old is None and self.ahead is not None and weight.is_cuda and not self.agrees():
            self.ahead = None

    def agrees(self) -> bool:
        """Whether the kernel draws here what torch draws, tried while nobody is there. One that cannot be compiled, or
        says something else, is told: chains do without it.
        """
        device, dtype = self._k.device, torch.promote_types(self.target.dtype, torch.float32)
        how = Settings.of([SamplingConfig(temperature=1.0, top_p=1.0)], device)
        one = torch.ones(1, dtype=torch.int64, device=device)
        fresh = Fresh(one[:, None], one, self._k.new_zeros(1, 1, self.fed), 0 * one)
        none = torch.zeros(1, 2, dtype=torch.float64, device=device)  # the first token is drawn, whatever the law
        try:
            chain = self.view(1, self._k.shape[3], -1)
            laws = [
                chain.draw(
                    fresh, 2 * one, none, 2, made(how, self.target.vocab_size, dtype, Kinds(False, False, False))
                )
                for made in (FusedLaw, Law)
            ]
            far = (laws[0].laws - laws[1].laws).abs().sum(-1).max()
            if bool(far < (1e-3 if self._k.dtype.itemsize > 2 else 0.25)):  # of half precision torch rounds every sum
                return True
            why = f"its laws are others than torch's, by {float(far):.2g}"
        except Exception as error:  # see `ops.works`
            why = first_line(error)
        finally:
            for store in (self._k, self._v):
                store.zero_()
        log.warning("The kernel for chains of drafts cannot be used on %s (%s): they run without it", device, why)
        return False

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
        ahead = self.ahead if self.ahead is not None and self.ahead.takes(rows) else None
        return StaticChain(self.runner, state, cache, self.draft.fuse_target, self.window, eos, ahead)


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
