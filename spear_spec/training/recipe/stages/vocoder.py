"""Stage 4: the unit vocoder."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from safetensors.torch import save_file

from spear_spec.config import Clock
from spear_spec.errors import ConfigError
from spear_spec.semantic.supervised import SupervisedEncoder
from spear_spec.training.data.prepared import given_rows
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage, folder_of, sources
from spear_spec.training.recipe.stages.common import clusters, start_from
from spear_spec.training.recipe.stages.tokenize import given_supervised
from spear_spec.training.vocoder.data import missing_parts, prepare
from spear_spec.training.vocoder.recogniser import Recogniser
from spear_spec.training.vocoder.trainer import train_vocoder


def run(plan: Plan) -> None:
    """Decode and analyse the audio once, then train the vocoder, or go on with it."""
    cfg, at = plan.vocoder, Layout(plan.out)
    analyse(plan)
    STAGE.claim(plan, [at.vocoder.folder], length=("workers", "training.steps", "training.tail"))
    shape = cfg.config(clusters(plan), len(at.prepared.names()), plan.clock)
    train_vocoder(
        at.clips,
        at.vocoder.folder,
        cfg.training,
        shape,
        device=plan.device,
        progress_bar=plan.progress,
        start=start_from(cfg.start),
        prompts=cfg.encoder(shape),
        names=at.prepared.names(),
        recogniser=recogniser(plan),
    )


def recogniser(plan: Plan) -> Recogniser | None:
    """What the vocoder learns to be heard by: the tokenizer's own encoder, with what stands behind it.

    Raises:
        ConfigError: `reading` is asked for where the tokens come from no supervised encoder.
    """
    weights, file = plan.vocoder.training, given_supervised(plan)
    if not weights.listens:
        return None
    if weights.reading <= 0:
        return Recogniser(plan.tokenize.encoder, plan.clock.sample_rate)
    if file is None:
        raise ConfigError(
            "vocoder.training.reading needs the supervised encoder of the tokens: set tokenize.supervised"
        )
    supervised = (SupervisedEncoder.load(file), plan.tokenize.layers)
    return Recogniser(plan.tokenize.encoder, plan.clock.sample_rate, supervised=supervised)


def analyse(plan: Plan) -> None:
    """Audio and features of every clip, in as many parts as there are workers."""
    cfg, at = plan.vocoder, Layout(plan.out)
    about = {"workers": cfg.workers, "pitch": cfg.pitch}
    STAGE.claim(plan, [at.clips], name="vocoder.clips", settings=about, reads=audio_inputs(plan, at))
    missing = missing_parts(at.clips, cfg.workers)
    if not missing:
        return
    at.clips.mkdir(parents=True, exist_ok=True)
    pitch = at.clips / "pitch.safetensors" if cfg.pitch else None
    if pitch is not None:
        save_file(given_rows(cfg.pitch), pitch)
    if cfg.workers == 1:
        prepare(at.prepared, at.clips, clock=plan.clock, pitch=pitch)
        return
    with ProcessPoolExecutor(cfg.workers, get_context("spawn")) as pool:
        list(pool.map(partial(_part, at.out, plan.clock, cfg.workers, pitch), missing))


def _part(out: Path, clock: Clock, parts: int, pitch: Path | None, part: int) -> int:
    at = Layout(out)
    return prepare(at.prepared, at.clips, clock=clock, part=part, parts=parts, pitch=pitch)


def audio_inputs(plan: Plan, at: Layout) -> list[Path]:
    """Clips, tokens, audio and given pitch."""
    own = [at.prepared.utterances, at.prepared.tokens, at.prepared.speakers]
    return [*own, *sources(plan), *(Path(file) for _, file in plan.vocoder.pitch)]


def reading(plan: Plan) -> list[Path]:
    """The supervised encoder, where the vocoder learns from it."""
    file = given_supervised(plan) if plan.vocoder.training.reading > 0 else None
    return [] if file is None else [file]


def exports(plan: Plan, at: Layout) -> list[Path]:
    """What the vocoder and, where one is trained, the prompt encoder leave."""
    return [*at.vocoder_export, *(at.prompt_export if plan.vocoder.prompts else ())]


STAGE = Stage(
    "vocoder",
    run,
    reads=lambda plan, at: [*audio_inputs(plan, at), at.centroids, *folder_of(plan.vocoder.start), *reading(plan)],
    writes=exports,
)
