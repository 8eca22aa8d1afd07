"""Stage 8: the voice bundle."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spear_spec.audio import load_audio
from spear_spec.config import SamplingConfig
from spear_spec.errors import MissingExtraError
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.pack import pack_voice
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage, sources
from spear_spec.training.recipe.stages.common import chosen_sampling, front_end
from spear_spec.training.recipe.stages.tokenize import given_supervised


def run(plan: Plan) -> None:
    """Write the voice bundle."""
    at = Layout(plan.out)
    if not (at.voice(plan.pack.name) / "config.json").exists():  # what a run that was cut off has left of it
        shutil.rmtree(at.voice(plan.pack.name), ignore_errors=True)
    folder = voice_of(plan, at.voice(plan.pack.name), chosen_sampling(plan), at.draft.export, trained_drafters(plan))
    if not plan.pack.reference:
        add_reference(plan, folder)
    print(f'the voice is in {folder}: spear-spec say --voice {folder} "Hello."')


def voice_of(
    plan: Plan,
    out: Path,
    sampling: SamplingConfig,
    draft: Path | None = None,
    drafters: Mapping[str, Path] | None = None,
) -> Path:
    """Pack what is trained into a bundle in `out`; draft, drafters: export folders."""
    at = Layout(plan.out)
    pack_voice(
        out,
        t2s=at.t2s.export,
        vocoder=at.vocoder.export,
        centroids=at.centroids,
        draft=draft,
        drafters=drafters or {},
        name=plan.pack.name,
        speakers=at.prepared.names(),
        licence=plan.pack.licence,
        origin=plan.pack.origin,
        text=front_end(plan).to_dict(),
        semantic=about_tokens(plan),
        sampling=sampling,
        gamma=plan.pack.gamma,
        reference=Path(plan.pack.reference) if plan.pack.reference else None,
        supervised=given_supervised(plan),
        complete=plan.pack.complete,
        rounded=plan.pack.rounded,
    )
    return out


def about_tokens(plan: Plan) -> dict[str, Any]:
    """What the bundle says of its semantic tokens."""
    cfg = plan.tokenize
    states = {"layer": cfg.layer} if cfg.supervised is None else {"layers": list(cfg.layers), "supervised": True}
    return {"encoder": cfg.encoder, **states, "rate": plan.clock.token_rate}


def trained_drafters(plan: Plan) -> dict[str, Path]:
    """The exports of the drafters stage, as far as it has run."""
    at = Layout(plan.out)
    return {name: at.drafter(name).export for name in plan.drafters.names if at.drafter_export(name)[0].exists()}


def add_reference(plan: Plan, voice: Path, clips_each: int = 40, shortest: float = 3.0) -> None:
    """The speakers' mean embeddings over training clips, for `eval`; short clips give unsteady ones and are passed
    over.
    """
    from spear_spec.evaluation.reference import save_reference
    from spear_spec.evaluation.speaker import SpeakerJudge

    judge, found, at = SpeakerJudge(), {}, Layout(plan.out)
    try:
        version = judge.version
    except MissingExtraError as error:
        print(f"no speaker reference in the voice: {error}")
        return
    clips = [clip for clip in at.prepared.clips() if clip.seconds >= shortest]
    for speaker in at.prepared.names():
        own = [clip for clip in clips if clip.speaker == speaker]
        if some := own[:: max(1, len(own) // clips_each)][:clips_each]:
            rate = plan.clock.sample_rate
            found[speaker] = judge.embed_voice([load_audio(clip.audio, rate).samples for clip in some])
    if found:
        save_reference(voice, found, f"{judge.name} {version}")


def reads(plan: Plan, at: Layout) -> list[Path]:
    """Every export, and what the speakers sound like."""
    exports = [*at.target, *at.vocoder_export, at.centroids, *at.draft_export]
    exports += at.prompt_export if plan.vocoder.prompts else ()
    drafters = [path for name in plan.drafters.names for path in at.drafter_export(name)]
    named = plan.pack.reference
    heard = [Path(named)] if named else [at.prepared.utterances, *sources(plan)]
    supervised = [file] if (file := given_supervised(plan)) else []
    return [*exports, *drafters, at.sampling, at.prepared.speakers, *heard, *supervised]


STAGE = Stage(
    "pack",
    run,
    reads=reads,
    writes=lambda plan, at: [at.voice(plan.pack.name) / "config.json"],
    more=lambda plan: {"semantic": about_tokens(plan), "names": plan.drafters.names},
)
