"""The Spear-TTS text-to-semantic transformer (arXiv 2302.03540; mathematics of spear-tts-pytorch's
`TextToSemantic`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.config import T2SConfig
from spear_spec.errors import TextError
from spear_spec.models.memory import Memory
from spear_spec.models.native import encoder_for, step_for
from spear_spec.models.stack import DecoderStack
from spear_spec.nn.attention import FeedForward, RMSNorm, kept_rotations
from spear_spec.nn.cache import KVCache
from spear_spec.nn.transformer import DecoderLayer, EncoderLayer, Layers

_FEW = 2048  # symbols in one call of the kernel: beyond, torch's products of whole blocks catch up


class EarlyExit(nn.Module):
    """Logits from an earlier layer: residual feed-forward, norm, linear."""

    def __init__(self, cfg: T2SConfig) -> None:
        super().__init__()
        self.ff = FeedForward(cfg.dim, cfg.dim * 4 * 2 // 3)
        self.norm = RMSNorm(cfg.dim)
        self.to_logits = nn.Linear(cfg.dim, cfg.num_semantic_token_ids + 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_logits(self.norm(x + self.ff(x)))


class TextToSemantic(DecoderStack[DecoderLayer]):
    """Text token ids in, a law over semantic tokens out.

    The decoder reads `[start_id, token_1, token_2, ...]`; logits at position i are the law of token i + 1, over
    `vocab_size` = semantic tokens and the end token `eos_id`. `start_id` stands for the learned start vector and is
    never sampled. Text ids end with `text_eos_id`; id 0 is the peer's text padding.
    """

    def __init__(self, cfg: T2SConfig, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.cfg = cfg
        self.eos_id = cfg.num_semantic_token_ids
        self.vocab_size = cfg.num_semantic_token_ids + 1
        self.start_id = cfg.num_semantic_token_ids + 1
        self.text_eos_id = cfg.num_text_token_ids
        self.text_emb = nn.Embedding(cfg.num_text_token_ids + 1, cfg.dim)
        self.semantic_emb = nn.Embedding(self.vocab_size, cfg.dim)
        self.start = nn.Parameter(torch.randn(cfg.dim))
        self.text_start = nn.Parameter(
            torch.randn(cfg.dim)
        )  # the peer's speech-to-text direction; kept so that its state dict round-trips
        self.encoder = Layers(
            EncoderLayer(cfg.dim, cfg.heads, cfg.dim_head, cfg.ff_inner, dropout) for _ in range(cfg.source_depth)
        )
        self.encoder_norm = RMSNorm(cfg.dim)
        self.decoder = Layers(
            DecoderLayer(cfg.dim, cfg.heads, cfg.dim_head, cfg.ff_inner, cfg.kv_heads, dropout)
            for _ in range(cfg.target_depth)
        )
        self.decoder_norm = RMSNorm(cfg.dim)
        self.early_exit = EarlyExit(cfg) if cfg.early_exit_layer is not None else None
        self.dim, self.depth, self.heads, self.dim_head = cfg.dim, cfg.target_depth, cfg.heads, cfg.dim_head
        self.text_ids = cfg.num_text_token_ids
        self._table = torch.empty(0)

    @property
    def device(self) -> torch.device:
        return self.start.device

    @property
    def dtype(self) -> torch.dtype:
        return self.start.dtype

    @property
    def embedding(self) -> Tensor:
        """Vectors of the tokens, the end token among them, and last of the start: [V + 1, D]."""
        return torch.cat((self.semantic_emb.weight, self.start[None]))

    @property
    def head(self) -> Tensor:
        """The tied embedding [V, D], which drafts share."""
        return self.semantic_emb.weight

    def shared(self) -> tuple[Tensor, ...]:
        """The weights that `embedding` and `head` are made of."""
        return (self.semantic_emb.weight, self.start)

    def text(self, ids: Sequence[int]) -> list[int]:
        """Text ids of a request with the end token behind.

        Raises:
            TextError: an id that the model does not know, or no text.
        """
        if not ids or not all(0 < i < self.text_eos_id for i in ids):
            raise TextError(f"text ids must be whole numbers from 1 to {self.text_eos_id - 1}, at least one")
        return [*ids, self.text_eos_id]

    def rotary(self, positions: int) -> Tensor:
        """Rotations of the first `positions` positions, kept between calls."""
        self._table = kept_rotations(self._table, positions, self.cfg.dim_head, self.start)
        return self._table

    def new_cache(self, batch: int, capacity: int = 512) -> KVCache:
        """An empty cache for `batch` rows."""
        cache = KVCache(
            self.cfg.target_depth,
            batch,
            self.cfg.kv_heads or self.cfg.heads,
            capacity,
            self.cfg.dim_head,
            dtype=self.dtype,
            device=self.device,
        )
        cache.native = step_for(self)
        return cache

    def embed(self, tokens: Tensor) -> Tensor:
        """Semantic ids [B, T], `start_id` included, to vectors [B, T, D]."""
        is_start = tokens == self.start_id
        vectors = F.embedding(tokens.masked_fill(is_start, 0), self.semantic_emb.weight)
        return torch.where(is_start[..., None], self.start, vectors)

    def encode(self, text_ids: Tensor, mask: Tensor | None = None) -> Memory:
        """text_ids [B, S] (end token included, ragged rows padded with 0) -> Memory.

        mask [B, S] defaults to ids != 0.
        """
        mask = text_ids != 0 if mask is None else mask
        native = encoder_for(self) if text_ids.numel() <= _FEW else None
        if native is not None:
            length, counts = text_ids.shape[1], mask.sum(1)
            if torch.equal(mask, torch.arange(length, device=mask.device) < counts[:, None]):  # as padding leaves it
                hidden, cross = native.run(text_ids, counts.tolist(), self.rotary(length))
                return Memory.of(hidden, mask, cross)
        hidden = self.encode_hidden(text_ids, None if bool(mask.all()) else mask)
        return Memory.of(hidden, mask, [layer.cross_attn.keys_values(hidden) for layer in self.decoder])

    def encode_hidden(self, text_ids: Tensor, mask: Tensor | None) -> Tensor:
        """The encoder alone: [B, S] -> [B, S, D]; mask None: all of it is text (asking that here would be a wait)."""
        x = self.text_emb(text_ids)
        table = self.rotary(x.shape[1])[: x.shape[1]]
        attn_mask = None if mask is None else mask[:, None, None]
        for layer in self.encoder:
            x = layer(x, table, attn_mask)
        return self.encoder_norm(x)

    def positions(self, count: int) -> Tensor:
        """Rotations, see `rotary`."""
        return self.rotary(count)

    def enter(self, tokens: Tensor, here: Tensor, memory: Memory) -> Tensor:
        """Token vectors as they are: the layers turn queries and keys."""
        return self.embed(tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [B, T, D] after the last norm -> logits [B, T, V], by the tied embedding."""
        return F.linear(hidden, self.semantic_emb.weight)
