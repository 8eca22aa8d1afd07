"""Medusa heads: several tokens ahead from one hidden state (arXiv 2401.10774)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.config import Strict
from spear_spec.errors import ConfigError
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
        for name in ("dim", "heads", "inner"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"{name} must be a whole number above 0, not {value!r}")
        paths = [tuple(path) for path in self.tree]
        object.__setattr__(self, "tree", tuple(paths))
        known: set[tuple[int, ...]] = {()}
        for path in paths:
            if not 1 <= len(path) <= self.heads or any(not isinstance(rank, int) or rank < 0 for rank in path):
                raise ConfigError(f"tree: {list(path)} is no path of ranks for {self.heads} heads")
            if path[:-1] not in known:
                raise ConfigError(f"tree: {list(path)} stands before what it follows")
            known.add(path)


class MedusaHeads(nn.Module):
    """K residual blocks on the target's last hidden state; all share the target's head.

    The hidden state at position i gives the law of token i + 1 by the target itself, and that of token i + 1 + k by
    head k
    (1 to K). A head does not see the tokens between.
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
