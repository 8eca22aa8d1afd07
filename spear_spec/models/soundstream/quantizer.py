"""A residual quantiser (SoundStream, arXiv 2107.03312, algorithm 1): each codebook names what those before it left."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEAST = 1e-8


class ResidualQuantizer(nn.Module):
    """groups: parts of a frame, each with quantizers of its own; codes stand group by group."""

    def __init__(self, dim: int, codebook: int, quantizers: int, groups: int = 1) -> None:
        super().__init__()
        self.codebooks = nn.Parameter(torch.zeros(groups, quantizers, codebook, dim // groups))

    def encode(self, x: Tensor) -> Tensor:
        """Frames x [B, T, D] -> codes int64 [B, T, groups * quantizers], the nearest each time.

        Distances are computed in the package's way: rounding decides between codes that are almost as near.
        """
        groups, quantizers = self.codebooks.shape[:2]
        left = x.unflatten(-1, (groups, -1))
        codes = []
        for group in range(groups):
            rest = left[..., group, :]
            for book in self.codebooks[group, :quantizers]:
                far = rest.pow(2).sum(-1, keepdim=True) + book.pow(2).sum(1) - 2 * (rest @ book.t())
                nearest = far.clamp_min(_LEAST).sqrt().argmin(-1)
                rest = rest - book[nearest]
                codes.append(nearest)
        return torch.stack(codes, -1)

    def decode(self, codes: Tensor) -> Tensor:
        """Codes [B, T, C] -> frames [B, T, D]; C may be less than there are where there is one group."""
        groups, quantizers, _, _ = self.codebooks.shape
        parts = codes.unflatten(-1, (groups, -1))
        found = [
            torch.stack([self.codebooks[group, at][parts[..., group, at]] for at in range(parts.shape[-1])]).sum(0)
            for group in range(groups)
        ]
        return torch.cat(found, -1)
