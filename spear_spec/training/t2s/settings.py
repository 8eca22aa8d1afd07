"""Settings of the text-to-semantic transformer's training."""

from __future__ import annotations

from dataclasses import dataclass

from spear_spec.config import Strict
from spear_spec.errors import ConfigError

JOINT = ("none", "medusa", "prophet")


@dataclass(frozen=True)
class T2STraining(Strict):
    """Settings that worked on one CPU core (see RESULTS).

    minutes: if set, the schedule also ends after this much training time. joint: heads that are trained along with the
    target (see joint.py): "none", "medusa" or "prophet". joint_steps: how many tokens they look ahead. The k-th one's
    loss counts joint_weight x joint_decay^k. joint_warmup: share of the run during which they learn on a detached
    state.
    """

    steps: int = 3000
    minutes: float = 0.0
    batch_tokens: int = 4000
    lr: float = 8e-4
    lr_floor: float = 0.02
    warmup: int = 300
    weight_decay: float = 0.01
    dropout: float = 0.1
    align_weight: float = 1.0
    align_floor: float = 0.1
    auxiliary_weight: float = 0.5
    align_layers: tuple[int, ...] = (1, 2)
    align_heads: int = 2
    history_max: float = 0.9
    history_all: float = 0.1
    history_max_late: float = 0.3
    no_text: float = 0.1
    join_share: float = 0.25
    join_seconds: float = 20.0
    ema: float = 0.999
    seed: int = 0
    joint: str = "none"
    joint_weight: float = 0.2
    joint_decay: float = 0.8
    joint_steps: int = 4
    joint_warmup: float = 0.1

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_tokens < 1:
            raise ConfigError("steps and batch_tokens must be above 0")
        if self.joint not in JOINT:
            raise ConfigError(f"joint must be {', '.join(JOINT[:-1])} or {JOINT[-1]}, not {self.joint!r}")
        if not isinstance(self.joint_steps, int) or isinstance(self.joint_steps, bool) or self.joint_steps < 1:
            raise ConfigError(f"joint_steps must be a whole number above 0, not {self.joint_steps!r}")
        if self.joint_weight <= 0 or not 0 < self.joint_decay <= 1 or not 0 <= self.joint_warmup <= 1:
            raise ConfigError(
                "joint_weight must be above 0, joint_decay above 0 and at most 1, joint_warmup 0 to 1 "
                "(1: the target never feels the heads)"
            )
