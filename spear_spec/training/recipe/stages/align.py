"""Stage 2: the token-to-phoneme CTC, and durations."""

from __future__ import annotations

from spear_spec.semantic.tokenizer import read_centroids
from spear_spec.training.data.align import find_frames
from spear_spec.training.data.ctc import PhonemeCTC
from spear_spec.training.data.ctc_training import train_ctc
from spear_spec.training.data.prepared import load_rows, save_rows
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage
from spear_spec.training.recipe.stages.common import spoken


def run(plan: Plan) -> None:
    """Train the CTC; find durations for clips that have none."""
    cfg, at = plan.align, Layout(plan.out)
    found = [at.prepared.durations, at.dev.durations]
    STAGE.claim(plan, [at.ctc, at.ctc_work.folder, *found])
    for path in found:  # what was found before is no input
        path.unlink(missing_ok=True)
    clusters, _ = read_centroids(at.centroids)
    if at.ctc.exists():
        model = PhonemeCTC.load(at.ctc)
    else:
        model = train_ctc(
            spoken(at.prepared),
            len(clusters),
            at.ctc_work.folder,
            clock=plan.clock,
            minutes=cfg.minutes,
            steps=cfg.steps,
            dim=cfg.dim,
            blocks=cfg.blocks,
            centroids=clusters,
            seed=plan.seed,
            device=plan.device,
            progress=plan.progress,
        ).cpu()
        model.save(at.ctc)
    print(f"phoneme error of the CTC on held-out true tokens: {100 * model.error_rate(spoken(at.dev)):.1f} %")
    for folder in (at.prepared, at.dev):
        aligner = model if cfg.method == "ctc" else None
        rows = find_frames(folder.clips(), load_rows(folder.tokens), aligner, plan.clock, progress=plan.progress)
        save_rows(folder.durations, rows)
        if rows:
            print(f"{folder.folder}: durations by {cfg.method} for {len(rows)} clips")


STAGE = Stage(
    "align",
    run,
    reads=lambda plan, at: [
        at.centroids, at.prepared.utterances, at.prepared.tokens, at.dev.utterances, at.dev.tokens
    ],
    writes=lambda plan, at: [at.ctc, at.prepared.durations, at.dev.durations],
)  # fmt: skip
