"""The draft decoder's inference plan: the same mathematics as `DraftDecoder.step` in about half as many operations.

A draft takes one step a token, so this is where speculation is won. At this size a step is dispatch and reading
weights. What can be done once is done once: norm gains are folded into the weights behind them, and the token half of
the entering projection becomes a table with one row a token; on a CPU the weights are read in 8 bits, by one call into
C where the package was built with it (`kernels/draft.py`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.config import SamplingConfig
from spear_spec.kernels import native
from spear_spec.kernels.draft import NativeDraft
from spear_spec.kernels.packed import Map, PackedLayer, PackedLinear
from spear_spec.models.contract import Target
from spear_spec.models.drafts.decoder import DraftDecoder, DraftState
from spear_spec.models.memory import cached_positions
from spear_spec.models.seen import Made, Plans
from spear_spec.nn.attention import merged, rotary_table, rotated, seeing
from spear_spec.nn.transformer import DecoderLayer, decode
from spear_spec.nn.tree import Tree

TINY = 1e-6  # not zero in half precision either
# tokens in one step, over all rows, padding not counted: with many more, torch's products of whole blocks catch up
# with the kernel
FEW = 128
_P = ParamSpec("_P")
_R = TypeVar("_R")
_Self = TypeVar("_Self")


def undisturbed(
    method: Callable[Concatenate[_Self, _P], _R],
) -> Callable[Concatenate[_Self, _P], _R]:
    """Without gradients and autocast, whatever the caller has set: neither may change what a draft says."""

    @functools.wraps(method)
    def run(self: _Self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        cast = torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")
        if not cast and not torch.is_grad_enabled():  # as in every decoding loop
            return method(self, *args, **kwargs)
        with torch.no_grad(), torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return method(self, *args, **kwargs)

    return run


class Turning:
    """The rotations of a runner's positions, in the precision and on the device of its table of tokens."""

    table: Tensor
    _dim_head: int
    _rotary: Tensor

    def angles(self, positions: int) -> Tensor:
        """Rotations of at least so many positions. A table is replaced, never changed: other threads may be reading."""
        table = self._rotary
        if len(table) < positions:
            self._rotary = table = self._turns(2 * positions)
        return table

    def _turns(self, positions: int) -> Tensor:
        double = self.table.dtype == torch.float64
        dtype = torch.float64 if double else torch.float32
        return rotary_table(positions, self._dim_head, dtype=dtype, device=self.table.device)


class DraftRunner(Turning):
    """Steps and logits of one draft on one target, for inference alone. Snapshot of the weights: see `runner_for`.

    It refers to neither module, and holds nothing of an utterance: threads may share it, each with a state of its own.
    """

    @undisturbed
    def __init__(self, draft: DraftDecoder, model: Target, *, exact: bool = False) -> None:
        """exact: keep the weights in full precision (by default a CPU rounds them to 8 bits, see `PackedLinear`)."""
        dim = draft.cfg.dim
        self.dim, self._dim_head = dim, draft.cfg.dim_head

        def pack(weight: Tensor) -> PackedLinear:
            return PackedLinear(weight, exact=exact)

        vectors = model.embedding  # the start token's id is the last row
        self.table = F.normalize(vectors, dim=-1) @ fold(draft.enter.weight[:, :dim], draft.token_norm.gamma).t()
        self.fed = bool(draft.cfg.target_layers)
        # an independent draft has no second half: the kernel adds nothing then
        self.enter = pack(
            fold(draft.enter.weight[:, dim:], draft.feature_norm.gamma)
            if self.fed
            else torch.zeros_like(draft.enter.weight)
        )
        self.head = fold(model.head, draft.norm.gamma).t()
        self.layers = [folded_layer(layer, pack) for layer in draft.layers]
        self.native: NativeDraft | None = None
        if self.enter.packed and native.available():
            fuse = None
            if self.fed:
                gains = torch.cat([norm.gamma for norm in draft.fuse_norm])
                fuse = pack(fold(draft.fuse.weight, gains, dim))
            self.native = NativeDraft(self.table, self.enter, self.layers, pack(self.head.t()), fuse)
        self._rotary = self._turns(2048)

    @undisturbed
    def step(
        self,
        tokens: Tensor,
        features: Tensor | None,
        state: DraftState,
        tree: Tree | None = None,
        counts: list[int] | None = None,
    ) -> Tensor:
        """As `DraftDecoder.step`: tokens [B, n], features [B, n, D] (not looked at by an independent draft) -> hidden
        [B, n, D].

        counts [B]: tokens of each row that are there, the rest is padding (and its result means nothing).
        tree: whose last n nodes these are, the others having been written by earlier steps (see `cached_positions`).
        """
        batch, length = tokens.shape
        cache, rows = state.cache, batch * length
        positions = cache.longest + length
        cache.reserve(positions)
        if features is None or not self.fed:
            features = self.table.new_zeros(batch, length, self.dim)
        if self.native is not None and (rows if counts is None else sum(counts)) <= FEW:
            hidden = self.native.step(
                tokens, features, cache, state.cross, state.cross_mask, self.angles(positions), tree, counts
            )
            cache.advance(length)
            return hidden
        table, mask, causal = cached_positions(self.angles(positions), cache, length, tree)
        features = features.reshape(rows, self.dim)
        # the first is zero
        features = features / torch.linalg.vector_norm(features, dim=-1, keepdim=True).clamp_min_(TINY)
        x = self.enter.add(features, F.embedding(tokens.reshape(rows), self.table))
        x = x.view(batch, length, self.dim)
        for index, weights in enumerate(self.layers):
            past, text = seeing(mask, causal=causal, cache=cache, layer=index), seeing(state.cross_mask)
            x = decode(Folded(weights), x, table, state.cross[index], past=past, text=text)
        cache.advance(length)
        return x

    @undisturbed
    def fuse(self, draft: DraftDecoder, features: list[Tensor], count: int) -> Tensor:
        """The target's features [B, T, D] of each of the draft's `target_layers`, of the first `count` positions ->
        [B, count, D], as `DraftDecoder.fuse_target`.
        """
        if self.native is not None and features[0].shape[0] * count <= FEW:
            return self.native.fuse(features, count)
        return draft.fuse_target([layer[:, :count] for layer in features])

    @undisturbed
    def chain(
        self,
        hidden: Tensor,
        limits: list[int],
        uniforms: list[list[float]],
        sampling: SamplingConfig | Sequence[SamplingConfig],
        eos: int,
        state: DraftState,
        entropy: list[float] | None = None,
        least: list[float] | None = None,
    ) -> tuple[list[list[int]], Tensor | None]:
        """Draw whole chains in one call, see `NativeDraft.chain`; where `chains` says so."""
        assert self.native is not None
        cache = state.cache
        positions = cache.longest + max(limits)
        cache.reserve(positions)
        return self.native.chain(
            hidden,
            limits,
            uniforms,
            sampling,
            eos,
            cache,
            state.cross,
            state.cross_mask,
            self.angles(positions),
            entropy,
            least,
        )

    def chains(self, rows: int) -> bool:
        """Whether `chain` can draw for so many rows."""
        return self.native is not None and rows <= FEW

    @undisturbed
    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [B, D] -> logits [B, V], as `DraftDecoder.logits`."""
        if self.native is not None and len(hidden) <= FEW:
            return self.native.logits(hidden)
        return torch.mm(unit(hidden), self.head)


def fold(weight: Tensor, gain: Tensor, dim: int | None = None) -> Tensor:
    """A weight [out, in] behind a norm with this gain [in]: what is left to do of the norm is to divide by length.

    dim: of the norm, where there are several, side by side.
    """
    return weight * (gain * math.sqrt(weight.shape[1] if dim is None else dim))


def folded_layer(layer: DecoderLayer, pack: Callable[[Tensor], Map]) -> PackedLayer[Map]:
    """The layer's maps with the gains of its norms folded in."""
    own, cross, ff = layer.self_attn, layer.cross_attn, layer.ff
    return PackedLayer(
        own.heads,
        own.dim_head,
        pack(fold(own.to_qkv.weight, own.norm.gamma)),
        pack(own.to_out.weight),
        pack(fold(cross.to_q.weight, cross.norm.gamma)),
        pack(cross.to_out.weight),
        pack(fold(ff.up.weight, ff.norm.gamma)),
        ff.up.bias.detach().clone(),
        pack(ff.down.weight),
        ff.down.bias.detach().clone(),
    )


class Folded:
    """A packed layer as `nn.transformer.decode` asks for it: norm gains are in the weights, so norms are lengths."""

    def __init__(self, weights: PackedLayer) -> None:
        self.weights = weights

    def past(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return rotated(self._product(self.weights.to_qkv, x), self.weights.heads, self.weights.heads, table)

    def add_past(self, x: Tensor, seen: Tensor) -> Tensor:
        return self.weights.self_out.add(merged(seen).flatten(0, 1), x.flatten(0, 1)).view_as(x)

    def ask(self, x: Tensor) -> Tensor:
        return self._product(self.weights.to_q, x).unflatten(-1, (self.weights.heads, -1)).transpose(1, 2)

    def add_text(self, x: Tensor, seen: Tensor) -> Tensor:
        return self.weights.cross_out.add(merged(seen).flatten(0, 1), x.flatten(0, 1)).view_as(x)

    def add_feed_forward(self, x: Tensor) -> Tensor:
        rows, w = x.flatten(0, 1), self.weights
        value, gate = w.up.add(unit(rows), w.up_bias).chunk(2, -1)
        return w.down.add(F.gelu(gate).mul_(value), rows).add_(w.down_bias).view_as(x)

    def _product(self, weight: PackedLinear, x: Tensor) -> Tensor:
        return weight(unit(x.flatten(0, 1))).to(x.dtype).view(*x.shape[:2], -1)


def unit(x: Tensor) -> Tensor:
    """x [..., D] of length 1."""
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


_RUNNERS = Plans()


def runner_for(draft: DraftDecoder, model: Target) -> DraftRunner:
    """The runner of this draft on this target, see `kept`."""
    return kept(draft, model, lambda: DraftRunner(draft, model))


def kept(draft: nn.Module, model: Target, make: Callable[[], Made]) -> Made:
    """What was made of this draft on this target, see `Plans`."""
    made = _RUNNERS.of(draft, (*draft.parameters(), *model.shared()), make)
    assert made is not None
    return made
