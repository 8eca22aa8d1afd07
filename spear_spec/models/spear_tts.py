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
from spear_spec.models.memory import DecoderOutput, Memory, Skip, cached_positions
from spear_spec.nn.attention import FeedForward, RMSNorm, rotary_table
from spear_spec.nn.cache import KVCache
from spear_spec.nn.transformer import DecoderLayer, EncoderLayer
from spear_spec.nn.tree import Tree


class EarlyExit(nn.Module):
    """Logits from an earlier layer: residual feed-forward, norm, linear."""

    def __init__(self, cfg: T2SConfig) -> None:
        super().__init__()
        self.ff = FeedForward(cfg.dim, cfg.dim * 4 * 2 // 3)
        self.norm = RMSNorm(cfg.dim)
        self.to_logits = nn.Linear(cfg.dim, cfg.num_semantic_token_ids + 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.to_logits(self.norm(x + self.ff(x)))


class TextToSemantic(nn.Module):
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
        self.encoder = nn.ModuleList(
            EncoderLayer(cfg.dim, cfg.heads, cfg.dim_head, cfg.ff_inner, dropout) for _ in range(cfg.source_depth)
        )
        self.encoder_norm = RMSNorm(cfg.dim)
        self.decoder = nn.ModuleList(
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

    def shared(self) -> tuple[Tensor, ...]:
        """The weights that `embedding` is made of."""
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
        start = self.start
        double, device = start.dtype == torch.float64, start.device
        if (
            self._table.shape[0] < positions
            or self._table.device != device
            or (self._table.dtype == torch.complex128) != double
        ):
            with torch.inference_mode(False):  # a table made while decoding must serve training too
                self._table = rotary_table(
                    max(2 * positions, 2048),
                    self.cfg.dim_head,
                    dtype=torch.float64 if double else torch.float32,
                    device=device,
                )
        return self._table

    def new_cache(self, batch: int, capacity: int = 512) -> KVCache:
        """An empty cache for `batch` rows."""
        return KVCache(
            self.cfg.target_depth,
            batch,
            self.cfg.kv_heads or self.cfg.heads,
            capacity,
            self.cfg.dim_head,
            dtype=self.dtype,
            device=self.device,
        )

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
        hidden = self.encode_hidden(text_ids, mask)
        return Memory.of(hidden, mask, [layer.cross_attn.keys_values(hidden) for layer in self.decoder])  # type: ignore[union-attr, operator]

    def encode_hidden(self, text_ids: Tensor, mask: Tensor) -> Tensor:
        """The encoder alone: [B, S] -> [B, S, D]."""
        x = self.text_emb(text_ids)
        table = self.rotary(x.shape[1])[: x.shape[1]]
        attn_mask = None if bool(mask.all()) else mask[:, None, None]
        for layer in self.encoder:
            x = layer(x, table, attn_mask)
        return self.encoder_norm(x)

    def forward(
        self,
        tokens: Tensor,
        memory: Memory,
        cache: KVCache | None = None,
        *,
        tree: Tree | None = None,
        features: Sequence[int] = (),
        skip: Skip | None = None,
        below: tuple[int, Tensor] | None = None,
    ) -> DecoderOutput:
        """Score tokens [B, T].

        Without a cache the T tokens are the whole sequence. With one they are written behind each row's length and see
        that row's committed prefix and, among themselves, earlier tokens or (with `tree`) their ancestors.

        features: layers (1 is the first) whose output is kept. skip: sublayers that are left out (self-speculation,
        arXiv 2309.08168).

        below (n, x [B, T0, D]): what the first n layers said of the first T0 tokens, whose rows of these layers are
        in the cache already (early exit: the draft ran them); there they run for the other tokens alone.
        """
        length = tokens.shape[1]
        if cache is not None:
            cache.reserve(cache.longest + length)
        kept = []
        x, reused = self.embed(tokens), 0
        if below is not None:
            assert cache is not None and tree is None, "rows are reused from a cache, for chains"
            reused, known = below
            x = self._finish(x, known, reused, memory, cache)
        table, mask, causal = self._positions(tokens, cache, tree)
        for index, layer in enumerate(self.decoder):
            if index >= reused:
                x = layer(
                    x,
                    table,
                    mask,
                    memory.cross[index],
                    memory.cross_mask,
                    causal=causal,
                    cache=cache,
                    layer=index,
                    attention=skip is None or index not in skip.attention,
                    feed_forward=skip is None or index not in skip.feed_forward,
                )
            if index + 1 in features:
                kept.append(x)
        if cache is not None:
            cache.advance(length)
        hidden = self.decoder_norm(x)
        return DecoderOutput(self.logits(hidden), hidden, kept)

    def first_layers(self, tokens: Tensor, memory: Memory, cache: KVCache, count: int) -> Tensor:
        """The first `count` layers alone on tokens [B, T] behind each row's length: the residual stream [B, T, D]."""
        cache.reserve(cache.longest + tokens.shape[1])
        x = self.embed(tokens)
        table, mask, causal = self._positions(tokens, cache, None)
        for index in range(count):
            x = self.decoder[index](
                x, table, mask, memory.cross[index], memory.cross_mask, causal=causal, cache=cache, layer=index
            )
        cache.advance(tokens.shape[1])
        return x

    def _finish(self, x: Tensor, known: Tensor, count: int, memory: Memory, cache: KVCache) -> Tensor:
        """The first `count` layers of x [B, T, D], of which known [B, T0, D] has run."""
        done, lengths = known.shape[1], list(cache.lengths)
        if done == x.shape[1]:
            return known
        cache.advance(done)
        table, mask, causal = cached_positions(
            self.rotary(cache.longest + x.shape[1] - done), cache, x.shape[1] - done, None
        )
        rest = x[:, done:]
        for index in range(count):
            rest = self.decoder[index](
                rest, table, mask, memory.cross[index], memory.cross_mask, causal=causal, cache=cache, layer=index
            )
        cache.crop(lengths)
        return torch.cat((known, rest), 1)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [B, T, D] after the last norm -> logits [B, T, V], by the tied embedding."""
        return F.linear(hidden, self.semantic_emb.weight)

    def _positions(
        self, tokens: Tensor, cache: KVCache | None, tree: Tree | None
    ) -> tuple[Tensor, Tensor | None, bool]:
        """Rotations and self-attention mask of the new tokens."""
        batch, length = tokens.shape
        if cache is None:
            table = self.rotary(length)
            if tree is None:
                return table[:length], None, length > 1
            return table[tree.depth], tree.mask[:, None], False
        return cached_positions(self.rotary(cache.longest + length), cache, length, tree)
