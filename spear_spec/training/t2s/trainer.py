"""Train the text-to-semantic transformer.

Left alone, the decoder learns to babble fluently and to ignore its text. Three things make it listen: the raw scores of
a few cross-attention heads are pulled to the phoneme being spoken, a linear head on the encoder predicts the token of
each phoneme, and part of the decoder's own past is masked. The TEXT GAP in the log (NLL with another sentence's text
minus NLL with the right one) says whether it does; the loss does not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spear_spec.config import Clock, T2SConfig
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.checkpoint import Work, restore, save_export
from spear_spec.training.data.utterances import IGNORE, Utterance
from spear_spec.training.loop import Run, carry_out
from spear_spec.training.optimise import adamw, clip_and_step, copy_weights, follow, learning_rate
from spear_spec.training.precision import mixed
from spear_spec.training.t2s.batches import Batch, batches, history_mask
from spear_spec.training.t2s.joint import Joint, same_joint
from spear_spec.training.t2s.settings import T2STraining
from spear_spec.training.t2s.trainee import Trainee, evaluate
from spear_spec.voice.bundle import Bundle


class T2SLearner:
    """A transformer, its running mean, its optimiser and the heads that are trained along; see `loop.Learner`."""

    def __init__(
        self,
        data: Sequence[Utterance],
        held_out: Sequence[Utterance],
        shape: T2SConfig,
        cfg: T2STraining,
        *,
        space: int,
        clock: Clock,
        device: str | torch.device,
        start: Bundle | None,
    ) -> None:
        torch.manual_seed(cfg.seed)
        model = TextToSemantic(shape, dropout=cfg.dropout)
        nn.init.normal_(model.semantic_emb.weight, std=shape.dim**-0.5)
        nn.init.normal_(model.text_emb.weight, std=1.0)
        if start is not None:
            start.load_into(model, "t2s").train().requires_grad_(True)
        self.data, self.held_out, self.cfg, self.space, self.clock = data, held_out, cfg, space, clock
        self.model, self.trainee, self.device = model, Trainee(model).to(device), torch.device(device)
        self.ema, self.optimizer = copy_weights(model), adamw(self.trainee, cfg.lr, cfg.weight_decay)
        self.joint = None if cfg.joint == "none" else Joint(cfg, model, device)
        self.tokens = 0
        self.stream: Iterator[Batch] = iter(())

    def load(self, state: Mapping[str, Any], checkpoint: Path) -> None:
        same_joint(self.joint, state, checkpoint)
        restore(self.trainee, state["trainee"], checkpoint)
        if self.joint is not None:
            self.joint.load(state["joint"], checkpoint)
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = {k: v.to(self.device) for k, v in state["ema"].items()}
        self.tokens = state["tokens"]

    def begin(self, step: int) -> None:
        torch.manual_seed(self.cfg.seed + step)
        model, rng = self.model, random.Random(self.cfg.seed + step)
        self.stream = batches(self.data, self.cfg, model.start_id, model.eos_id, self.space, rng, clock=self.clock)

    def learn(self, step: int, progress: float, shared: Any) -> Mapping[str, Tensor | float]:
        cfg = self.cfg
        rate = learning_rate(step, progress, peak=cfg.lr, floor=cfg.lr_floor, warmup=cfg.warmup)
        drawn = next(self.stream)
        self.tokens += int((drawn.target != IGNORE).sum())
        no_text = torch.rand(len(drawn.tokens)) < cfg.no_text
        masked = history_mask(drawn, cfg, progress) & ~no_text[:, None]
        hook = None if self.joint is None else self.joint.hook(progress)
        batch, layers = drawn.to(self.device), (cfg.align_layers, cfg.align_heads)
        with mixed(self.device):
            losses = self.trainee(batch, masked.to(self.device), no_text.to(self.device), layers, hook)
        align_weight = cfg.align_floor + (cfg.align_weight - cfg.align_floor) * max(0.0, 1 - progress / 0.6)
        loss = losses["nll"] + align_weight * losses.get("align", 0) + cfg.auxiliary_weight * losses["auxiliary"]
        if self.joint is not None:
            loss = loss + losses["joint"]
        loss.backward()
        clip_and_step(self.trainee, self.optimizer, rate)
        if self.joint is not None:
            self.joint.update(rate, step + 1)
        follow(self.ema, self.model, cfg.ema, step + 1)
        return losses

    def report(self, progress: float) -> Mapping[str, Any]:
        found = evaluate(self.trainee, self.held_out, None if self.joint is None else self.joint.hook(progress))
        return {"tokens": self.tokens, **{key: round(value, 4) for key, value in found.items()}}

    def state(self) -> Mapping[str, Any]:
        return {
            "trainee": self.trainee.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "tokens": self.tokens,
            **({} if self.joint is None else {"joint": self.joint.state()}),
        }

    def export(self, work: Work, about: Mapping[str, Any]) -> None:
        about = {"training": self.cfg.to_dict(), **about}
        save_export(work.export, "t2s", {"t2s": self.model.cfg.to_dict(), **about}, self.ema)
        if self.joint is not None:
            self.joint.export(work.joint, about)


def train_t2s(
    data: Sequence[Utterance],
    held_out: Sequence[Utterance],
    shape: T2SConfig,
    cfg: T2STraining,
    out: Path,
    *,
    space: int,
    clock: Clock,
    device: str | torch.device = "cpu",
    every: int = 100,
    progress_bar: bool = True,
    start: Bundle | None = None,
) -> TextToSemantic:
    """Train (or go on from the checkpoint in `out`) and leave an export in half precision, and one of the heads that
    were trained along, if any; see `Work`.

    Args:
        space: text id of the blank, which joins clips. every: steps between two reports on `held_out`.
        start: a voice whose transformer is gone on from; a checkpoint that is there already goes before.

    Returns:
        The model with the mean of its weights.

    Raises:
        SpearSpecError: the checkpoint or the voice belongs to another model.
    """
    learner = T2SLearner(data, held_out, shape, cfg, space=space, clock=clock, device=device, start=start)
    carry_out([Run("t2s", learner, out, steps=cfg.steps, minutes=cfg.minutes, every=every)], progress=progress_bar)
    learner.model.load_state_dict(learner.ema)
    return learner.model.eval()
