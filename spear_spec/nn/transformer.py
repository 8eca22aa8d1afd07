"""Encoder and decoder layers."""

from __future__ import annotations

from torch import Tensor, nn

from spear_spec.nn.attention import CrossAttention, FeedForward, SelfAttention
from spear_spec.nn.cache import KVCache


class EncoderLayer(nn.Module):
    def __init__(self, dim: int, heads: int, dim_head: int, inner: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, heads, dim_head)
        self.ff = FeedForward(dim, inner, dropout)

    def forward(self, x: Tensor, table: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(x, table, mask)
        return x + self.ff(x)


class DecoderLayer(nn.Module):
    def __init__(
        self, dim: int, heads: int, dim_head: int, inner: int, kv_heads: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, heads, dim_head, kv_heads)
        self.cross_attn = CrossAttention(dim, heads, dim_head)
        self.ff = FeedForward(dim, inner, dropout)

    def forward(
        self,
        x: Tensor,
        table: Tensor,
        mask: Tensor | None,
        cross: tuple[Tensor, Tensor],
        cross_mask: Tensor | None,
        *,
        causal: bool = False,
        cache: KVCache | None = None,
        layer: int = 0,
        attention: bool = True,
        feed_forward: bool = True,
    ) -> Tensor:
        """attention, feed_forward: False leaves that sublayer (self- and cross-attention count as one) out."""
        if attention:
            x = x + self.self_attn(x, table, mask, causal=causal, cache=cache, layer=layer)
            x = x + self.cross_attn(x, *cross, cross_mask)
        return x + self.ff(x) if feed_forward else x
