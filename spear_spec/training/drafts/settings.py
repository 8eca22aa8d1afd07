"""Settings of a draft's training."""

from __future__ import annotations

from dataclasses import dataclass

from spear_spec.config import Strict
from spear_spec.errors import ConfigError

LOSSES = ("ce", "kl", "tv", "mixed", "ce_tv", "lk")


@dataclass(frozen=True)
class DraftTraining(Strict):
    """Settings of a run; see RESULTS for what they gave.

    loss: "ce" (the target's token), "kl" (its law), "tv" (1 - sum min(p, q), the rate of rejection itself, at
    `temperature`), "mixed" (kl, and in the second half of the run a share `overlap_weight` of tv), "ce_tv" (.1 ce +
    .9 tv: DSpark, arXiv 2607.05147), or "lk" (-log sum min(p, q) and kl, both at `temperature`, mixed by how far the
    draft has come: after arXiv 2602.23881). stride: a block decoder is asked for a block behind one position of so
    many, each step behind others.
    """

    steps: int = 1200
    minutes: float = 0.0
    batch_tokens: int = 4000
    lr: float = 1e-3
    lr_floor: float = 0.02
    warmup: int = 50
    weight_decay: float = 0.01
    rollout: int = 4
    rollout_decay: float = 0.9
    loss: str = "mixed"
    overlap_weight: float = 0.5
    temperature: float = 0.8
    stride: int = 4
    ema: float = 0.995
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_tokens < 1 or self.stride < 1:
            raise ConfigError("steps, batch_tokens and stride must be above 0")
        if self.loss not in LOSSES:
            raise ConfigError(f"loss must be {', '.join(LOSSES)}, not {self.loss!r}")
