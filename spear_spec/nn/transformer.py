"""Encoder and decoder layers. `decode` is what a decoder layer computes, whoever holds its weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar, cast

from torch import Tensor, nn

from spear_spec.nn.attention import Attend, CrossAttention, FeedForward, SelfAttention, seeing
from spear_spec.nn.cache import KVCache

M = TypeVar("M", bound=nn.Module)


class Layers(nn.Module, Generic[M]):
    """Layers of one kind, numbered from 0, as `nn.ModuleList` names them; what comes out has the kind's type."""

    def __init__(self, layers: Iterable[M]) -> None:
        super().__init__()
        for index, layer in enumerate(layers):
            self.add_module(str(index), layer)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[M]:
        return cast("Iterator[M]", iter(self._modules.values()))

    def __getitem__(self, index: int) -> M:
        return cast(M, self._modules[str(range(len(self))[index])])


class EncoderLayer(nn.Module):
    """Self-attention over the text, then a feed-forward, each added to its input."""

    def __init__(self, dim: int, heads: int, dim_head: int, inner: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, heads, dim_head)
        self.ff = FeedForward(dim, inner, dropout)

    def forward(self, x: Tensor, table: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, S, D] -> [B, S, D]; mask [B, 1, 1, S] is True where there is text, None: everywhere."""
        x = x + self.self_attn(x, table, mask)
        return x + self.ff(x)


class DecoderWeights(Protocol):
    """The products of a decoder layer, the norms before them included, on x [B, T, D]. Whole or rounded weights."""

    def past(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turned queries [B, H, T, D / H] of self-attention, turned keys and values [B, Hk, T, D / H]."""
        ...

    def add_past(self, x: Tensor, seen: Tensor) -> Tensor:
        """x plus the projection of what self-attention saw [B, H, T, D / H]."""
        ...

    def ask(self, x: Tensor) -> Tensor:
        """Queries [B, H, T, D / H] of cross-attention."""
        ...

    def add_text(self, x: Tensor, seen: Tensor) -> Tensor:
        """x plus the projection of what cross-attention saw."""
        ...

    def add_feed_forward(self, x: Tensor) -> Tensor:
        """x plus the feed-forward of it."""
        ...


def decode(
    layer: DecoderWeights,
    x: Tensor,
    table: Tensor,
    cross: tuple[Tensor, Tensor],
    *,
    past: Attend,
    text: Attend,
    attention: bool = True,
    feed_forward: bool = True,
) -> Tensor:
    """One decoder layer: x [B, T, D] -> [B, T, D].

    Args:
        table: rotations of the positions; cross: keys and values of the text, null slot first.
        past, text: how self- and cross-attention look.
        attention, feed_forward: False leaves that sublayer (self- and cross-attention count as one) out.
    """
    if attention:
        x = layer.add_past(x, past(*layer.past(x, table)))
        x = layer.add_text(x, text(layer.ask(x), *cross))
    return layer.add_feed_forward(x) if feed_forward else x


class DecoderLayer(nn.Module):
    """Self-attention on what was said, cross-attention on the text, a feed-forward, each added to its input."""

    def __init__(
        self, dim: int, heads: int, dim_head: int, inner: int, kv_heads: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.self_attn = SelfAttention(dim, heads, dim_head, kv_heads)
        self.cross_attn = CrossAttention(dim, heads, dim_head)
        self.ff = FeedForward(dim, inner, dropout)

    def past(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See `DecoderWeights`, as for the next four."""
        return self.self_attn.project(x, table)

    def add_past(self, x: Tensor, seen: Tensor) -> Tensor:
        return x + self.self_attn.leave(seen)

    def ask(self, x: Tensor) -> Tensor:
        return self.cross_attn.queries(x)

    def add_text(self, x: Tensor, seen: Tensor) -> Tensor:
        return x + self.cross_attn.leave(seen)

    def add_feed_forward(self, x: Tensor) -> Tensor:
        return x + self.ff(x)

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
        past: Attend | None = None,
        text: Attend | None = None,
    ) -> Tensor:
        """See `decode`. past, text: in place of `seeing` the mask and cache, and `seeing` the cross mask."""
        return decode(
            self,
            x,
            table,
            cross,
            past=past or seeing(mask, causal=causal, cache=cache, layer=layer),
            text=text or seeing(cross_mask),
            attention=attention,
            feed_forward=feed_forward,
        )
