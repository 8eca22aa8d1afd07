"""Train drafts on the finished target's own samples: decoders of every kind and Medusa heads, several at once.

The target's features and laws are computed once for each utterance; then the drafts alone are trained. One that is fed
with its own output learns on several steps of its own roll-out (after EAGLE-3, arXiv 2503.01840), so that its guesses
hardly get worse with depth.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spear_spec.config import SamplingConfig, T2SConfig
from spear_spec.decoding import DRAFTERS
from spear_spec.decoding.sampling import probabilities
from spear_spec.errors import ConfigError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.averaged import adamw, copy_weights, follow
from spear_spec.training.checkpoint import load_checkpoint, load_export, save_checkpoint, save_export
from spear_spec.training.drafts.observed import DraftBatch, Seen, batches, collate, observe
from spear_spec.training.drafts.rollout import says
from spear_spec.training.precision import mixed
from spear_spec.training.t2s.trainer import read_utterances
from spear_spec.voice.bundle import Bundle, open_voice
from spear_spec.voice.drafts import build_draft

LOSSES = ("ce", "kl", "tv", "mixed")


@dataclass
class DraftTraining:
    """Settings of a run; see RESULTS for what they gave.

    loss: "ce" (the target's token), "kl" (its law), "tv" (1 - sum min(p, q), the rate of rejection itself, at
    `temperature`), or "mixed": kl, and in the second half of the run a share `overlap_weight` of tv.
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
    ema: float = 0.995
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ConfigError(f"loss must be {', '.join(LOSSES)}, not {self.loss!r}")


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
    draft: nn.Module, model: TextToSemantic, held_out: list[Seen], laws: Sequence[SamplingConfig], steps: int = 5
) -> dict[str, list[float]]:
    """Acceptance by depth on held-out utterances for each sampling law."""
    draft.eval()
    sums: dict[str, list[float]] = {}
    count = 0
    for i in range(0, len(held_out), 16):
        batch = collate(held_out[i : i + 16])
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
    draft: nn.Module, model: TextToSemantic, batch: DraftBatch, law: Tensor, cfg: DraftTraining, progress: float
) -> Tensor:
    """The loss of one batch; law [N, V]: the target's logits at its valid positions."""
    with mixed("cpu"):
        logits = says(draft, model, batch, cfg.rollout)
    overlap = {"tv": 1.0, "mixed": cfg.overlap_weight if progress > 0.5 else 0.0}.get(cfg.loss, 0.0)
    p = law.softmax(-1) if overlap < 1 else law
    sharp = (law / cfg.temperature).softmax(-1) if overlap else p
    following = torch.cat((batch.tokens[:, 1:], batch.tokens[:, :1]), 1)  # nothing is known behind the last token
    loss, norm = torch.zeros(()), 0.0
    for depth, (first, all_logits) in enumerate(logits):
        later = batch.valid.clone()
        later[:, :first] = False
        if cfg.loss == "ce":
            later[:, :-1] &= batch.valid[:, 1:]
            later[:, -1] = False
        keep, q = later[batch.valid], all_logits[later].float()
        term = torch.zeros(())
        if cfg.loss == "ce":
            term = torch.nn.functional.cross_entropy(q, following[later])
        elif overlap < 1:
            term = (1 - overlap) * -(p[keep] * q.log_softmax(-1)).sum(-1).mean()
        if overlap:
            both = torch.minimum(sharp[keep], (q / cfg.temperature).softmax(-1)).sum(-1)
            term = term + overlap * 4 * (1 - both).mean()
        weight = cfg.rollout_decay**depth
        loss, norm = loss + weight * term, norm + weight
    return loss / norm


class Pupil:
    """One draft in training: its weights, their running mean, its optimiser, its folder with log, checkpoint and
    export.
    """

    def __init__(self, name: str, draft: nn.Module, shape: Mapping[str, Any], cfg: DraftTraining, out: Path) -> None:
        self.name, self.draft, self.shape, self.cfg, self.out = name, draft, dict(shape), cfg, out
        self.ema, self.optimizer = copy_weights(draft), adamw(draft, cfg.lr, cfg.weight_decay)
        self.step, self.seconds = 0, 0.0
        out.mkdir(parents=True, exist_ok=True)
        if (out / "checkpoint.pt").exists():
            state = load_checkpoint(out / "checkpoint.pt")
            draft.load_state_dict(state["draft"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema, self.step, self.seconds = state["ema"], state["step"], state["seconds"]

    @property
    def progress(self) -> float:
        return max(self.step / self.cfg.steps, self.seconds / 60 / self.cfg.minutes if self.cfg.minutes else 0.0)

    def learn(self, model: TextToSemantic, batch: DraftBatch, law: Tensor) -> float:
        """One step; returns the loss."""
        cfg, began, progress = self.cfg, time.monotonic(), self.progress
        for group in self.optimizer.param_groups:
            group["lr"] = (
                cfg.lr
                * min(1.0, (self.step + 1) / cfg.warmup)
                * (cfg.lr_floor + (1 - cfg.lr_floor) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))
            )
        loss = loss_of(self.draft, model, batch, law, cfg, progress)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.draft.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        follow(self.ema, self.draft, cfg.ema, self.step)
        self.seconds += min(time.monotonic() - began, 60.0)
        return loss.item()

    def report(self, model: TextToSemantic, held_out: list[Seen], laws: Sequence[SamplingConfig], **more: float) -> str:
        """Evaluate the mean weights, write log, checkpoint and export; returns the log line."""
        kept = copy_weights(self.draft)
        self.draft.load_state_dict(self.ema)
        rates = evaluate(self.draft, model, held_out, laws)
        self.draft.load_state_dict(kept)
        line = {
            "step": self.step,
            "minutes": round(self.seconds / 60, 1),
            **more,
            **{k: {"acceptance": v, "gamma5": round(tokens_per_call(v, 5), 2)} for k, v in rates.items()},
        }
        with (self.out / "train.log").open("a") as log:
            log.write(json.dumps(line) + "\n")
        save_checkpoint(
            self.out / "checkpoint.pt",
            {
                "draft": self.draft.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema,
                "step": self.step,
                "seconds": self.seconds,
            },
        )
        save_export(
            self.out / "export", self.name, {self.name: self.shape, "training": asdict(self.cfg), **line}, self.ema
        )
        return json.dumps(line)


def train_drafts(
    model: TextToSemantic,
    data: list[Seen],
    held_out: list[Seen],
    shapes: Mapping[str, Mapping[str, Any]],
    cfg: DraftTraining | Mapping[str, DraftTraining],
    out: Path | Mapping[str, Path],
    *,
    laws: Sequence[SamplingConfig],
    every: int = 100,
    progress_bar: bool = True,
    start: Bundle | None = None,
) -> dict[str, nn.Module]:
    """Train drafts together (or go on), each on every batch until its own steps or minutes are used up.

    Leaves for each `out`/checkpoint.pt, train.log and export/{name.json,name.safetensors}, in a folder of its name
    under
    `out` (or in the folder that `out` names for it).

    Args:
        shapes: by the drafter's name, see `draft_shapes`. "draft" is what the voice ships with, of whatever kind.
        start: a voice whose drafts are gone on from where it has them; a checkpoint that is there already goes before.

    Raises:
        SpearSpecError: a checkpoint is damaged, or the voice's draft has another shape.
    """
    from tqdm import tqdm

    model.requires_grad_(False)
    pupils = []
    for name, shape in shapes.items():
        own = cfg if isinstance(cfg, DraftTraining) else cfg[name]
        torch.manual_seed(own.seed)
        draft = build_draft(name, shape, model.cfg)
        part = None if start is None else name if start.has(name) else start.config.drafts.get(name, (None,))[0]
        if start is not None and part is not None:
            start.load_into(draft, part).train().requires_grad_(True)
        pupils.append(Pupil(name, draft, shape, own, out[name] if isinstance(out, Mapping) else out / name))
    seed = pupils[0].cfg.seed + pupils[0].step
    stream = batches(data, pupils[0].cfg.batch_tokens, random.Random(seed))
    bar = tqdm(
        total=max(p.cfg.steps for p in pupils),
        initial=min(p.step for p in pupils),
        disable=not progress_bar,
        desc="drafts",
        mininterval=5,
    )
    fresh, losses = {p.name for p in pupils}, {p.name: 0.0 for p in pupils}
    while True:
        for pupil in pupils:
            if pupil.name in fresh and (pupil.step % every == 0 or pupil.progress >= 1):
                bar.write(f"{pupil.name} {pupil.report(model, held_out, laws, loss=round(losses[pupil.name], 4))}")
        busy = [pupil for pupil in pupils if pupil.progress < 1]
        fresh = {pupil.name for pupil in busy}
        if not busy:
            break
        batch = next(stream)
        with torch.no_grad():
            law = model.logits(batch.hidden)[batch.valid]
        for pupil in busy:
            loss = pupil.learn(model, batch, law)
            losses[pupil.name] += (loss - losses[pupil.name]) * min(1.0, max(0.02, 1 / pupil.step))
        bar.update(1)
    bar.close()
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
        _, weights = load_export(out / name / "export", name)
        size = sum(tensor.numel() for tensor in weights.values())
        log = [json.loads(line) for line in (out / name / "train.log").read_text(encoding="utf-8").splitlines()]
        last, before = log[-1], [line for line in log if line["minutes"] <= 0.75 * log[-1]["minutes"]][-1]
        for law, found in ((key, value) for key, value in last.items() if isinstance(value, dict)):
            gain = found["acceptance"][0] - before[law]["acceptance"][0]
            rates = " ".join(f"{rate:.3f}" for rate in found["acceptance"])
            lines.append(
                f"| {name} | {size / 1e6:.2f} M | {last['minutes']} | {last['step']} | {law} | {rates} | {found['gamma5']} | {gain:+.3f} |"
            )
    return "\n".join(lines) + "\n"


def load_target(folder: Path) -> TextToSemantic:
    """The target of a T2S run (its export folder), float32, on the CPU."""
    description, weights = load_export(folder, "t2s")
    model = TextToSemantic(T2SConfig.from_dict(description["t2s"]))
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    return model.eval()


def main(argv: list[str] | None = None) -> None:
    """Command line of the stage."""
    from spear_spec.text.symbols import SYMBOLS, encode_phonemes

    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("target", type=Path, help="export folder of the T2S stage")
    ap.add_argument("data", type=Path, help="prepared folder, best the target's own samples (training/sample.py)")
    ap.add_argument("out", type=Path)
    ap.add_argument("--drafts", default="eagle", help="names of drafters, comma between; a wrong one lists them")
    ap.add_argument("--start", help="a voice of the same shapes to go on from, by name or folder")
    ap.add_argument("--held-out", type=Path)
    ap.add_argument("--held-out-size", type=int, default=80)
    ap.add_argument("--limit", type=int, help="utterances to use")
    ap.add_argument(
        "--ff-mult",
        type=int,
        default=2,
        help="width of the feed-forward; narrow keeps the voice small and drafting quick",
    )
    ap.add_argument("--exit-layer", type=int, default=2, help="layer behind which early_exit drafts")
    ap.add_argument("--every", type=int, default=100)
    ap.add_argument("--threads", type=int, default=1)
    ap.add_argument("--law", nargs="*", default=["0.8,0.95", "1,0.95"], help="temperature,top_p to report")
    ap.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="[NAME.]KEY=VALUE",
        help="training settings: " + ", ".join(asdict(DraftTraining())),
    )
    a = ap.parse_args(argv)
    torch.set_num_threads(a.threads)
    model = load_target(a.target)
    known = draft_shapes(model.cfg, ff_mult=a.ff_mult, exit_layer=a.exit_layer)
    names = a.drafts.split(",")
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"unknown drafts {', '.join(unknown)}; known are {', '.join(known)}")
    settings = {name: DraftTraining() for name in names}
    for pair in a.set:
        path, _, value = pair.partition("=")
        *only, key = path.split(".")
        for name in only or names:
            settings[name] = replace(settings[name], **{key: json.loads(value) if not value.isalpha() else value})
    shapes = {name: known[name] for name in names}
    layers = tuple(sorted({layer for shape in shapes.values() for layer in shape.get("target_layers", ())}))
    data = read_utterances(a.data, encode_phonemes, len(SYMBOLS), set())[: a.limit]
    held = read_utterances(a.held_out, encode_phonemes, len(SYMBOLS), set()) if a.held_out else data[-a.held_out_size :]
    data = data if a.held_out else data[: -a.held_out_size]
    held = held[:: max(1, len(held) // a.held_out_size)]
    laws = [SamplingConfig(temperature=float(t), top_p=float(p)) for t, p in (law.split(",") for law in a.law)]
    print(f"{len(data)} utterances, {sum(len(u.tokens) for u in data)} tokens; held out {len(held)}", flush=True)
    train_drafts(
        model,
        observe(model, data, layers),
        observe(model, held, layers),
        shapes,
        settings,
        a.out,
        laws=laws,
        every=a.every,
        start=open_voice(a.start) if a.start else None,
    )


if __name__ == "__main__":
    main()
