"""Attention and feed-forward with the mathematics of spear-tts-pytorch: pre-norm, rotary pairs, null key/value,
GEGLU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.nn.cache import KVCache

# Queries [B, H, T, D] on keys and values [B, Hk, S, D] -> [B, H, T, D]. Which of them a query sees, and what becomes of
# the keys, is the function's affair: a cache, a roll-out, scores that a loss reads.
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]

# The peer clamps the norm at 1e-12. Far below any real row, but its power -1.5, which the gradient holds, must stay
# finite in float32: with less, an all-zero row turns every gradient into NaN.
_NORM_EPS = 1e-24


class RMSNorm(nn.Module):
    """x / |x| * sqrt(dim) * gamma, which is root-mean-square normalisation."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.is_cuda or x.dtype not in (torch.float32, torch.float64):
            return F.rms_norm(x, (self.dim,), self.gamma.to(x.dtype), _NORM_EPS)
        # the same in fewer operations: at one token a step their dispatch is what the norm costs on a CPU
        size = torch.linalg.vector_norm(x, 2, -1, True).clamp_min_(1e-12).mul_(self.dim**-0.5)
        return (x * self.gamma).div_(size)


def rotary_table(positions: int, dim_head: int, *, dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """Rotations e^(i position frequency) [positions, dim_head / 2], complex. RoFormer, arXiv 2104.09864, base 10000.

    Frequencies are rounded to float32 first, as the peer's stored parameter is.
    """
    frequency = 1.0 / 10000 ** (torch.arange(0, dim_head, 2, device=device).float() / dim_head)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    angle = torch.outer(torch.arange(positions, device=device, dtype=real), frequency.to(real))
    return torch.polar(torch.ones_like(angle), angle)


def kept_rotations(known: Tensor, positions: int, dim_head: int, weight: Tensor) -> Tensor:
    """`known`, or, where it has too few positions or another precision or device than the weight's, a longer table in
    its place.
    """
    double = weight.dtype == torch.float64
    if known.shape[0] >= positions and known.device == weight.device and (known.dtype == torch.complex128) == double:
        return known
    dtype = torch.float64 if double else torch.float32
    with torch.inference_mode(False):  # a table made while decoding must serve training too
        return rotary_table(max(2 * positions, 2048), dim_head, dtype=dtype, device=weight.device)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Rotate neighbouring pairs of the last dimension of x [B, T, H, D] by table [T, D/2] or [B, T, D/2]."""
    real = x if x.dtype in (torch.float32, torch.float64) else x.float()
    pairs = torch.view_as_complex(real.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table.unsqueeze(-2)).flatten(-2).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, causal: bool = False) -> Tensor:
    """q [B, H, T, D] on k, v [B, Hk, S, D]; query head h uses key head h mod Hk, as the peer groups them."""
    groups = q.shape[1] // k.shape[1]
    if torch.is_grad_enabled() and q.device.type == "cpu":
        if groups > 1:
            k, v = k.repeat(1, groups, 1, 1), v.repeat(1, groups, 1, 1)
        return _attend_for_training(q, k, v, mask, causal)
    if groups > 1:
        return _attend_grouped(q, k, v, mask, causal, groups)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)


def _attend_grouped(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, groups: int) -> Tensor:
    """Query heads that share a key head stand behind one another as further queries, so that the cache is not
    copied.
    """
    batch, heads, length, dim = q.shape
    if causal:
        mask = torch.ones(length, k.shape[2], dtype=torch.bool, device=q.device).tril(k.shape[2] - length)
    if mask is not None and mask.shape[-2] > 1:
        mask = mask.repeat(*[1] * (mask.ndim - 2), groups, 1)
    q = q.view(batch, groups, -1, length, dim).transpose(1, 2).reshape(batch, -1, groups * length, dim)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.view(batch, -1, groups, length, dim).transpose(1, 2).reshape(batch, heads, length, dim)


def _attend_for_training(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """The same by plain products: on a CPU the fused kernel's backward takes twice as long."""
    batch, heads, length, dim = q.shape
    keys = k.shape[2]
    if causal:
        bias = torch.full((length, keys), -1e4, dtype=q.dtype, device=q.device).triu(keys - length + 1)
    elif mask is None:
        bias = q.new_zeros(())
    else:
        bias = mask if mask.dtype != torch.bool else torch.zeros_like(mask, dtype=q.dtype).masked_fill(~mask, -1e4)
    bias = bias.to(q.dtype).expand(batch, heads, length, keys).reshape(batch * heads, length, keys)
    flat = [x.reshape(batch * heads, -1, dim) for x in (q * dim**-0.5, k, v)]
    weights = torch.baddbmm(bias, flat[0], flat[1].transpose(1, 2)).softmax(-1)
    return torch.bmm(weights, flat[2]).view(batch, heads, length, dim)


def rotated(qkv: Tensor, heads: int, kv_heads: int, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A fused projection [B, T, (H + 2 Hk) D] as turned queries [B, H, T, D], turned keys and values [B, Hk, T, D]."""
    qkv = qkv.unflatten(-1, (heads + 2 * kv_heads, -1))
    turned = rotate(qkv[:, :, : heads + kv_heads], table)
    q, k = turned[:, :, :heads], turned[:, :, heads:]
    return q.transpose(1, 2), k.transpose(1, 2), qkv[:, :, heads + kv_heads :].transpose(1, 2)


def merged(seen: Tensor) -> Tensor:
    """Heads [B, H, T, D] side by side: [B, T, H D]."""
    return seen.transpose(1, 2).flatten(2)


def seeing(mask: Tensor | None, *, causal: bool = False, cache: KVCache | None = None, layer: int = 0) -> Attend:
    """`attend` under a mask, on the keys and values themselves or on what a cache holds of the layer with them."""

    def look(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if cache is not None:
            k, v = cache.append(layer, k, v)
        return attend(q, k, v, mask, causal=causal)

    return look


class SelfAttention(nn.Module):
    """Rotary self-attention; with a cache, new tokens see their row's committed prefix and each other by `mask`."""

    def __init__(self, dim: int, heads: int, dim_head: int, kv_heads: int | None = None) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.dim_head = heads, kv_heads or heads, dim_head
        self.norm = RMSNorm(dim)
        self.to_qkv = nn.Linear(dim, (heads + 2 * self.kv_heads) * dim_head, bias=False)
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def project(self, x: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, T, D] -> turned queries [B, H, T, dim_head], turned keys and values [B, Hk, T, dim_head]."""
        return rotated(self.to_qkv(self.norm(x)), self.heads, self.kv_heads, table)

    def leave(self, seen: Tensor) -> Tensor:
        """What the heads saw [B, H, T, dim_head] -> [B, T, D]."""
        return self.to_out(merged(seen))

    def forward(
        self,
        x: Tensor,
        table: Tensor,
        mask: Tensor | None = None,
        *,
        causal: bool = False,
        cache: KVCache | None = None,
        layer: int = 0,
        by: Attend | None = None,
    ) -> Tensor:
        """x [B, T, D], rotations of its positions -> what is added to it; by: in place of `seeing` the rest."""
        by = by or seeing(mask, causal=causal, cache=cache, layer=layer)
        return self.leave(by(*self.project(x, table)))


class CrossAttention(nn.Module):
    """Attention on the encoder output without positions, with one learned null key/value in front."""

    def __init__(self, dim: int, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads, self.dim_head = heads, dim_head
        self.norm = RMSNorm(dim)
        self.to_q = nn.Linear(dim, heads * dim_head, bias=False)
        self.to_kv = nn.Linear(dim, 2 * heads * dim_head, bias=False)
        self.null_kv = nn.Parameter(torch.randn(2, heads, 1, dim_head))
        self.to_out = nn.Linear(heads * dim_head, dim, bias=False)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """memory [B, S, D] -> k, v [B, H, S + 1, dim_head], null slot first. Computed once an utterance."""
        batch, length, _ = memory.shape
        kv = self.to_kv(memory).view(batch, length, 2, self.heads, self.dim_head).permute(2, 0, 3, 1, 4)
        null = self.null_kv.to(kv.dtype)[:, None].expand(2, batch, self.heads, 1, self.dim_head)
        k, v = torch.cat((null, kv), dim=3).unbind(0)
        return k, v

    def queries(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, H, T, dim_head]."""
        return self.to_q(self.norm(x)).view(x.shape[0], x.shape[1], self.heads, self.dim_head).transpose(1, 2)

    def leave(self, seen: Tensor) -> Tensor:
        """What the heads saw [B, H, T, dim_head] -> [B, T, D]."""
        return self.to_out(merged(seen))

    def forward(
        self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, by: Attend | None = None
    ) -> Tensor:
        """x [B, T, D] on `keys_values` -> what is added to it; by: in place of `seeing` under the mask."""
        by = by or seeing(mask)
        return self.leave(by(self.queries(x), k, v))


class FeedForward(nn.Module):
    """GEGLU feed-forward (arXiv 2002.05202): the second half of the projection is the gate."""

    def __init__(self, dim: int, inner: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.up = nn.Linear(dim, 2 * inner)
        self.down = nn.Linear(inner, dim)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(self.norm(x)).chunk(2, dim=-1)
        hidden = F.gelu(gate) * value
        if self.training and self.dropout:
            # one mask for all rows of the batch: random numbers are dear on a CPU
            keep = torch.rand(hidden.shape[1:], device=hidden.device) >= self.dropout
            hidden = hidden * (keep.to(hidden.dtype) / (1 - self.dropout))
        return self.down(hidden)
