"""Train the text-to-semantic transformer.

Left alone, the decoder learns to babble fluently and to ignore its text. Three things make it listen: the raw scores of
a few cross-attention heads are pulled to the phoneme being spoken, a linear head on the encoder predicts the token of
each phoneme, and part of the decoder's own past is masked. The TEXT GAP in the log (NLL with another sentence's text
minus NLL with the right one) says whether it does; the loss does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spear_spec.config import Clock, T2SConfig
from spear_spec.errors import ConfigError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.checkpoint import Work, restore, save_export
from spear_spec.training.data.utterances import IGNORE, Utterance
from spear_spec.training.loop import Run, carry_out
from spear_spec.training.optimise import adamw, clip_and_step, copy_weights, follow, learning_rate
from spear_spec.training.order import Order, chance, seed_of
from spear_spec.training.precision import mixed
from spear_spec.training.processes import Processes
from spear_spec.training.t2s.batches import Share, collate, groups, history_mask
from spear_spec.training.t2s.begin import begin_with
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
        front: PhonemeTokenizer | None = None,
        processes: Processes | None = None,
    ) -> None:
        torch.manual_seed(cfg.seed)
        model = TextToSemantic(shape, dropout=cfg.dropout)
        nn.init.normal_(model.semantic_emb.weight, std=shape.dim**-0.5)
        nn.init.normal_(model.text_emb.weight, std=1.0)
        if start is not None:
            begin_with(model, start, front)
        self.held_out, self.cfg = held_out, cfg
        self.together = processes or Processes(device)
        self.model, self.trainee, self.device = model, Trainee(model).to(device), torch.device(device)
        self.passing = self.together.wrap(self.trainee)
        self.order = Order(lambda rng: groups(data, cfg, space, rng, clock=clock), cfg.seed)
        self.ema, self.optimizer = copy_weights(model), adamw(self.trainee, cfg.lr, cfg.weight_decay)
        self.joint = None if cfg.joint == "none" else Joint(cfg, model, device)
        if self.joint is not None and self.together.count > 1:
            raise ConfigError("joint heads are trained in one process: start one, or set t2s.training.joint to none")
        self.tokens = 0

    def load(self, state: Mapping[str, Any], checkpoint: Path) -> None:
        same_joint(self.joint, state, checkpoint)
        restore(self.trainee, state["trainee"], checkpoint)
        if self.joint is not None:
            self.joint.load(state["joint"], checkpoint)
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = {k: v.to(self.device) for k, v in state["ema"].items()}
        self.tokens = state["tokens"]
        if "order" in state:  # checkpoints of before have none: the epochs are counted anew
            self.order.load(state["order"])

    def begin(self, step: int) -> None:
        """Every step draws by its own number."""

    def share(self, step: int, progress: float) -> Share:
        """What this process learns from in a step. The whole batch and its masks are drawn by all of them alike."""
        cfg, model, draws = self.cfg, self.model, chance(self.cfg.seed, "masks", step)
        drawn = collate(self.order[step], model.start_id, model.eos_id)
        self.tokens += int((drawn.target != IGNORE).sum())
        no_text = torch.rand(len(drawn.tokens), generator=draws) < cfg.no_text
        masked = history_mask(drawn, cfg, progress, draws) & ~no_text[:, None]
        return Share(drawn, masked, no_text).of(self.together.rank, self.together.count, model.eos_id)

    def learn(self, step: int, progress: float, shared: Any) -> Mapping[str, Tensor | float]:
        cfg = self.cfg
        rate = learning_rate(step, progress, peak=cfg.lr, floor=cfg.lr_floor, warmup=cfg.warmup)
        mine = self.share(step, progress).to(self.device)
        hook = None if self.joint is None else self.joint.hook(progress)
        layers = (cfg.align_layers, cfg.align_heads)
        torch.manual_seed(seed_of(cfg.seed, "dropout", step, self.together.rank))
        with mixed(self.device):
            losses = self.passing(mine.batch, mine.masked, mine.no_text, layers, hook, mine.counts)
        if self.together.count > 1:  # a share's part of the whole mean; the gradients' mean is taken over the processes
            losses = {key: value if key == "accuracy" else value * self.together.count for key, value in losses.items()}
        align_weight = cfg.align_floor + (cfg.align_weight - cfg.align_floor) * max(0.0, 1 - progress / 0.6)
        loss = losses["nll"] + align_weight * losses.get("align", 0) + cfg.auxiliary_weight * losses["auxiliary"]
        if self.joint is not None:
            loss = loss + losses["joint"]
        loss.backward()
        clip_and_step(self.trainee, self.optimizer, rate)
        if self.joint is not None:
            self.joint.update(rate, step + 1)
        follow(self.ema, self.model, cfg.ema, step + 1)
        return self.together.mean(losses)

    def report(self, progress: float) -> Mapping[str, Any]:
        found = evaluate(self.trainee, self.held_out, None if self.joint is None else self.joint.hook(progress))
        return {"tokens": self.tokens, **{key: round(value, 4) for key, value in found.items()}}

    def state(self) -> Mapping[str, Any]:
        return {
            "trainee": self.trainee.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema,
            "tokens": self.tokens,
            "order": self.order.state(),
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
    save_s: float = 0.0,
    start: Bundle | None = None,
    front: PhonemeTokenizer | None = None,
    processes: Processes | None = None,
) -> TextToSemantic:
    """Train (or go on from the checkpoint in `out`) and leave an export in half precision, and one of the heads that
    were trained along, if any; see `Work`.

    Args:
        space: text id of the blank, which joins clips. every: steps between two reports on `held_out`.
        save_s: seconds between two checkpoints (0: one with each report).
        processes: those that train together, each on its own device (`find_processes`); a batch is all of theirs.
        start: a voice whose transformer is gone on from; a checkpoint that is there already goes before. front: of the
            text here, where its speakers are others than the voice's.

    Returns:
        The model with the mean of its weights.

    Raises:
        SpearSpecError: the checkpoint or the voice belongs to another model.
    """
    together = processes or Processes(device)
    learner = T2SLearner(
        data, held_out, shape, cfg, space=space, clock=clock, device=together.device, start=start, front=front,
        processes=together,
    )  # fmt: skip
    run = Run("t2s", learner, out, steps=cfg.steps, minutes=cfg.minutes, every=every, save_s=save_s, main=together.main)
    carry_out([run], progress=progress_bar, processes=together)
    learner.model.load_state_dict(learner.ema)
    return learner.model.eval()
