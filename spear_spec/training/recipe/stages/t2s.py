"""Stage 3: the text-to-semantic transformer."""

from __future__ import annotations

from pathlib import Path

from spear_spec.training.processes import find_processes
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage, folder_of
from spear_spec.training.recipe.stages.common import clusters, few, front_end, start_from, utterances
from spear_spec.training.t2s.trainer import train_t2s


def run(plan: Plan) -> None:
    """Train the transformer, or go on with it; in several processes where several were started."""
    cfg, at = plan.t2s, Layout(plan.out)
    together = find_processes(plan.device)
    if together.main:
        STAGE.claim(plan, [at.t2s.folder], length=("every", "save_minutes", "training.steps", "training.minutes"))
    together.wait()
    front = front_end(plan)
    train_t2s(
        utterances(plan, at.prepared, front),
        few(utterances(plan, at.dev, front)),
        cfg.config(len(front.vocab), clusters(plan)),
        cfg.training,
        at.t2s.folder,
        space=front.encode_phonemes(" ", front.speakers[0])[1],
        clock=plan.clock,
        device=plan.device,
        every=cfg.every,
        save_s=60 * cfg.save_minutes,
        progress_bar=plan.progress,
        start=start_from(cfg.start, front),
        front=front,
        processes=together,
    )


def reads(plan: Plan, at: Layout) -> list[Path]:
    """Both prepared folders and the number of tokens."""
    both = [path for f in (at.prepared, at.dev) for path in (f.utterances, f.tokens, f.durations, f.doubtful)]
    return [*both, at.prepared.speakers, at.centroids, *folder_of(plan.t2s.start)]


STAGE = Stage("t2s", run, reads=reads, writes=lambda plan, at: at.target, together=True)
