"""A draft decoder's chain on tensors alone: fixed memory, gamma steps whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, cast

import torch
from torch import Tensor

from spear_spec.decoding.rounds.fused.chain import Ahead
from spear_spec.decoding.rounds.fused.ops import FusedLaw
from spear_spec.decoding.rounds.laws import Law
from spear_spec.decoding.verifiers.tensors import at
from spear_spec.models.drafts.block_runner import BlockRunner
from spear_spec.models.drafts.decoder import DraftState
from spear_spec.models.drafts.runner import DraftRunner
from spear_spec.nn.attention import seeing
from spear_spec.nn.static import StaticCache


class Drawn(NamedTuple):
    """tokens int64 [R, G], 0 behind a row's own; counts int64 [R]; laws [R, G, V] that they were drawn from; fine bool
    [R]: False where one of those that count was made of NaN or infinity.
    """

    tokens: Tensor
    counts: Tensor
    laws: Tensor
    fine: Tensor


class Fresh(NamedTuple):
    """What the target has settled and the draft has not read: tokens int64 [R, W], the first counts int64 [R] of each
    row; features [R, W, D] that the draft is fed with at them; base int64 [R]: tokens that it has read before.
    """

    tokens: Tensor
    counts: Tensor
    features: Tensor
    base: Tensor


class StaticDraft(Protocol):
    """A view of the first rows' draft: one chain on it."""

    @property
    def cache(self) -> StaticCache: ...

    @property
    def fuse(self) -> Callable[[list[Tensor]], Tensor]:
        """The target's features, layer by layer, to what the draft is fed with."""
        ...

    def draw(self, fresh: Fresh, limits: Tensor, uniforms: Tensor, gamma: int, law_of: Law) -> Drawn:
        """A chain behind each row's fresh tokens, as the drafter's `propose` draws it.

        Args:
            limits int64 [R]: most tokens of the row. uniforms float64 [R, at least gamma]: its next ones; token i uses
            number i.
        """
        ...


@dataclass(frozen=True)
class StaticChain:
    """A decoder that runs ahead on its own tokens, as `DecoderChain` does: gamma steps. ahead: all of them as one
    kernel, where laws are kernels too; None: by torch's operations.
    """

    runner: DraftRunner
    state: DraftState
    cache: StaticCache
    fuse: Callable[[list[Tensor]], Tensor]
    window: bool
    eos: int
    ahead: Ahead | None = None

    def draw(self, fresh: Fresh, limits: Tensor, uniforms: Tensor, gamma: int, law_of: Law) -> Drawn:
        """See `StaticDraft`."""
        tokens, count, features, base = fresh
        if self.window:  # it starts anew at the newest token
            tokens, features = at(tokens, count - 1)[:, None], at(features, count - 1)[:, None]
            base, count = torch.zeros_like(base), torch.ones_like(count)
        hidden = at(self._step(tokens, features, base), count - 1)
        base = base + count
        if self.ahead is not None and isinstance(law_of, FusedLaw):
            drawn = self.ahead.draw(hidden, base, limits, uniforms, gamma, law_of, self.eos, self.cache, self.state)
            return Drawn(*drawn)

        def logits(place: int, before: Tensor | None) -> Tensor:
            nonlocal hidden, base
            if before is not None:
                hidden = self._step(before[:, None], hidden[:, None], base)[:, 0]
                base = base + 1
            return self.runner.logits(hidden)

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

    def draw(self, fresh: Fresh, limits: Tensor, uniforms: Tensor, gamma: int, law_of: Law) -> Drawn:
        """See `StaticDraft`."""
        tokens, count, features, base = fresh
        runner, cache = self.runner, self.cache
        cache.lengths = base
        turns = cache.table[cache.coming(tokens.shape[1])]
        contexts = runner.read(tokens, features, turns, cache.append)
        cache.lengths = settled = base + count
        turns = cache.table[cache.coming(gamma)]
        # a row that may draft nothing has a position all the same: nobody sees it
        mask = cache.within(settled - runner.window, settled + limits.clamp(min=1))
        newest = at(contexts, count - 1)[:, None]
        said = runner.behind(newest, turns, self.state, lambda layer: seeing(mask, cache=cast(Any, cache), layer=layer))

        def logits(place: int, before: Tensor | None) -> Tensor:
            return runner.follow(said, place, at(tokens, count - 1) if before is None else before)

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
