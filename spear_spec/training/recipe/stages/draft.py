"""Stage 6: what the voice ships to draft with."""

from __future__ import annotations

import random
from pathlib import Path

from spear_spec.config import DraftConfig
from spear_spec.training.drafts.observed import observe
from spear_spec.training.drafts.sample import sample_folder
from spear_spec.training.drafts.trainer import load_target, train_drafts
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage, folder_of
from spear_spec.training.recipe.stages.common import (
    HELD_OUT,
    chosen_sampling,
    encoder,
    front_end,
    laws_of_drafts,
    start_from,
    utterances,
)


def run(plan: Plan) -> None:
    """Let the finished target speak, then train the draft on that."""
    cfg, at, laws = plan.draft, Layout(plan.out), laws_of_drafts(chosen_sampling(plan))
    model, front = load_target(at.t2s.export, plan.device), front_end(plan)
    speak(plan)
    STAGE.claim(
        plan,
        [at.draft.folder],
        length=("every", "samples", "minutes", "batch", "training.steps", "training.minutes"),
    )
    shape = DraftConfig(
        model.cfg.dim, cfg.depth, model.cfg.heads, model.cfg.dim_head, cfg.ff_mult, target_layers=cfg.layers
    ).to_dict()
    seen, held = (
        observe(model, utterances(plan, folder, front), cfg.layers, progress=plan.progress)
        for folder in (at.samples, at.held_out)
    )
    train_drafts(
        model,
        seen,
        held,
        {"draft": shape},
        cfg.training,
        {"draft": at.draft.folder},
        laws=laws,
        every=cfg.every,
        progress_bar=plan.progress,
        start=start_from(cfg.start),
    )


def speak(plan: Plan) -> None:
    """The target's samples; what this very target has spoken already is gone on with."""
    cfg, at, laws = plan.draft, Layout(plan.out), laws_of_drafts(chosen_sampling(plan))
    model, encode = load_target(at.t2s.export, plan.device), encoder(front_end(plan))
    STAGE.claim(
        plan, [at.samples.folder, at.held_out.folder], name="draft.samples", settings={}, reads=inputs(at), adopt=False
    )
    clips, held = at.prepared.clips(), at.dev.clips()
    wanted = random.Random(plan.seed).sample(clips, len(clips))[: cfg.samples]
    for chosen, folder, minutes in ((wanted, at.samples, cfg.minutes), (held[:HELD_OUT], at.held_out, 0.0)):
        sample_folder(
            model,
            chosen,
            folder,
            laws,
            encode,
            clock=plan.clock,
            batch=cfg.batch,
            minutes=minutes,
            seed=plan.seed,
            progress=plan.progress,
        )


def inputs(at: Layout) -> list[Path]:
    """What is spoken, by whom, and how."""
    return [*at.target, at.sampling, at.prepared.utterances, at.prepared.speakers, at.dev.utterances]


STAGE = Stage(
    "draft",
    run,
    reads=lambda plan, at: [*inputs(at), *folder_of(plan.draft.start)],
    writes=lambda plan, at: [
        *at.draft_export, at.samples.utterances, at.samples.tokens, at.held_out.utterances, at.held_out.tokens
    ],
)  # fmt: skip
