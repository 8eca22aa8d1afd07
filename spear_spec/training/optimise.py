"""What the trainers share: the optimiser, its learning rate, and the running mean of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def adamw(module: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW that decays matrices alone: gains and biases keep their size."""
    groups = [
        {"params": [p for p in module.parameters() if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in module.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


def learning_rate(step: int, progress: float, *, peak: float, floor: float, warmup: int) -> float:
    """Of step `step` (0 is the first): a linear rise over `warmup` steps under a half cosine from 1 to `floor`."""
    return (
        peak
        * min(1.0, (step + 1) / warmup)
        * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let every parameter learn at this rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def clip_and_step(module: nn.Module, optimizer: torch.optim.Optimizer, rate: float, most: float = 1.0) -> Tensor:
    """Update on the gradients that are there, their norm cut to `most`, and forget them; the norm before."""
    norm = nn.utils.clip_grad_norm_(module.parameters(), most)
    set_rate(optimizer, rate)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


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
