"""A transformer that writes the codes of a residual quantiser behind a prefix: what audiolm-pytorch's coarse and fine
stage have in common, as a `Target`.

What is written is interleaved: quantizer 0 of the first frame, quantizer 1 of it, and so on, then the next frame. Code
c of quantizer q is token q * codebook + c, and `eos_id` = quantizers * codebook ends. A place has one quantizer: the
law gives tokens of others no mass.

`hidden` and `features` are wider than the package's: behind its numbers stands which quantizer comes next, one-hot, and
so `logits` needs to be told no places. `embedding` and `head` have zeros there.

The prefix is read causally and by the same layers; it is encoded once, and its keys and values are the memory's
`cross`. There is no text-free law: guidance is not possible. Padded rows of a batch are masked, which the package's
`generate` leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.config import DEEPEST, MOST_HEADS, MOST_IDS, WIDEST, WIDEST_HEAD, Strict, require, shown, whole
from spear_spec.errors import ConfigError, TextError
from spear_spec.models.audiolm.layers import Layer, look_at
from spear_spec.models.memory import DecoderOutput, Memory, Skip, cached_positions
from spear_spec.models.untied import Untied
from spear_spec.nn.cache import KVCache
from spear_spec.nn.transformer import Layers
from spear_spec.nn.tree import Tree

_NEVER = -1e9  # the logit of a token that cannot stand here: finite, and without mass at any temperature
_ALIGN = 8
_MOST = {  # of a shape's fields; of others 64
    "width": WIDEST,
    "depth": DEEPEST,
    "heads": MOST_HEADS,
    "dim_head": WIDEST_HEAD,
    "ff_inner": 64 * WIDEST,
    "codebook": MOST_IDS,
    "semantic": MOST_IDS,
}


@dataclass(frozen=True)
class WriterConfig(Strict):
    """Its shape.

    width: of the package's transformer. streams: residual streams. codebook: codes of a quantizer; quantizers: that it
    writes. relative_bias: scores depend on distance (the package's `rel_pos_bias`). value_residual: see `layers`.
    """

    width: int
    depth: int
    heads: int
    dim_head: int
    ff_inner: int
    streams: int
    codebook: int
    quantizers: int
    relative_bias: bool = True
    value_residual: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "bool":
                require(isinstance(value, bool), f"{field.name} must be true or false, not {shown(value)}")
            else:
                whole(field.name, value, 1, _MOST.get(field.name, 64))

    @property
    def dim(self) -> int:
        """Width of `hidden`: room for quantizers and the first place behind the package's."""
        return self.width + -(-(self.quantizers + 1) // _ALIGN) * _ALIGN

    @property
    def vocab_size(self) -> int:
        """Tokens that there are laws over, the end token among them."""
        return self.quantizers * self.codebook + 1


class Writer(Untied, nn.Module):
    """See the module; a `Target` (`models/contract.py`). A subclass says how its prefix enters and what is added to
    the scores.
    """

    max_tokens: int | None = None
    ends = True  # whether it writes the end token by itself

    def __init__(self, cfg: WriterConfig, prefix_ids: int) -> None:
        super().__init__()
        self.text_ids = prefix_ids
        self.vocab_size, self.eos_id, self.start_id = cfg.vocab_size, cfg.vocab_size - 1, cfg.vocab_size
        self.dim, self.depth, self.heads, self.dim_head = cfg.dim, cfg.depth, cfg.heads, cfg.dim_head
        self.shape = cfg
        self.prefix_start = nn.Parameter(torch.zeros(cfg.width))
        self.token_emb = nn.Embedding(cfg.vocab_size + 1, cfg.dim)
        self.decoder = Layers(
            Layer(cfg.width, cfg.heads, cfg.dim_head, cfg.ff_inner, cfg.streams) for _ in range(cfg.depth)
        )
        self.decoder_norm = nn.LayerNorm(cfg.width)
        self.to_logits = nn.Linear(cfg.dim, cfg.vocab_size, bias=False)
        self._bars = torch.empty(0)

    # --- what a subclass says ---------------------------------------------------------------------------------------

    def enter_prefix(self, ids: Tensor) -> Tensor:
        """Prefix ids [B, S] (1 and above; 0 is padding) -> vectors [B, S, width]."""
        raise NotImplementedError

    def prefix_bias(self, length: int, counts: Tensor) -> Tensor:
        """What is added to scores among the prefix and its start [1 or B, H, length, length]; counts [B]: how much of
        it a row has.
        """
        raise NotImplementedError

    def cross_bias(self, here: Tensor, length: int, counts: Tensor) -> Tensor:
        """The same of tokens at places here [T] or [B, T] on the prefix: [1 or B, H, 1 or T, length]."""
        raise NotImplementedError

    def own_bias(self, here: Tensor, there: Tensor, counts: Tensor) -> Tensor:
        """The same of tokens at places here on tokens at places there [K] or [B, K]: [1 or B, H, T, K]."""
        raise NotImplementedError

    # --- Target -----------------------------------------------------------------------------------------------------

    def text(self, ids: Sequence[int]) -> list[int]:
        """Prefix ids of a request, as `encode` wants them: one higher.

        Raises:
            TextError: none, or an id that the transformer does not know.
        """
        if not len(ids):
            raise TextError("nothing to write sound for: the prefix is empty")
        for i in ids:
            if not 0 <= i < self.text_ids:
                raise TextError(f"prefix ids must lie in 0 to {self.text_ids - 1}, not at {i}")
        return [i + 1 for i in ids]

    def encode(self, text_ids: Tensor, mask: Tensor | None = None) -> Memory:
        """text_ids [B, S] as `text` gives them, padded with 0 -> Memory over 1 + S positions, the start first."""
        there = text_ids != 0 if mask is None else mask
        there = F.pad(there, (1, 0), value=True)
        start = self.prefix_start.expand(len(text_ids), 1, -1)
        x = torch.cat((start, self.enter_prefix(text_ids.masked_fill(~there[:, 1:], 0))), 1)
        length = x.shape[1]
        ahead = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        bias = self.prefix_bias(length, there.sum(1)).masked_fill(ahead, -torch.inf)
        cross: list[tuple[Tensor, Tensor]] = []

        def look(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            cross.append((k, v))
            return look_at(q, k, v, bias)

        x, first = self._streams(x), None
        for layer in self.decoder:
            x, values = layer.attend(x, look, first)
            first = self._first(first, values)
            x = layer.feed(x)
        hidden = F.pad(self.decoder_norm(x.sum(2)), (0, self.dim - self.shape.width))
        return Memory.of(hidden, there, cross, null_slots=0)

    def new_cache(self, batch: int, capacity: int = 512) -> KVCache:
        """An empty cache for `batch` rows."""
        return KVCache(self.depth, batch, 1, capacity, self.dim_head, dtype=self.dtype, device=self.device)

    def embed(self, tokens: Tensor) -> Tensor:
        """Ids [B, T], `start_id` included, to vectors [B, T, D]."""
        return self.token_emb(tokens)

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
        """See `Target`. `below` is refused: a layer's output is not what the next one reads."""
        if below is not None:
            raise ConfigError("this transformer has no early exits: its layers hand on several streams")
        here, there, mask = self._places(tokens, cache, tree)
        bias = self._bias(here, there, mask, memory)
        following = self._following(here, len(tokens))
        x, first, kept = self._streams(self.embed(tokens)[..., : self.shape.width]), None, []
        for index, layer in enumerate(self.decoder):
            if skip is None or index not in skip.attention:
                x, values = layer.attend(x, self._looking(index, memory, cache, bias), first)
                first = self._first(first, values)
            if skip is None or index not in skip.feed_forward:
                x = layer.feed(x)
            if index + 1 in features:
                kept.append(torch.cat((x.sum(2), following), -1))
        if cache is not None:
            cache.advance(tokens.shape[1])
        hidden = torch.cat((self.decoder_norm(x.sum(2)), following), -1)
        return DecoderOutput(self.logits(hidden), hidden, kept)

    def first_layers(self, tokens: Tensor, memory: Memory, cache: Any, count: int) -> Tensor:
        """There are no early exits.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("this transformer has no early exits: its layers hand on several streams")

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [B, T, D] -> logits [B, T, V]; tokens that cannot come next have -1e9."""
        bars = self._barred(hidden)[hidden[..., self.shape.width :].argmax(-1)]
        return F.linear(hidden, self.to_logits.weight).masked_fill(bars, _NEVER)

    # --- places -----------------------------------------------------------------------------------------------------

    def _following(self, here: Tensor, batch: int) -> Tensor:
        """Behind places [T] or [B, T]: which quantizer comes, one-hot [B, T, D - width]; the very first stands apart,
        since nothing can end before it has begun.
        """
        count = self.shape.quantizers
        kind = torch.where(here == 0, count, here % count)
        marks = F.one_hot(kind, self.dim - self.shape.width).to(self.dtype)
        return marks.expand(batch, *marks.shape[-2:])

    def _barred(self, like: Tensor) -> Tensor:
        """[quantizers + 1, V]: which tokens cannot come, by what `_following` says."""
        cfg = self.shape
        if len(self._bars) != cfg.quantizers + 1 or self._bars.device != like.device:
            with torch.inference_mode(False):
                quantizer = torch.arange(cfg.vocab_size, device=like.device) // cfg.codebook
                kinds = torch.arange(cfg.quantizers + 1, device=like.device)
                bars = quantizer[None] != (kinds % cfg.quantizers)[:, None]
                bars[:, self.eos_id] = kinds != 0 if self.ends else True
                self._bars = bars
        return self._bars

    def _places(self, tokens: Tensor, cache: KVCache | None, tree: Tree | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Places of the new tokens [T] or [B, T], of all that are looked at [K] or [B, K], and what of them each new
        token sees: [T, K], [B, 1, T, K], or None for everything.
        """
        length, device = tokens.shape[1], tokens.device
        if cache is None:
            if tree is not None:
                return tree.depth, tree.depth, tree.mask[:, None]
            here = torch.arange(length, device=device)
            return here, here, here[None] <= here[:, None]
        total = cache.longest + length
        cache.reserve(total)
        slots = torch.arange(total, device=device)
        here, mask, causal = cached_positions(slots, cache, length, tree)
        if causal:
            mask = slots[None] <= here[:, None]
        if tree is None:
            return here, slots, mask
        nodes = tree.depth.shape[1]
        begin = torch.tensor(cache.lengths, device=device)[:, None] - (nodes - length)
        own = slots[None] - begin
        depth = tree.depth.expand(len(begin), -1).gather(1, own.clamp(0, nodes - 1))
        return here, torch.where((own >= 0) & (own < nodes), begin + depth, slots), mask

    def _bias(self, here: Tensor, there: Tensor, mask: Tensor | None, memory: Memory) -> Tensor:
        """What is added to the scores on prefix and tokens: [1 or B, H, T, 1 + S + K]."""
        length, counts = memory.mask.shape[1], memory.mask.sum(1)
        prefix, own = self.cross_bias(here, length, counts), self.own_bias(here, there, counts)
        if memory.cross_mask is not None:
            prefix = prefix.masked_fill(~memory.cross_mask, -torch.inf)
        if mask is not None:
            own = own.masked_fill(~mask, -torch.inf)
        shape = (max(len(prefix), len(own)), self.heads, here.shape[-1])
        return torch.cat((prefix.expand(*shape, -1), own.expand(*shape, -1)), -1)

    def _looking(self, layer: int, memory: Memory, cache: KVCache | None, bias: Tensor) -> Any:
        before = memory.cross[layer]

        def look(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            if cache is not None:
                k, v = cache.append(layer, k, v)
            return look_at(q, torch.cat((before[0], k), 2), torch.cat((before[1], v), 2), bias)

        return look

    def _streams(self, x: Tensor) -> Tensor:
        """[B, T, width] -> as many streams as there are [B, T, S, width]."""
        return x[:, :, None].expand(-1, -1, self.shape.streams, -1)

    def _first(self, first: Tensor | None, values: Tensor) -> Tensor | None:
        return None if not self.shape.value_residual else values if first is None else first
