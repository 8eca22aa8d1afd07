"""The draft decoder's inference plan: the same mathematics as `DraftDecoder.step` in about half as many operations.

A draft takes one step a token, so this is where speculation is won. At this size a step is dispatch and reading
weights.
What can be done once is done once: norm gains are folded into the weights behind them, and the token half of the
entering projection becomes a table with one row a token; on a CPU the weights are read in 8 bits, by one call into C
where the package was built with it (`nn/native.py`).
"""

from __future__ import annotations

import math
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.kernels import native
from spear_spec.kernels.packed import PackedLayer, PackedLinear
from spear_spec.models.contract import Target
from spear_spec.models.drafts.decoder import DraftDecoder, DraftState
from spear_spec.models.memory import cached_positions
from spear_spec.nn.attention import attend, rotate
from spear_spec.nn.transformer import DecoderLayer
from spear_spec.nn.tree import Tree

_TINY = 1e-6  # not zero in half precision either
# tokens in one step, over all rows, padding not counted: with many more, torch's products of whole blocks catch up
# with the kernel
_FEW = 64


class DraftRunner:
    """Steps and logits of one draft on one target, for inference alone. Snapshot of the weights: see `runner_for`."""

    def __init__(self, draft: DraftDecoder, model: Target, *, exact: bool = False) -> None:
        """exact: keep the weights in full precision (by default a CPU rounds them to 8 bits, see `PackedLinear`)."""
        dim = draft.cfg.dim
        self.draft, self.dim = draft, dim
        root = math.sqrt(dim)

        def fold(weight: Tensor, gain: Tensor) -> Tensor:
            return weight * (gain * root)

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
        self.head = fold(vectors[: model.vocab_size], draft.norm.gamma).t()
        self.layers = []
        for layer in draft.layers:
            assert isinstance(layer, DecoderLayer)
            own, cross, ff = layer.self_attn, layer.cross_attn, layer.ff
            self.layers.append(
                PackedLayer(
                    own.heads,
                    own.dim_head,
                    pack(fold(own.to_qkv.weight, own.norm.gamma)),
                    pack(own.to_out.weight),
                    pack(fold(cross.to_q.weight, cross.norm.gamma)),
                    pack(cross.to_out.weight),
                    pack(fold(ff.up.weight, ff.norm.gamma)),
                    ff.up.bias,
                    pack(ff.down.weight),
                    ff.down.bias,
                )
            )
        self.native = None
        if self.enter.packed and native.available():
            self.native = native.NativeDraft(self.table, self.enter, self.layers, pack(self.head.t()))
        self._rotary = torch.empty(0)

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
        if self.native is not None and (rows if counts is None else sum(counts)) <= _FEW and not features.requires_grad:
            hidden = self.native.step(
                tokens, features, cache, state.cross, state.cross_mask, self._angles(positions), tree, counts
            )
            cache.advance(length)
            return hidden
        table, mask, causal = cached_positions(self.draft.rotary(positions), cache, length, tree)
        features = features.reshape(rows, self.dim)
        features = features / torch.linalg.vector_norm(features, dim=-1, keepdim=True).clamp_min_(
            _TINY
        )  # the first is zero
        x = self.enter.add(features, F.embedding(tokens.reshape(rows), self.table))
        for index, w in enumerate(self.layers):
            heads, dim_head = w.heads, w.dim_head
            qkv = w.to_qkv(_unit(x)).to(x.dtype).view(batch, length, 3 * heads, dim_head)
            turned = rotate(qkv[:, :, : 2 * heads], table).transpose(1, 2)
            k, v = cache.append(index, turned[:, heads:], qkv[:, :, 2 * heads :].transpose(1, 2))
            seen = attend(turned[:, :heads], k, v, mask, causal=causal)
            x = w.self_out.add(seen.transpose(1, 2).reshape(rows, heads * dim_head), x)
            q = w.to_q(_unit(x)).to(x.dtype).view(batch, length, heads, dim_head).transpose(1, 2)
            seen = attend(q, *state.cross[index], state.cross_mask)
            x = w.cross_out.add(seen.transpose(1, 2).reshape(rows, heads * dim_head), x)
            value, gate = w.up.add(_unit(x), w.up_bias).chunk(2, -1)
            x = w.down.add(F.gelu(gate).mul_(value), x).add_(w.down_bias)
        cache.advance(length)
        return x.view(batch, length, self.dim)

    def chain(
        self,
        hidden: Tensor,
        limits: list[int],
        uniforms: list[list[float]],
        sampling: SamplingConfig,
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
            self._angles(positions),
            entropy,
            least,
        )

    def _angles(self, positions: int) -> Tensor:
        """Rotations of at least so many positions, for the kernel."""
        if len(self._rotary) < positions:
            self._rotary = self.draft.rotary(positions)
        return self._rotary

    def chains(self, rows: int) -> bool:
        """Whether `chain` can draw for so many rows."""
        return self.native is not None and rows <= _FEW

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [B, D] -> logits [B, V], as `DraftDecoder.logits`."""
        if self.native is not None and len(hidden) <= _FEW and not hidden.requires_grad:
            return self.native.logits(hidden)
        return torch.mm(_unit(hidden), self.head)


def _unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


_RUNNERS: WeakKeyDictionary[DraftDecoder, tuple[tuple[object, ...], DraftRunner]] = WeakKeyDictionary()


def runner_for(draft: DraftDecoder, model: Target) -> DraftRunner:
    """The runner of this draft on this target; made again when a weight has changed, moved or been replaced."""
    weights = (*draft.parameters(), *model.shared())
    key = tuple((w.data_ptr(), w._version, w.dtype) for w in weights)
    known = _RUNNERS.get(draft)
    if known is None or known[0] != key:
        with torch.inference_mode():
            known = (key, DraftRunner(draft, model))
        _RUNNERS[draft] = known
    return known[1]
