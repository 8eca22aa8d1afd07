"""WhisperSpeech's text-to-semantic transformer (the open SPEAR-TTS of Collabora; mathematics of its package 0.8).

Text bytes go through an encoder that is told the language; the decoder is told the speaking rate with every token. Both
add sinusoidal positions; layers are pre-norm with GELU. The package's multipliers (of queries and keys, of the logits)
and its projections of narrow embeddings are in the weights here, see `interop/whisperspeech.py`.

A text is read together with the silence behind it: the encoder always sees `text_length` positions, an end-of-text byte
(0) first and as many as are left over behind, and attention looks at all of them. So ragged rows need no mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.config import Strict
from spear_spec.errors import ConfigError, TextError
from spear_spec.models.memory import Memory
from spear_spec.models.stack import DecoderStack
from spear_spec.models.untied import Untied
from spear_spec.nn.attention import attend
from spear_spec.nn.cache import KVCache
from spear_spec.nn.transformer import Layers


@dataclass(frozen=True)
class WhisperSpeechConfig(Strict):
    """Its shape.

    vocab_size: semantic tokens and the one that pads, which is `eos_id`; in old files a further one behind it that
    was never trained but stays in the law, as in the package. max_tokens: positions of the decoder. text_codes: byte
    values; text_length: positions of the encoder. causal_encoder: a byte does not see later ones.
    """

    dim: int
    heads: int
    source_depth: int
    target_depth: int
    ff_inner: int
    vocab_size: int
    eos_id: int
    max_tokens: int
    text_codes: int = 256
    text_length: int = 550
    languages: int = 99
    rate_bins: int = 32
    causal_encoder: bool = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "causal_encoder":
                if not isinstance(value, bool):
                    raise ConfigError(f"causal_encoder must be true or false, not {value!r:.40}")
            elif not isinstance(value, int) or isinstance(value, bool) or value < (field.name != "source_depth"):
                raise ConfigError(f"{field.name} must be a whole number above 0, not {value!r:.40}")
        if self.dim % self.heads:
            raise ConfigError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        if self.eos_id >= self.vocab_size:
            raise ConfigError(f"eos_id must lie below vocab_size ({self.vocab_size}), not at {self.eos_id}")
        if self.text_length < 2:
            raise ConfigError("text_length must be at least 2: an end-of-text byte comes before the text")

    @property
    def depth(self) -> int:
        """Layers of the decoder."""
        return self.target_depth

    @property
    def dim_head(self) -> int:
        """Width of a head."""
        return self.dim // self.heads


class Attention(nn.Module):
    """Attention with biases; the scale of the scores beyond 1 / sqrt(dim_head) is in the weights.

    Self-attention reads keys and values of x itself, cross-attention those that `keys_values` made of the text.
    """

    def __init__(self, dim: int, heads: int, *, cross: bool) -> None:
        super().__init__()
        self.heads, self.dim_head = heads, dim // heads
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim)
        self.to_kv = nn.Linear(dim, 2 * dim)
        self.to_out = nn.Linear(dim, dim)
        self.cross = cross

    def split(self, x: Tensor) -> Tensor:
        """[B, T, H dim_head] -> [B, H, T, dim_head]."""
        return x.view(*x.shape[:2], self.heads, self.dim_head).transpose(1, 2)

    def keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [B, S, D] -> k, v [B, H, S, dim_head]."""
        k, v = self.to_kv(x).chunk(2, -1)
        return self.split(k), self.split(v)

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        known: tuple[Tensor, Tensor] | None = None,
        *,
        causal: bool = False,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """x [B, T, D] -> [B, T, D]. known: keys and values to look at instead of one's own."""
        x = self.norm(x)
        if known is None:
            k, v = self.keys_values(x)
            if cache is not None:
                k, v = cache.append(layer, k, v)
        else:
            k, v = known
        seen = attend(self.split(self.to_q(x)), k, v, mask, causal=causal)
        return self.to_out(seen.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """A layer of the encoder, or with cross-attention one of the decoder (`cross_attn` None in the encoder)."""

    def __init__(self, cfg: WhisperSpeechConfig, *, cross: bool) -> None:
        super().__init__()
        self.self_attn = Attention(cfg.dim, cfg.heads, cross=False)
        self.cross_attn = Attention(cfg.dim, cfg.heads, cross=True) if cross else None
        self.ff_norm = nn.LayerNorm(cfg.dim)
        self.up = nn.Linear(cfg.dim, cfg.ff_inner)
        self.down = nn.Linear(cfg.ff_inner, cfg.dim)

    def forward(
        self,
        x: Tensor,
        here: Tensor | None = None,
        mask: Tensor | None = None,
        cross: tuple[Tensor, Tensor] | None = None,
        cross_mask: Tensor | None = None,
        *,
        causal: bool = False,
        cache: KVCache | None = None,
        layer: int = 0,
        attention: bool = True,
        feed_forward: bool = True,
    ) -> Tensor:
        """As `nn.transformer.DecoderLayer`; positions are in x already, so `here` is not looked at."""
        if attention:
            x = x + self.self_attn(x, mask, causal=causal, cache=cache, layer=layer)
            if self.cross_attn is not None:
                x = x + self.cross_attn(x, cross_mask, cross)
        return x + self.down(F.gelu(self.up(self.ff_norm(x)))) if feed_forward else x


class WhisperSpeechT2S(Untied, DecoderStack[Layer]):
    """Bytes in, a law over semantic tokens out; a `Target` (see `contract.py`).

    Text ids of a request are `[text_codes + language, text_codes + languages + rate bin, *bytes]`, see
    `text/bytes.py`; rows are padded with 0, which is the end-of-text byte too. The package pads speech with one token,
    and so that token both starts and ends an utterance: here it ends it as `eos_id`, and starts it as `start_id` =
    `vocab_size`, whose vector is the same. There is no text-free law: guidance is not possible.
    """

    def __init__(self, cfg: WhisperSpeechConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.eos_id, self.vocab_size, self.start_id = cfg.eos_id, cfg.vocab_size, cfg.vocab_size
        self.dim, self.depth, self.heads, self.dim_head = cfg.dim, cfg.target_depth, cfg.heads, cfg.dim_head
        self.max_tokens = cfg.max_tokens
        self.text_ids = cfg.text_codes + cfg.languages + cfg.rate_bins
        self.text_emb = nn.Embedding(cfg.text_codes, cfg.dim)
        self.language_emb = nn.Embedding(cfg.languages, cfg.dim)
        self.rate_emb = nn.Embedding(cfg.rate_bins, cfg.dim)
        self.token_emb = nn.Embedding(cfg.vocab_size + 1, cfg.dim)
        self.register_buffer("text_positions", sinusoids(cfg.text_length, cfg.dim))
        self.register_buffer("token_positions", sinusoids(cfg.max_tokens, cfg.dim))
        self.text_positions: Tensor
        self.token_positions: Tensor
        self.encoder = Layers(Layer(cfg, cross=False) for _ in range(cfg.source_depth))
        self.encoder_norm = nn.LayerNorm(cfg.dim)
        self.decoder = Layers(Layer(cfg, cross=True) for _ in range(cfg.target_depth))
        self.decoder_norm = nn.LayerNorm(cfg.dim)
        self.to_logits = nn.Linear(cfg.dim, cfg.vocab_size)

    def text(self, ids: Sequence[int]) -> list[int]:
        """Text ids of a request: language, rate, bytes. Nothing is added.

        Raises:
            TextError: the language or the rate is missing, a byte is 0 or none, or the text is too long.
        """
        cfg, ids = self.cfg, list(ids)
        rates = cfg.text_codes + cfg.languages
        if len(ids) < 3:
            raise TextError("text ids must be a language, a speaking rate and at least one byte")
        if not cfg.text_codes <= ids[0] < rates or not rates <= ids[1] < rates + cfg.rate_bins:
            raise TextError(
                f"text ids must begin with a language ({cfg.text_codes} to {rates - 1}) and a speaking rate "
                f"({rates} to {rates + cfg.rate_bins - 1})"
            )
        if not all(0 < i < cfg.text_codes for i in ids[2:]):
            raise TextError(f"bytes of a text must lie in 1 to {cfg.text_codes - 1}")
        if len(ids) - 2 > cfg.text_length - 1:
            raise TextError(f"the text has {len(ids) - 2} bytes; {cfg.text_length - 1} can be read at once")
        return ids

    def new_cache(self, batch: int, capacity: int = 512) -> KVCache:
        """An empty cache for `batch` rows."""
        cfg = self.cfg
        shape = (cfg.target_depth, batch, cfg.heads, capacity, cfg.dim_head)
        return KVCache(*shape, dtype=self.dtype, device=self.device)

    def embed(self, tokens: Tensor) -> Tensor:
        """Semantic ids [B, T], `start_id` included, to vectors [B, T, D]; without position and rate."""
        return self.token_emb(tokens)

    def encode(self, text_ids: Tensor, mask: Tensor | None = None) -> Memory:
        """text_ids [B, S], ragged rows padded with 0 -> Memory over `text_length` positions, all of them in use.

        Its `condition` is the speaking rate's vector. `hidden`, which drafts look at, has it added: they know the rate
        from there. mask [B, S] may say where text is; without it everything but 0 is.

        Raises:
            TextError: a row has no language and rate, or is longer than the encoder.
        """
        cfg = self.cfg
        room = cfg.text_length - 1
        if text_ids.shape[1] < 2 or text_ids.shape[1] - 2 > room:
            raise TextError(f"text ids are a language, a speaking rate and at most {room} bytes; see `text`")
        data = text_ids[:, 2:] if mask is None else text_ids[:, 2:].masked_fill(~mask[:, 2:], 0)
        data = F.pad(data, (1, room - data.shape[1]))
        x = self.text_emb(data) + self.language_emb(text_ids[:, :1] - cfg.text_codes) + self.text_positions
        for layer in self.encoder:
            x = layer(x, causal=cfg.causal_encoder)
        x = self.encoder_norm(x)
        rate = self.rate_emb(text_ids[:, 1:2] - cfg.text_codes - cfg.languages)
        cross = [layer.cross_attn.keys_values(x) for layer in self.decoder if layer.cross_attn is not None]
        everywhere = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return Memory(x + rate, everywhere, cross, None, null_slots=0, condition=rate)

    def positions(self, count: int) -> Tensor:
        """Vectors of at least the first `count` positions [.., D].

        Behind the last one it repeats: only padding, and drafts that the cap cuts off, can stand there.
        """
        table = self.token_positions
        return table if count <= len(table) else torch.cat((table, table[-1:].expand(count - len(table), -1)))

    def enter(self, tokens: Tensor, here: Tensor, memory: Memory) -> Tensor:
        """Token vectors with those of their positions and of the speaking rate."""
        assert memory.condition is not None
        return self.embed(tokens) + here + memory.condition

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [B, T, D] after the last norm -> logits [B, T, V]."""
        return self.to_logits(hidden)


def sinusoids(length: int, dim: int) -> Tensor:
    """Positions as in Whisper (arXiv 2212.04356): sines, then cosines, of times from 1 to 10000: [length, dim].

    In float32 as in the package; dim is even.
    """
    half = dim // 2
    times = torch.exp(-torch.log(torch.tensor(10000.0, dtype=torch.float64)) / max(half - 1, 1) * torch.arange(half))
    angles = torch.arange(length)[:, None] * times.float()
    return torch.cat((angles.sin(), angles.cos()), 1)
