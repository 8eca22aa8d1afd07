"""The local attention between SoundStream's convolutions and its quantiser.

A frame sees itself and the `window` frames before it. Queries and keys are normalised (cosines times 8 and a gain);
their rotary positions also let scores decay with distance (xPos, arXiv 2212.10554). Frames are taken in buckets of
`window`, each with the bucket before it, so the cost grows with the length and not with its square.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.models.soundstream.config import SoundStreamConfig
from spear_spec.nn.transformer import Layers

SCALE = 8.0
THETA = 10000.0


class LocalAttention(nn.Module):
    """Causal attention within a window; each head's output is gated by a sigmoid of the frame."""

    def __init__(self, cfg: SoundStreamConfig) -> None:
        super().__init__()
        self.heads, self.window, self.decay = cfg.heads, cfg.window, cfg.decay
        wide = cfg.heads * cfg.dim_head
        self.norm = nn.LayerNorm(cfg.dim)
        self.to_qkv = nn.Linear(cfg.dim, 3 * wide, bias=False)
        self.q_gain = nn.Parameter(torch.ones(cfg.dim_head))
        self.k_gain = nn.Parameter(torch.ones(cfg.dim_head))
        self.gate = nn.Linear(cfg.dim, cfg.heads)
        self.to_out = nn.Linear(wide, cfg.dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> what is added to it."""
        length, window = x.shape[1], self.window
        x = self.norm(x)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.to_qkv(x).chunk(3, -1))
        q, k = F.normalize(q, dim=-1) * self.q_gain, F.normalize(k, dim=-1) * self.k_gain
        q, k, v = (self._buckets(part) for part in (q, k, v))
        before = F.pad(torch.stack((k, v))[:, :, :, :-1], (0, 0, 0, 0, 1, 0))  # the first has none
        k, v = torch.cat((before, torch.stack((k, v))), -2)
        angles, decay = self._places(q)
        q = _turned(q, angles[window:]) * decay[window:]
        k = _turned(k, angles) / decay
        scores = (SCALE * q @ k.transpose(-1, -2)).masked_fill(~self._seen(q.shape[2], q.device), -torch.inf)
        seen = (scores.softmax(-1) @ v).flatten(2, 3)[:, :, :length]
        seen = seen * self.gate(x).transpose(1, 2)[..., None].sigmoid()
        return self.to_out(seen.transpose(1, 2).flatten(2))

    def _buckets(self, x: Tensor) -> Tensor:
        """[B, H, T, d] -> [B, H, buckets, window, d], zeros behind the end: none of the frames sees them."""
        return F.pad(x, (0, 0, 0, -x.shape[2] % self.window)).unflatten(2, (-1, self.window))

    def _places(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Angles and decay of the places of two buckets [2 * window, d]."""
        dim = like.shape[-1]
        pair = torch.arange(0, dim, 2, device=like.device, dtype=torch.float32)
        place = torch.arange(2 * self.window, device=like.device, dtype=torch.float32)[:, None]
        angles = place / THETA ** (pair / dim)
        decay = ((pair + 0.4 * dim) / (1.4 * dim)) ** ((place - self.window) / self.decay)
        return torch.cat((angles, angles), -1).to(like.dtype), torch.cat((decay, decay), -1).to(like.dtype)

    def _seen(self, buckets: int, device: torch.device) -> Tensor:
        """Which of two buckets a frame sees: [buckets, window, 2 * window]; the first bucket has none before it."""
        here = torch.arange(self.window, device=device)[:, None] + self.window
        there = torch.arange(2 * self.window, device=device)
        near = (there <= here) & (there >= here - self.window)
        there = there + self.window * torch.arange(buckets, device=device)[:, None, None]
        return near & (there >= self.window)


class FeedForward(nn.Module):
    """GEGLU."""

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * inner, bias=False)
        self.down = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> what is added to it."""
        value, gate = self.up(self.norm(x)).chunk(2, -1)
        return self.down(value * F.gelu(gate))


class LocalLayer(nn.Module):
    """Attention and feed-forward."""

    def __init__(self, cfg: SoundStreamConfig) -> None:
        super().__init__()
        self.attn = LocalAttention(cfg)
        self.ff = FeedForward(cfg.dim, cfg.inner)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.ff(x)


class LocalTransformer(nn.Module):
    """Frames [B, T, D] -> the same; without layers, as they are."""

    def __init__(self, cfg: SoundStreamConfig) -> None:
        super().__init__()
        self.layers = Layers(LocalLayer(cfg) for _ in range(cfg.depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Pairs (i, i + d / 2) of x [..., d] turned by their angles."""
    one, two = x.chunk(2, -1)
    return x * angles.cos() + torch.cat((-two, one), -1) * angles.sin()
