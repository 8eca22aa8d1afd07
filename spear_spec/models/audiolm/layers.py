"""A layer of audiolm-pytorch's transformers (mathematics of its release 2.4.0).

The residual stream is several streams side by side, which each sublayer mixes anew (hyper-connections, arXiv
2409.19606). All heads share one key and one value; these are made of the stream before its norm, and from the second
layer on half of a value is the first layer's (value residual, arXiv 2410.17897).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Queries [B, H, T, d] on the new tokens' keys and values [B, 1, T, d] -> what the heads saw [B, H, T, d].
Look = Callable[[Tensor, Tensor, Tensor], Tensor]

_NORM_EPS = 1e-12  # as the package's


class Streams(nn.Module):
    """How a sublayer reads S streams and writes into them; with one stream it is the usual residual.

    mix [D, S + 2]: what the weights follow from, for each stream: its share of the sublayer's input, of each stream
    behind it, and of the sublayer's output. share [S, S + 2]: these without any input; scale [S + 2]: how far an input
    moves them.
    """

    def __init__(self, dim: int, streams: int) -> None:
        super().__init__()
        self.streams = streams
        if streams > 1:
            self.mix = nn.Parameter(torch.zeros(dim, streams + 2))
            self.share = nn.Parameter(torch.zeros(streams, streams + 2))
            self.scale = nn.Parameter(torch.zeros(streams + 2))

    def open(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Streams x [B, T, S, D] -> the sublayer's input [B, T, D], the streams behind it, weights of its output."""
        if self.streams == 1:
            return x[:, :, 0], x, None
        size = torch.linalg.vector_norm(x, 2, -1, True).clamp_min(_NORM_EPS)
        weights = torch.tanh(x @ self.mix / size) * self.scale + self.share
        mixed = weights[..., :-1].transpose(-1, -2) @ x
        return mixed[:, :, 0], mixed[:, :, 1:], weights[..., -1:]

    def close(self, x: Tensor, weights: Tensor | None, out: Tensor) -> Tensor:
        """The streams that `open` left, with the sublayer's output [B, T, D] added."""
        out = out[:, :, None]
        return x + out if weights is None else torch.addcmul(x, weights, out)


class Attention(nn.Module):
    """Causal attention of H heads on one key and value."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads, self.dim_head = heads, dim_head
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def forward(self, x: Tensor, look: Look, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [B, T, D] -> what is added to it, and this layer's own values [B, 1, T, d]. first: those of the first
        layer, of which half of the values are; None: there are none.
        """
        q = self.to_q(self.norm(x)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        k, own = self.to_kv(x)[:, None].chunk(2, -1)
        seen = look(q, k, own if first is None else 0.5 * (own + first))
        return self.to_out(seen.transpose(1, 2).flatten(2)), own


class FeedForward(nn.Module):
    """GEGLU with a norm before each of its products."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * inner, bias=False)
        self.inner_norm = nn.LayerNorm(inner)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> what is added to it."""
        value, gate = self.up(self.norm(x)).chunk(2, -1)
        return self.down(self.inner_norm(F.gelu(gate) * value))


class Layer(nn.Module):
    """Attention, then a feed-forward, each behind a mix of the streams."""

    def __init__(self, dim: int, heads: int, dim_head: int, inner: int, streams: int) -> None:
        super().__init__()
        self.attn_streams = Streams(dim, streams)
        self.attn = Attention(dim, heads, dim_head)
        self.ff_streams = Streams(dim, streams)
        self.ff = FeedForward(dim, inner)

    def attend(self, x: Tensor, look: Look, first: Tensor | None) -> tuple[Tensor, Tensor]:
        """Streams x [B, T, S, D] through the attention; also the layer's own values."""
        inner, rest, weights = self.attn_streams.open(x)
        seen, values = self.attn(inner, look, first)
        return self.attn_streams.close(rest, weights, seen), values

    def feed(self, x: Tensor) -> Tensor:
        """Streams x [B, T, S, D] through the feed-forward."""
        inner, rest, weights = self.ff_streams.open(x)
        return self.ff_streams.close(rest, weights, self.ff(inner))


def look_at(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """q [B, H, T, d] on k, v [B, 1, S, d]; bias [1 or B, H, T, S] is added to the scores: [B, H, T, d]."""
    batch, heads, length, dim = q.shape
    flat = q.reshape(batch, heads * length, dim) * dim**-0.5
    scores = torch.bmm(flat, k[:, 0].transpose(1, 2)).view(batch, heads, length, -1) + bias
    return torch.bmm(scores.softmax(-1).flatten(1, 2), v[:, 0]).view(batch, heads, length, dim)
