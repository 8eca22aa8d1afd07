"""The draft decoder's inference plan: the same mathematics as `DraftDecoder.step` in about half as many operations.

At this size a step is mostly dispatch, and a draft takes one step a token, so this is where speculation is won. What
can be done once is done once: norm gains are folded into the weights behind them, and the token half of the entering
projection becomes a table with one row a token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.models.draft import DraftDecoder, DraftState
from spear_spec.models.text_to_semantic import TextToSemantic, cached_positions
from spear_spec.nn.attention import attend, rotate

_TINY = 1e-12


@dataclass
class _Layer:
    """Weights [in, out] of one decoder layer, norm gains folded in."""

    heads: int
    dim_head: int
    to_qkv: Tensor
    self_out: Tensor
    to_q: Tensor
    cross_out: Tensor
    up: Tensor
    up_bias: Tensor
    down: Tensor
    down_bias: Tensor


class DraftRunner:
    """Steps and logits of one draft on one target, for inference alone. Snapshot of the weights: see `runner_for`."""

    def __init__(self, draft: DraftDecoder, model: TextToSemantic) -> None:
        dim = draft.cfg.dim
        self.draft, self.dim = draft, dim
        root = math.sqrt(dim)

        def fold(weight: Tensor, gain: Tensor) -> Tensor:
            return (weight * (gain * root)).t()

        vectors = torch.cat((model.semantic_emb.weight, model.start[None]))  # the start token's id is the last row
        self.table = (F.normalize(vectors, dim=-1) @ fold(draft.enter.weight[:, :dim], draft.token_norm.gamma)).contiguous()
        self.enter = fold(draft.enter.weight[:, dim:], draft.feature_norm.gamma)
        self.head = fold(model.semantic_emb.weight, draft.norm.gamma)
        self.layers = []
        for layer in draft.layers:
            own, cross, ff = layer.self_attn, layer.cross_attn, layer.ff
            self.layers.append(_Layer(  # type: ignore[arg-type]
                own.heads, own.dim_head, fold(own.to_qkv.weight, own.norm.gamma), own.to_out.weight.t(),  # type: ignore[union-attr, operator, arg-type]
                fold(cross.to_q.weight, cross.norm.gamma), cross.to_out.weight.t(),  # type: ignore[union-attr, operator, arg-type]
                fold(ff.up.weight, ff.norm.gamma), ff.up.bias, ff.down.weight.t(), ff.down.bias))  # type: ignore[union-attr, operator, arg-type]

    def step(self, tokens: Tensor, features: Tensor, state: DraftState) -> Tensor:
        """As `DraftDecoder.step`: tokens [B, n], features [B, n, D] -> hidden [B, n, D]."""
        batch, length = tokens.shape
        cache, rows = state.cache, batch * length
        cache.reserve(cache.longest + length)
        table, mask, causal = cached_positions(self.draft.rotary(cache.longest + length), cache, length, None)
        features = features.reshape(rows, self.dim)
        features = features / torch.linalg.vector_norm(features, dim=-1, keepdim=True).clamp_min_(_TINY)  # the first is zero
        x = torch.addmm(F.embedding(tokens.reshape(rows), self.table), features, self.enter)
        for index, w in enumerate(self.layers):
            heads, dim_head = w.heads, w.dim_head
            qkv = torch.mm(_unit(x), w.to_qkv).view(batch, length, 3 * heads, dim_head)
            turned = rotate(qkv[:, :, : 2 * heads], table).transpose(1, 2)
            k, v = cache.append(index, turned[:, heads:], qkv[:, :, 2 * heads:].transpose(1, 2))
            seen = attend(turned[:, :heads], k, v, mask, causal=causal)
            x = torch.addmm(x, seen.transpose(1, 2).reshape(rows, heads * dim_head), w.self_out)
            q = torch.mm(_unit(x), w.to_q).view(batch, length, heads, dim_head).transpose(1, 2)
            seen = attend(q, *state.cross[index], state.cross_mask)
            x = torch.addmm(x, seen.transpose(1, 2).reshape(rows, heads * dim_head), w.cross_out)
            value, gate = torch.addmm(w.up_bias, _unit(x), w.up).chunk(2, -1)
            x = torch.addmm(x, F.gelu(gate).mul_(value), w.down).add_(w.down_bias)
        cache.advance(length)
        return x.view(batch, length, self.dim)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [B, D] -> logits [B, V], as `DraftDecoder.logits`."""
        return torch.mm(_unit(hidden), self.head)


def _unit(x: Tensor) -> Tensor:
    return x / torch.linalg.vector_norm(x, dim=-1, keepdim=True)


_RUNNERS: WeakKeyDictionary[DraftDecoder, tuple[tuple[object, ...], DraftRunner]] = WeakKeyDictionary()


def runner_for(draft: DraftDecoder, model: TextToSemantic) -> DraftRunner:
    """The runner of this draft on this target; made again when a weight has changed, moved or been replaced."""
    weights = (*draft.parameters(), model.semantic_emb.weight, model.start)
    key = tuple((w.data_ptr(), w._version, w.dtype) for w in weights)
    known = _RUNNERS.get(draft)
    if known is None or known[0] != key:
        with torch.inference_mode():
            known = (key, DraftRunner(draft, model))
        _RUNNERS[draft] = known
    return known[1]
