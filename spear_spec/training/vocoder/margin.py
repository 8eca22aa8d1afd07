"""The loss that lets speakers part: additive angular margin softmax (ArcFace; Deng et al. 2019, arXiv:1801.07698)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MarginLoss(nn.Module):
    """Embeddings of unit length [B, D] and speakers [B] to a loss. Each speaker has a direction of its own; the angle
    to the right one is made larger by `margin` before the softmax over `scale` times the cosines.

    Beyond pi - margin, where the cosine of the enlarged angle would rise again, cos - margin sin(margin) stands for it.
    """

    def __init__(self, dim: int, speakers: int, margin: float = 0.2, scale: float = 20.0) -> None:
        super().__init__()
        self.directions = nn.Parameter(F.normalize(torch.randn(speakers, dim)))
        self.margin, self.scale = margin, scale

    def forward(self, embedding: Tensor, speaker: Tensor) -> Tensor:
        """Mean loss, a scalar."""
        cosine = embedding @ F.normalize(self.directions).t()
        right = cosine.gather(1, speaker[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        sine = (1 - right.square()).sqrt()
        moved = right * math.cos(self.margin) - sine * math.sin(self.margin)
        moved = torch.where(right > math.cos(math.pi - self.margin), moved, right - self.margin * math.sin(self.margin))
        return F.cross_entropy(self.scale * cosine.scatter(1, speaker[:, None], moved), speaker)
