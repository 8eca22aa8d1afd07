"""Medusa heads: several tokens ahead from one hidden state (arXiv 2401.10774)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.config import MOST_IDS, WIDEST, Strict, require, shown, whole, wholes
from spear_spec.nn.attention import RMSNorm


@dataclass(frozen=True)
class MedusaConfig(Strict):
    """heads: how many tokens ahead; inner: width of each head's residual block.

    tree: the sparse tree that was found on development data, best nodes first, as paths of ranks: [0, 2] is the third
    choice of the second head behind the first choice of the first.
    """

    dim: int
    heads: int = 8
    inner: int = 256
    tree: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        for name, most in (("dim", WIDEST), ("heads", 64), ("inner", WIDEST)):
            whole(name, getattr(self, name), 1, most)
        require(isinstance(self.tree, tuple) and len(self.tree) <= 4096, "tree must be a list of at most 4096 paths")
        known: set[tuple[int, ...]] = {()}
        for path in self.tree:
            ranks = tuple(path) if isinstance(path, list) else path
            wholes("tree: a path", ranks, 0, MOST_IDS, self.heads)
            require(len(ranks) > 0 and ranks[:-1] in known, f"tree: {shown(ranks)} stands before what it follows")
            require(ranks not in known, f"tree: {shown(ranks)} is there twice")
            known.add(ranks)
        object.__setattr__(self, "tree", tuple(tuple(path) for path in self.tree))


class MedusaHeads(nn.Module):
    """K residual blocks on the target's last hidden state; all share the target's head.

    The hidden state at position i gives the law of token i + 1 by the target itself, and that of token i + 1 + k by
    head k (1 to K). A head does not see the tokens between.
    """

    def __init__(self, cfg: MedusaConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.norm = RMSNorm(cfg.dim)
        self.up = nn.Parameter(torch.randn(cfg.heads, cfg.dim, cfg.inner) * cfg.dim**-0.5)
        self.up_bias = nn.Parameter(torch.zeros(cfg.heads, 1, cfg.inner))
        self.down = nn.Parameter(torch.zeros(cfg.heads, cfg.inner, cfg.dim))  # a new head says what the target says
        self.out_norm = RMSNorm(cfg.dim)

    def forward(self, hidden: Tensor, heads: int | None = None) -> Tensor:
        """hidden [N, D] after the target's last norm -> [K, N, D], ready for the target's head; heads: only the
        first so many.
        """
        count = self.cfg.heads if heads is None else heads
        x = self.norm(hidden).expand(count, -1, -1)
        grown = F.silu(torch.baddbmm(self.up_bias[:count], x, self.up[:count]))
        return self.out_norm(hidden + torch.bmm(grown, self.down[:count]))
