"""What every trainer of a transformer here shares: its optimiser, and the running mean of its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def adamw(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices alone: gains and biases keep their size."""
    groups = [
        {"params": [p for p in module.parameters() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in module.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


def copy_weights(module: nn.Module) -> dict[str, Tensor]:
    """The weights as they are now."""
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


@torch.no_grad()
def follow(mean: dict[str, Tensor], module: nn.Module, decay: float, step: int) -> None:
    """Move a running mean towards the weights after step `step` (1 is the first); it is short-lived in the
    beginning.
    """
    now = module.state_dict()
    torch._foreach_lerp_(list(mean.values()), [now[k] for k in mean], 1 - min(decay, step / (step + 10)))
