"""Draft decoders over the target's encoder memory: independent ones, and ones that see the target's features (after
EAGLE-3, arXiv 2503.01840).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.config import DraftConfig
from spear_spec.errors import ConfigError
from spear_spec.models.contract import Geometry, Target
from spear_spec.models.memory import Memory, cached_positions
from spear_spec.nn.attention import RMSNorm, kept_rotations
from spear_spec.nn.cache import KVCache
from spear_spec.nn.transformer import DecoderLayer, Layers


@dataclass
class DraftState:
    """What a batch needs: the draft's own cache, and the text with the draft's cross-attention keys/values."""

    cache: KVCache
    memory: Memory

    @property
    def cross(self) -> list[tuple[Tensor, Tensor]]:
        """k, v [B, H, 1 + S, dim_head] of each layer, null slot first."""
        return self.memory.cross

    @property
    def cross_mask(self) -> Tensor | None:
        """[B, 1, 1, 1 + S], or None."""
        return self.memory.cross_mask

    def select(self, rows: list[int]) -> None:
        """Keep only these rows."""
        self.cache.select(rows)
        self.memory = self.memory.select(rows)

    def join(self, other: DraftState) -> None:
        """Take in the rows of another, behind those that are here."""
        self.cache.join(other.cache)
        self.memory = self.memory.trimmed().join(other.memory)


class TextDraft(nn.Module):
    """What drafts of decoder layers on the target's text have in common: rotations, states, fused features."""

    enter: nn.Linear
    layers: Layers[DecoderLayer]
    fuse_norm: Layers[RMSNorm]
    fuse: nn.Linear

    def __init__(self) -> None:
        super().__init__()
        self._table = torch.empty(0)

    def rotary(self, positions: int) -> Tensor:
        """Rotations of the first `positions` positions, kept between calls."""
        self._table = kept_rotations(self._table, positions, self.layers[0].self_attn.dim_head, self.enter.weight)
        return self._table

    def start(self, memory: Memory, capacity: int = 512) -> DraftState:
        """Cross-attention keys/values of the draft, computed once, and an empty cache."""
        cross = [layer.cross_attn.keys_values(memory.hidden) for layer in self.layers]
        return DraftState(self._cache(memory.batch, capacity), Memory.of(memory.hidden, memory.mask, cross))

    def empty(self) -> DraftState:
        """The state of no rows, which others can join."""
        weight, own = self.enter.weight, self.layers[0].self_attn
        hidden = weight.new_zeros(0, 0, self.enter.out_features)
        mask = torch.zeros(0, 0, dtype=torch.bool, device=weight.device)
        cross = [(weight.new_zeros(0, own.heads, 1, own.dim_head),) * 2 for _ in self.layers]
        return DraftState(self._cache(0, 1), Memory.of(hidden, mask, cross))

    def _cache(self, rows: int, capacity: int) -> KVCache:
        weight, own, depth = self.enter.weight, self.layers[0].self_attn, len(self.layers)
        return KVCache(depth, rows, own.heads, capacity, own.dim_head, dtype=weight.dtype, device=weight.device)

    def fuse_target(self, features: list[Tensor]) -> Tensor:
        """The target's features [B, n, D] of each of `target_layers` -> [B, n, D]."""
        return self.fuse(torch.cat([norm(f) for norm, f in zip(self.fuse_norm, features)], dim=-1))


class DraftDecoder(TextDraft):
    """One or two decoder layers that share the target's token embedding and head.

    Position i reads token i and, where the draft is fed (`target_layers`), the feature of the position that predicted
    token i: the target's fused features where the target has been, the draft's own last hidden state where it runs
    ahead. Its output is the law of token i + 1: the target's `head` of `draft.norm(hidden)`.
    """

    def __init__(self, cfg: DraftConfig, target: Geometry) -> None:
        super().__init__()
        if cfg.dim != target.dim:
            raise ConfigError(f"the draft shares the target's embedding: its dim must be {target.dim}, not {cfg.dim}")
        if any(layer > target.depth for layer in cfg.target_layers):
            raise ConfigError(f"target_layers must name layers 1 to {target.depth} of the target")
        self.cfg = cfg
        inner = int(cfg.dim * cfg.ff_mult * 2 / 3)
        self.token_norm = RMSNorm(cfg.dim)
        self.enter = nn.Linear((2 if cfg.target_layers else 1) * cfg.dim, cfg.dim, bias=False)
        if cfg.target_layers:
            self.fuse_norm = Layers(RMSNorm(cfg.dim) for _ in cfg.target_layers)
            self.fuse = nn.Linear(len(cfg.target_layers) * cfg.dim, cfg.dim, bias=False)
            self.feature_norm = RMSNorm(cfg.dim)
        self.layers = Layers(DecoderLayer(cfg.dim, cfg.heads, cfg.dim_head, inner) for _ in range(cfg.depth))
        self.norm = RMSNorm(cfg.dim)

    def enter_vectors(self, embedded: Tensor, features: Tensor | None) -> Tensor:
        """Token vectors and (for a draft that is fed) features [B, n, D] -> the layer's input [B, n, D]."""
        if not self.cfg.target_layers:
            return self.enter(self.token_norm(embedded))
        assert features is not None, "this draft is fed with the target's features"
        return self.enter(torch.cat((self.token_norm(embedded), self.feature_norm(features)), dim=-1))

    def step(self, model: Target, tokens: Tensor, features: Tensor | None, state: DraftState) -> Tensor:
        """tokens [B, n] and features [B, n, D] behind each row's cache -> hidden [B, n, D] (before `norm`)."""
        length = tokens.shape[1]
        cache = state.cache
        cache.reserve(cache.longest + length)
        table, mask, causal = cached_positions(self.rotary(cache.longest + length), cache, length, None)
        x = self.enter_vectors(model.embed(tokens), features)
        for index, layer in enumerate(self.layers):
            x = layer(x, table, mask, state.cross[index], state.cross_mask, causal=causal, cache=cache, layer=index)
        cache.advance(length)
        return x

    def logits(self, model: Target, hidden: Tensor) -> Tensor:
        """hidden [B, n, D] -> logits [B, n, V] by the target's head, without its bias where it has one."""
        return F.linear(self.norm(hidden), model.head)
