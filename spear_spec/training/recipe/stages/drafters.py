"""Stage 7: every other way to draft."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from spear_spec.config import DraftConfig, SamplingConfig
from spear_spec.errors import ConfigError
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.medusa import MedusaHeads
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.checkpoint import load_export, save_export
from spear_spec.training.data.utterances import Utterance
from spear_spec.training.drafts import skip_search
from spear_spec.training.drafts.medusa_tree import give_tree
from spear_spec.training.drafts.observed import observe
from spear_spec.training.drafts.skip_search import Reading
from spear_spec.training.drafts.trainer import draft_shapes, learnt, load_target, train_drafts
from spear_spec.training.recipe.keys import read_json, write_json
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage, folder_of
from spear_spec.training.recipe.stages.common import (
    chosen_sampling,
    front_end,
    laws_of_drafts,
    start_from,
    utterances,
)


def run(plan: Plan) -> None:
    """Train every other way to draft on the samples of the stage before; leaves a table of what each learnt."""
    cfg, at, law = plan.drafters, Layout(plan.out), chosen_sampling(plan)
    if not at.samples.tokens.exists() or not at.held_out.tokens.exists():
        raise ConfigError(f"{at.samples.folder} holds no samples of the target; run the draft stage first")
    model, front = load_target(at.t2s.export, plan.device), front_end(plan)
    known = draft_shapes(model.cfg, ff_mult=cfg.ff_mult, exit_layer=cfg.exit_layer)
    shapes = {name: known[name] for name in cfg.names if name in known}  # for the others something is searched
    layers = tuple(sorted({layer for shape in shapes.values() for layer in shape.get("target_layers", ())}))
    spoken, unheard = (utterances(plan, folder, front) for folder in (at.samples, at.held_out))
    for name, shape in shapes.items():
        about = {"shape": shape, "start": cfg.start, "training": asdict(cfg.settings(name))}
        length = ("training.steps", "training.minutes")
        claim_one(plan, name, about, length)
    if shapes:
        seen = observe(model, spoken, layers, progress=plan.progress)
        trained = train_drafts(
            model,
            seen,
            observe(model, unheard, layers, progress=plan.progress),
            shapes,
            {name: cfg.settings(name) for name in shapes},
            at.drafters,
            laws=laws_of_drafts(law),
            every=cfg.every,
            progress_bar=plan.progress,
            start=start_from(cfg.start),
            learnt=eagle_of(at, model, shapes["block"]) if "block" in shapes else None,
        )
        if "medusa" in trained:
            heads = cast(MedusaHeads, trained["medusa"])
            give_tree(at.drafter("medusa").export, heads, model, seen, cfg.tree_nodes)
    if "layer_skip" in cfg.names:
        search_switches(plan, model, unheard, law)
    at.drafters_table.write_text(learnt(at.drafters, list(shapes)), encoding="utf-8")


def eagle_of(at: Layout, model: TextToSemantic, shape: Mapping[str, Any]) -> DraftDecoder | None:
    """The draft of the stage before, where a block decoder of this shape can begin with it."""
    about, weights = load_export(at.draft.export, "draft")
    cfg = DraftConfig.from_dict(about["draft"])
    alike = ("dim", "heads", "dim_head", "ff_mult")
    if list(cfg.target_layers) != list(shape["target_layers"]) or any(getattr(cfg, key) != shape[key] for key in alike):
        return None
    draft = DraftDecoder(cfg, model.cfg)
    draft.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return draft


def claim_one(plan: Plan, name: str, about: Mapping[str, object], length: Sequence[str] = ()) -> None:
    """Each way to draft is gone on with by itself: a change of one leaves the others as they are."""
    at = Layout(plan.out)
    STAGE.claim(
        plan, [at.drafter(name).folder], name=f"drafters.{name}", settings=about, reads=reads(plan, at), length=length
    )


def search_switches(plan: Plan, model: TextToSemantic, held_out: Sequence[Utterance], law: SamplingConfig) -> None:
    """Which sublayers layer_skip leaves out; a search that was stopped goes on from its readings."""
    at = Layout(plan.out)
    claim_one(plan, "layer_skip", {})
    known = [Reading.from_dict(values) for values in read_json(at.readings) or []]
    texts = [u.text for u in held_out[:: max(1, len(held_out) // 8)]][:8]
    config, readings = skip_search.search(
        model,
        texts,
        law,
        trials=plan.drafters.skip_trials,
        minutes=plan.drafters.skip_minutes,
        seed=plan.seed,
        progress=plan.progress,
        known=known,
        record=lambda history: write_json(at.readings, [reading.to_dict() for reading in history]),
    )
    about = {"layer_skip": config.to_dict(), "readings": len(readings)}
    save_export(at.drafter("layer_skip").export, "layer_skip", about, {})


def reads(plan: Plan, at: Layout) -> list[Path]:
    """The target, what it spoke, and the draft that a block decoder begins with."""
    folders = [path for f in (at.samples, at.held_out) for path in (f.utterances, f.tokens)]
    return [*at.target, at.sampling, at.prepared.speakers, *at.draft_export, *folders, *folder_of(plan.drafters.start)]


STAGE = Stage(
    "drafters",
    run,
    reads=reads,
    writes=lambda plan, at: [
        at.drafters_table, *(path for name in plan.drafters.names for path in at.drafter_export(name))
    ],
)  # fmt: skip
