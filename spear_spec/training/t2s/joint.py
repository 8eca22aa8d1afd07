"""Heads that look further ahead and are trained together with the target: the joint recipe.

medusa: heads on the last hidden state, as Medusa-2 (arXiv 2401.10774). prophet: the next n tokens from the target's
last feature by a small decoder (ProphetNet, arXiv 2001.04063, in the form of lucidrains/speculative-decoding). Both use
the target's embedding and head. The heads first learn on a detached state; then their loss reaches the whole target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.config import DraftConfig
from spear_spec.errors import ConfigError
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.medusa import MedusaConfig, MedusaHeads
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.ahead import later, run_ahead, shift
from spear_spec.training.checkpoint import restore, save_export
from spear_spec.training.data.utterances import IGNORE
from spear_spec.training.optimise import adamw, clip_and_step, copy_weights, follow
from spear_spec.training.t2s.settings import T2STraining
from spear_spec.training.t2s.trainee import View


def _loss(hidden: Tensor, goal: Tensor, table: Tensor) -> Tensor:
    """Mean cross-entropy of hidden [B, T, D] on goal [B, T] where that is a token; utterances may all be too short for
    it: 0 then, not NaN.
    """
    logits, goal = F.linear(hidden, table).float().flatten(0, 1), goal.masked_fill(goal < 0, IGNORE).flatten()
    total = F.cross_entropy(logits, goal, ignore_index=IGNORE, reduction="sum")
    return total / (goal != IGNORE).sum().clamp(min=1)


def medusa_losses(heads: MedusaHeads, view: View) -> list[Tensor]:
    """Loss of each head: position i predicts token i + 1 by the target itself and token i + 1 + k by head k."""
    ahead = heads(view.hidden.flatten(0, 1)).unflatten(1, view.target.shape)
    return [_loss(x, later(view.target, k, IGNORE), view.table) for k, x in enumerate(ahead, 1)]


def prophet_losses(draft: DraftDecoder, view: View, steps: int) -> list[Tensor]:
    """Loss of each step of a window that opens at every position.

    Window i starts empty. It reads token i with the feature of the position that predicted it, then the true tokens
    that follow, each with its own last output in place of the feature; its first step predicts token i + 1.
    """
    fed = shift(draft.fuse_target([view.feature]))  # nothing predicted the start token
    losses = []
    for step, x in enumerate(run_ahead(draft, view.embedded, fed, view.memory, view.cross_mask, steps)):
        losses.append(_loss(draft.norm(x), later(view.target, step, IGNORE), view.table))
    return losses


class Joint:
    """The heads of one run, with an optimizer and a moving average of their own.

    Nothing of the target's own step depends on them but the gradient of their loss: its clipping, its random numbers
    and its optimizer are as in a run without heads, so that such runs can be compared.
    """

    def __init__(self, cfg: T2STraining, model: TextToSemantic, device: str | torch.device = "cpu") -> None:
        dim, heads = model.cfg.dim, model.cfg.heads
        self.cfg, self.name = cfg, cfg.joint
        self.shape: MedusaConfig | DraftConfig
        self.module: MedusaHeads | DraftDecoder
        if cfg.joint == "medusa":
            self.shape = MedusaConfig(dim, cfg.joint_steps, inner=dim)
            self.module = MedusaHeads(self.shape)
        else:
            self.shape = DraftConfig(
                dim, 1, heads, model.cfg.dim_head, ff_mult=2, target_layers=(model.cfg.target_depth,), window=True
            )
            self.module = DraftDecoder(self.shape, model.cfg)
        self.module.to(device)
        self.ema, self.optimizer = copy_weights(self.module), adamw(self.module, cfg.lr, cfg.weight_decay)

    def hook(self, progress: float) -> Callable[[View], dict[str, Tensor]]:
        """What the target's forward calls at this share of the run; "joint" is what is added to its loss."""

        def losses(view: View) -> dict[str, Tensor]:
            if progress < self.cfg.joint_warmup:
                view = view.detach()
            if isinstance(self.module, MedusaHeads):
                each = medusa_losses(self.module, view)
            else:
                each = prophet_losses(self.module, view, self.cfg.joint_steps)
            total = sum(
                (self.cfg.joint_decay**k * loss for k, loss in enumerate(each, 1)),
                torch.zeros((), device=view.table.device),
            )
            return {
                "joint": self.cfg.joint_weight * total,
                **{f"joint_{k}": loss.detach() for k, loss in enumerate(each, 1)},
            }

        return losses

    def update(self, lr: float, step: int) -> None:
        """One step of the heads on the gradient that the shared backward pass left; step counts from 1."""
        clip_and_step(self.module, self.optimizer, lr)
        follow(self.ema, self.module, self.cfg.ema, step)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "name": self.name,
            "shape": self.shape.to_dict(),
            "heads": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
        }

    def load(self, state: Mapping[str, Any], checkpoint: Path) -> None:
        """Go on from `state`, which `same_joint` has passed."""
        restore(self.module, state["heads"], checkpoint)
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = {k: v.to(self.ema[k].device) for k, v in state["ema"].items()}

    def export(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Write folder/{name.json,name.safetensors} in half precision: the averaged heads, as a drafter of a voice."""
        save_export(folder, self.name, {self.name: self.shape.to_dict(), **about}, self.ema)


def same_joint(joint: Joint | None, state: Mapping[str, Any], checkpoint: Path) -> None:
    """A run goes on with the heads that it began with.

    Raises:
        ConfigError: the checkpoint has other heads, or none where there should be some.
    """
    known = state.get("joint")
    before = "none" if known is None else known["name"]
    now = "none" if joint is None else joint.name
    if before != now:
        raise ConfigError(
            f"{checkpoint} was trained with joint = {before}, not {now}: name another folder, or go on with {before}"
        )
    if joint is not None and known is not None and known["shape"] != joint.shape.to_dict():
        raise ConfigError(
            f"{checkpoint} has heads of another shape ({known['shape']}): name another folder, "
            "or set joint_steps as it was"
        )
