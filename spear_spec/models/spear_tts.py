"""The Spear-TTS text-to-semantic transformer (arXiv 2302.03540; mathematics of spear-tts-pytorch's
`TextToSemantic`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.config import T2SConfig
from spear_spec.nn.attention import FeedForward, RMSNorm, rotary_table
from spear_spec.nn.cache import KVCache
from spear_spec.nn.transformer import DecoderLayer, EncoderLayer
from spear_spec.nn.tree import Tree


@dataclass
class Memory:
    """What the encoder leaves for the decoders: computed once a sentence, shared by the target and every draft.

    hidden [B, S, D]; mask [B, S], True where there is text; cross: per decoder layer k, v [B, H, S + 1, dim_head] with
    the null slot first; cross_mask [B, 1, 1, S + 1], or None when every row uses every position.
    """

    hidden: Tensor
    mask: Tensor
    cross: list[tuple[Tensor, Tensor]]
    cross_mask: Tensor | None

    @property
    def batch(self) -> int:
        return self.hidden.shape[0]

    def select(self, rows: list[int]) -> Memory:
        """Only these rows."""
        index = torch.tensor(rows, device=self.hidden.device, dtype=torch.long)
        mask = self.mask[index]
        return Memory(self.hidden[index], mask, [(k[index], v[index]) for k, v in self.cross], cross_mask(mask))

    def guided(self) -> Memory:
        """Every row twice: as it is, then without its text (only the null slot open).

        Both arms of guidance in one call.
        """
        mask = torch.cat((self.mask, torch.zeros_like(self.mask)))
        cross = [(k.repeat(2, 1, 1, 1), v.repeat(2, 1, 1, 1)) for k, v in self.cross]
        return Memory(self.hidden.repeat(2, 1, 1), mask, cross, cross_mask(mask))

    def unconditional(self) -> Memory:
        """The same rows without their text: only the null slot is left (the second arm of guidance)."""
        return Memory(self.hidden[:, :0], self.mask[:, :0], [(k[:, :, :1], v[:, :, :1]) for k, v in self.cross], None)


def cross_mask(mask: Tensor) -> Tensor | None:
    """Text mask [B, S] to attention mask [B, 1, 1, S + 1] with the null slot open; None when nothing is masked."""
    return None if bool(mask.all()) else F.pad(mask, (1, 0), value=True)[:, None, None]


@dataclass
class DecoderOutput:
    """logits [B, T, V]; hidden [B, T, D] after the last norm; features: the residual stream [B, T, D] after each
    layer asked for.
    """

    logits: Tensor
    hidden: Tensor
    features: list[Tensor]

    def split(self, rows: int) -> tuple[DecoderOutput, DecoderOutput]:
        """The first `rows` rows, and the rest."""
        return self._each(lambda x: x[:rows]), self._each(lambda x: x[rows:])

    def select(self, rows: list[int]) -> DecoderOutput:
        """Only these rows."""
        index = torch.tensor(rows, device=self.logits.device)
        return self._each(lambda x: x[index])

    def at(self, positions: Tensor) -> DecoderOutput:
        """These positions [B, A] of each row, in this order."""
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        return self._each(lambda x: x[rows, positions])

    def _each(self, take: Callable[[Tensor], Tensor]) -> DecoderOutput:
        return DecoderOutput(take(self.logits), take(self.hidden), [take(feature) for feature in self.features])


@dataclass(frozen=True)
class Skip:
    """Sublayers (by layer, 0 is the first) that a draft leaves out; self- and cross-attention of a layer count as
    one.
    """

    attention: frozenset[int] = frozenset()
    feed_forward: frozenset[int] = frozenset()


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
        self._table = torch.empty(0)

    @property
    def device(self) -> torch.device:
        return self.start.device

    @property
    def dtype(self) -> torch.dtype:
        return self.start.dtype

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
        return Memory(hidden, mask, [layer.cross_attn.keys_values(hidden) for layer in self.decoder], cross_mask(mask))  # type: ignore[union-attr, operator]

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
        layers: int | Sequence[int] | None = None,
        features: Sequence[int] = (),
        skip: Skip | None = None,
        below: tuple[int, Tensor] | None = None,
    ) -> DecoderOutput:
        """Score tokens [B, T].

        Without a cache the T tokens are the whole sequence. With one they are written behind each row's length and see
        that row's committed prefix and, among themselves, earlier tokens or (with `tree`) their ancestors.

        layers: None runs all; an int n the first n (logits then come from the early-exit head, if there is one); a
        sequence of indices only those. features: layers (1 is the first) whose output is kept. skip: sublayers that are
        left out (self-speculation, arXiv 2309.08168).

        below (n, x [B, T0, D]): what the first n layers said of the first T0 tokens, whose rows of these layers are
        in the cache already (early exit: the draft ran them); there they run for the other tokens alone.
        """
        length = tokens.shape[1]
        chosen = range(len(self.decoder)) if layers is None else range(layers) if isinstance(layers, int) else layers
        if cache is not None:
            cache.reserve(cache.longest + length)
        kept = []
        x, reused = self.embed(tokens), 0
        if below is not None:
            assert cache is not None and tree is None and layers is None, "rows are reused from a cache, for chains"
            reused, known = below
            x = self._finish(x, known, reused, memory, cache)
        table, mask, causal = self._positions(tokens, cache, tree)
        for index in chosen:
            if index >= reused:
                x = self.decoder[index](
                    x,
                    table,
                    mask,
                    memory.cross[index],
                    memory.cross_mask,
                    causal=causal,
                    cache=cache,
                    layer=index,
                    **(
                        {}
                        if skip is None
                        else {"attention": index not in skip.attention, "feed_forward": index not in skip.feed_forward}
                    ),
                )
            if index + 1 in features:
                kept.append(x)
        if cache is not None:
            cache.advance(length)
        if isinstance(layers, int) and self.early_exit is not None and layers == self.cfg.early_exit_layer:
            return DecoderOutput(self.early_exit(x), x, kept)
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


def cached_positions(
    table: Tensor, cache: KVCache, length: int, tree: Tree | None
) -> tuple[Tensor, Tensor | None, bool]:
    """Rotations and mask for `length` new tokens behind each row of a cache.

    tree: of the new tokens, or of more nodes, of which the new tokens are the last and the others were written before
    them, behind each row's committed prefix.
    """
    longest = cache.longest
    if tree is None and cache.uniform:
        here = table[longest : longest + length]
        if length == 1:
            return here, None, False
        if longest == 0:
            return here, None, True
        return here, torch.ones(length, longest + length, dtype=torch.bool, device=table.device).tril(longest), False
    device = table.device
    start = torch.tensor(cache.lengths, device=device)[:, None]
    slot = torch.arange(longest + length, device=device)
    own = slot[None] - start  # index among the row's new tokens
    if tree is None:
        offset = torch.arange(length, device=device)
        return table[start + offset], (own[:, None, :] <= offset[None, :, None])[:, None], False
    nodes = tree.mask.shape[-1]
    first = start - (nodes - length)  # where each row's tree begins
    own = own + (nodes - length)
    block, depth = tree.mask[:, -length:], tree.depth[:, -length:]
    if cache.uniform:
        begin = longest + length - nodes
        mask = F.pad(block, (begin, 0), value=True)
    else:
        inside = (own >= 0) & (own < nodes)
        seen = torch.gather(block, 2, own.clamp(0, nodes - 1)[:, None, :].expand(-1, length, -1))
        mask = torch.where(inside[:, None, :], seen, (own < 0)[:, None, :])
    return table[first + depth], mask[:, None], False
