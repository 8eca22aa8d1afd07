"""Train drafts on the finished target's own samples: decoders of every kind and Medusa heads, several at once.

The target's features and laws are computed once for each utterance; then the drafts alone are trained. One that is fed
with its own output learns on several steps of its own roll-out (after EAGLE-3, arXiv 2503.01840), so that its guesses
hardly get worse with depth.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spear_spec.config import SamplingConfig, T2SConfig
from spear_spec.decoding import DRAFTERS
from spear_spec.decoding.sampling import probabilities
from spear_spec.models.drafts.block import BlockDecoder
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.checkpoint import Work, load_export, restore, save_export
from spear_spec.training.data.utterances import IGNORE
from spear_spec.training.drafts.blocks import block_loss
from spear_spec.training.drafts.losses import Judge, followed
from spear_spec.training.drafts.observed import DraftBatch, Seen, collate, groups
from spear_spec.training.drafts.rollout import says
from spear_spec.training.drafts.settings import DraftTraining
from spear_spec.training.loop import Run, carry_out
from spear_spec.training.optimise import adamw, clip_and_step, copy_weights, follow, learning_rate
from spear_spec.training.order import Order
from spear_spec.training.precision import mixed
from spear_spec.voice.bundle import Bundle
from spear_spec.voice.drafts import build_draft


def draft_shapes(target: T2SConfig, *, ff_mult: int = 2, exit_layer: int = 2) -> dict[str, dict[str, Any]]:
    """The shape of every draft that is trained for a target of this shape, by the drafter's name."""
    sizes = {"ff_mult": ff_mult, "exit_layer": exit_layer}
    known = {name: kind.trained.shape for name, kind in DRAFTERS.items() if kind.trained is not None}
    return {name: shape(target, sizes) for name, shape in known.items() if shape is not None}


def acceptance(
    target: Tensor, logits: Sequence[tuple[int, Tensor]], valid: Tensor, sampling: SamplingConfig
) -> list[float]:
    """Exact acceptance sum min(p, q) at each depth, under the laws that decoding uses."""
    p = probabilities(target[valid], sampling)
    rates = []
    for first, q in logits:
        later = valid.clone()
        later[:, :first] = False
        rates.append(torch.minimum(p[later[valid]], probabilities(q[later], sampling)).sum(-1).mean().item())
    return rates


def tokens_per_call(rates: list[float], gamma: int) -> float:
    """Expected tokens a call when acceptance at depth i is rates[i] (the last rate goes on)."""
    total, alive = 1.0, 1.0
    for depth in range(gamma):
        alive *= rates[min(depth, len(rates) - 1)]
        total += alive
    return total


@torch.no_grad()
def evaluate(
    draft: nn.Module, model: TextToSemantic, held_out: Sequence[Seen], laws: Sequence[SamplingConfig], steps: int = 5
) -> dict[str, list[float]]:
    """Acceptance by depth on held-out utterances for each sampling law."""
    draft.eval()
    sums: dict[str, list[float]] = {}
    count = 0
    for i in range(0, len(held_out), 16):
        batch = collate(held_out[i : i + 16]).to(model.device)
        logits = says(draft, model, batch, steps)
        target = model.logits(batch.hidden)
        n = int(batch.valid.sum())
        for law in laws:
            rates = acceptance(target, logits, batch.valid, law)
            key = f"T={law.temperature:g} top_p={law.top_p:g}"
            sums[key] = [a + n * b for a, b in zip(sums.get(key, [0.0] * len(rates)), rates)]
        count += n
    draft.train()
    return {k: [round(x / count, 4) for x in v] for k, v in sums.items()}


def loss_of(
    draft: nn.Module,
    model: TextToSemantic,
    batch: DraftBatch,
    law: Tensor,
    cfg: DraftTraining,
    progress: float,
    step: int = 0,
) -> Tensor:
    """The loss of one batch; law [N, V]: the target's logits at its valid positions; step: of the run."""
    judge, following = Judge(law, cfg, progress), followed(batch.tokens, batch.valid)
    if isinstance(draft, BlockDecoder):
        return block_loss(draft, model, batch, judge, following[batch.valid], cfg, step)
    with mixed(model.device):
        logits = says(draft, model, batch, cfg.rollout)
    loss, norm = law.new_zeros(()), 0.0
    for depth, (first, all_logits) in enumerate(logits):
        later = batch.valid.clone()
        later[:, :first] = False
        if cfg.loss == "ce":
            later &= following != IGNORE
        term = judge.each(later[batch.valid], all_logits[later].float(), following[later]).mean()
        weight = cfg.rollout_decay**depth
        loss, norm = loss + weight * term, norm + weight
    return loss / norm


class Pupil:
    """One draft in training: its weights, their running mean, its optimiser; see `loop.Learner`. A step learns from a
    batch and the target's logits at its valid positions.
    """

    def __init__(
        self,
        name: str,
        draft: nn.Module,
        shape: Mapping[str, Any],
        cfg: DraftTraining,
        model: TextToSemantic,
        held_out: Sequence[Seen],
        laws: Sequence[SamplingConfig],
        order: Order[list[Seen]],
    ) -> None:
        """order: everybody's batches."""
        self.name, self.draft, self.shape, self.cfg = name, draft, dict(shape), cfg
        self.model, self.held_out, self.laws = model, held_out, laws
        self.ema, self.optimizer = copy_weights(draft), adamw(draft, cfg.lr, cfg.weight_decay)
        self.order = order

    def load(self, state: Mapping[str, Any], checkpoint: Path) -> None:
        restore(self.draft, state["draft"], checkpoint)
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema = {k: v.to(self.model.device) for k, v in state["ema"].items()}
        if "order" in state:
            self.order.load(state["order"])

    def begin(self, step: int) -> None:
        """Batches are everybody's, see `train_drafts`; a step draws nothing else."""

    def learn(self, step: int, progress: float, shared: tuple[DraftBatch, Tensor]) -> Mapping[str, Tensor | float]:
        cfg, (batch, law) = self.cfg, shared
        rate = learning_rate(step, progress, peak=cfg.lr, floor=cfg.lr_floor, warmup=cfg.warmup)
        loss = loss_of(self.draft, self.model, batch, law, cfg, progress, step)
        loss.backward()
        clip_and_step(self.draft, self.optimizer, rate)
        follow(self.ema, self.draft, cfg.ema, step + 1)
        return {"loss": loss}

    def report(self, progress: float) -> Mapping[str, Any]:
        """Acceptance of the mean weights, by law."""
        kept = copy_weights(self.draft)
        self.draft.load_state_dict(self.ema)
        rates = evaluate(self.draft, self.model, self.held_out, self.laws)
        self.draft.load_state_dict(kept)
        return {k: {"acceptance": v, "gamma5": round(tokens_per_call(v, 5), 2)} for k, v in rates.items()}

    def state(self) -> Mapping[str, Any]:
        weights, optimizer = self.draft.state_dict(), self.optimizer.state_dict()
        return {"draft": weights, "optimizer": optimizer, "ema": self.ema, "order": self.order.state()}

    def export(self, work: Work, about: Mapping[str, Any]) -> None:
        description = {self.name: self.shape, "training": self.cfg.to_dict(), **about}
        save_export(work.export, self.name, description, self.ema)


def train_drafts(
    model: TextToSemantic,
    data: Sequence[Seen],
    held_out: Sequence[Seen],
    shapes: Mapping[str, Mapping[str, Any]],
    cfg: DraftTraining | Mapping[str, DraftTraining],
    out: Path | Mapping[str, Path],
    *,
    laws: Sequence[SamplingConfig],
    every: int = 100,
    save_s: float = 0.0,
    progress_bar: bool = True,
    start: Bundle | None = None,
    learnt: DraftDecoder | None = None,
) -> dict[str, nn.Module]:
    """Train drafts together (or go on) on the target's device, each on every batch until its own steps or minutes are
    used up. Each leaves its `Work` in a folder of its name under `out` (or in the folder that `out` names for it).

    Args:
        shapes: by the drafter's name, see `draft_shapes`. "draft" is what the voice ships with, of whatever kind.
        start: a voice whose drafts are gone on from where it has them; a checkpoint that is there already goes before.
        learnt: an eagle on the same target, with which a block decoder begins.

    Raises:
        SpearSpecError: a checkpoint is damaged, or the checkpoint's or the voice's draft has another shape.
    """
    model.requires_grad_(False)
    runs, pupils = [], []
    first = cfg if isinstance(cfg, DraftTraining) else cfg[next(iter(shapes))] if shapes else DraftTraining()
    order = Order(lambda rng: groups(data, first.batch_tokens, rng), first.seed)
    for name, shape in shapes.items():
        own = cfg if isinstance(cfg, DraftTraining) else cfg[name]
        torch.manual_seed(own.seed)
        draft = build_draft(name, shape, model.cfg)
        part = None if start is None else name if start.has(name) else start.config.drafts.get(name, (None,))[0]
        if start is not None and part is not None:
            start.load_into(draft, part).train().requires_grad_(True)
        elif learnt is not None and isinstance(draft, BlockDecoder):
            draft.begin_with(learnt)
        pupil = Pupil(name, draft.to(model.device), shape, own, model, held_out, laws, order)
        folder = out[name] if isinstance(out, Mapping) else out / name
        pupils.append(pupil)
        runs.append(Run(name, pupil, folder, steps=own.steps, minutes=own.minutes, every=every, save_s=save_s))
    if not runs:
        return {}

    def draw(step: int) -> tuple[DraftBatch, Tensor]:
        batch = collate(order[step]).to(model.device)
        with torch.no_grad():
            return batch, model.logits(batch.hidden)[batch.valid]

    carry_out(runs, progress=progress_bar, draw=draw)
    for pupil in pupils:
        pupil.draft.load_state_dict(pupil.ema)
    return {pupil.name: pupil.draft.eval() for pupil in pupils}


def learnt(out: Path, names: Sequence[str]) -> str:
    """A table of the last line of each log, and how much the last quarter of the run still brought."""
    lines = [
        "| draft | parameters | minutes | steps | law | acceptance by depth | tokens a call, gamma 5 | last quarter |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in names:
        work = Work(out / name)
        _, weights = load_export(work.export, name)
        size = sum(tensor.numel() for tensor in weights.values()) / 1e6
        log = [json.loads(line) for line in work.log.read_text(encoding="utf-8").splitlines()]
        last = log[-1]
        before = [line for line in log if line["minutes"] <= 0.75 * last["minutes"]][-1]
        for law, found in ((key, value) for key, value in last.items() if isinstance(value, dict)):
            gain = found["acceptance"][0] - before[law]["acceptance"][0]
            rates = " ".join(f"{rate:.3f}" for rate in found["acceptance"])
            row = (name, f"{size:.2f} M", last["minutes"], last["step"], law, rates, found["gamma5"], f"{gain:+.3f}")
            lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join(lines) + "\n"


def load_target(folder: Path, device: str | torch.device = "cpu") -> TextToSemantic:
    """The target of a T2S run (its export folder), float32, on a device.

    Raises:
        SpearSpecError: the folder holds none, or it is damaged.
    """
    description, weights = load_export(folder, "t2s")
    model = TextToSemantic(T2SConfig.from_dict(description["t2s"]))
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    return model.to(device).eval()
