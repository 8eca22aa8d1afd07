"""Draft decoders over the target's encoder memory: independent ones, and ones that see the target's features (after
EAGLE-3, arXiv 2503.01840).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.config import DraftConfig, T2SConfig
from spear_spec.errors import ConfigError
from spear_spec.models.spear_tts import Memory, TextToSemantic, cached_positions
from spear_spec.nn.attention import RMSNorm, rotary_table
from spear_spec.nn.cache import KVCache
from spear_spec.nn.transformer import DecoderLayer


@dataclass
class DraftState:
    """What one utterance (or batch) needs: the draft's own cache and its cross-attention keys/values."""

    cache: KVCache
    cross: list[tuple[Tensor, Tensor]]
    cross_mask: Tensor | None

    def select(self, rows: list[int]) -> None:
        """Keep only these rows."""
        index = torch.tensor(rows, device=self.cache.k.device, dtype=torch.long)
        self.cache.select(rows)
        self.cross = [(k[index], v[index]) for k, v in self.cross]
        self.cross_mask = None if self.cross_mask is None else self.cross_mask[index]


class DraftDecoder(nn.Module):
    """One or two decoder layers that share the target's token embedding and head.

    Position i reads token i and, where the draft is fed (`target_layers`), the feature of the position that predicted
    token i: the target's fused features where the target has been, the draft's own last hidden state where it runs
    ahead. Its output is the law of token i + 1: `model.logits(draft.norm(hidden))`.
    """

    def __init__(self, cfg: DraftConfig, target: T2SConfig) -> None:
        super().__init__()
        if cfg.dim != target.dim:
            raise ConfigError(f"the draft shares the target's embedding: its dim must be {target.dim}, not {cfg.dim}")
        if any(layer > target.target_depth for layer in cfg.target_layers):
            raise ConfigError(f"target_layers must name layers 1 to {target.target_depth} of the target")
        self.cfg = cfg
        inner = int(cfg.dim * cfg.ff_mult * 2 / 3)
        self.token_norm = RMSNorm(cfg.dim)
        self.enter = nn.Linear((2 if cfg.target_layers else 1) * cfg.dim, cfg.dim, bias=False)
        if cfg.target_layers:
            self.fuse_norm = nn.ModuleList(RMSNorm(cfg.dim) for _ in cfg.target_layers)
            self.fuse = nn.Linear(len(cfg.target_layers) * cfg.dim, cfg.dim, bias=False)
            self.feature_norm = RMSNorm(cfg.dim)
        self.layers = nn.ModuleList(DecoderLayer(cfg.dim, cfg.heads, cfg.dim_head, inner) for _ in range(cfg.depth))
        self.norm = RMSNorm(cfg.dim)
        self._table = torch.empty(0)

    def rotary(self, positions: int) -> Tensor:
        """Rotations of the first `positions` positions, kept between calls."""
        weight = self.enter.weight
        double, device = weight.dtype == torch.float64, weight.device
        if (
            self._table.shape[0] < positions
            or self._table.device != device
            or (self._table.dtype == torch.complex128) != double
        ):
            with torch.inference_mode(False):
                self._table = rotary_table(
                    max(2 * positions, 2048),
                    self.cfg.dim_head,
                    dtype=torch.float64 if double else torch.float32,
                    device=device,
                )
        return self._table

    def start(self, memory: Memory, capacity: int = 512) -> DraftState:
        """Cross-attention keys/values of the draft, computed once, and an empty cache."""
        weight = self.enter.weight
        cache = KVCache(
            self.cfg.depth,
            memory.batch,
            self.cfg.heads,
            capacity,
            self.cfg.dim_head,
            dtype=weight.dtype,
            device=weight.device,
        )
        return DraftState(
            cache, [layer.cross_attn.keys_values(memory.hidden) for layer in self.layers], memory.cross_mask
        )  # type: ignore[union-attr, operator]

    def fuse_target(self, features: list[Tensor]) -> Tensor:
        """The target's features [B, n, D] of each of `target_layers` -> [B, n, D]."""
        return self.fuse(torch.cat([norm(f) for norm, f in zip(self.fuse_norm, features)], dim=-1))

    def enter_vectors(self, embedded: Tensor, features: Tensor | None) -> Tensor:
        """Token vectors and (for a draft that is fed) features [B, n, D] -> the layer's input [B, n, D]."""
        if not self.cfg.target_layers:
            return self.enter(self.token_norm(embedded))
        assert features is not None, "this draft is fed with the target's features"
        return self.enter(torch.cat((self.token_norm(embedded), self.feature_norm(features)), dim=-1))

    def step(self, model: TextToSemantic, tokens: Tensor, features: Tensor | None, state: DraftState) -> Tensor:
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

    def logits(self, model: TextToSemantic, hidden: Tensor) -> Tensor:
        """hidden [B, n, D] -> logits [B, n, V] by the target's tied embedding."""
        return F.linear(self.norm(hidden), model.semantic_emb.weight)
