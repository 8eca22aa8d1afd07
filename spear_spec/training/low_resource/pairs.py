"""The pairs of the recipe: those that bring their text, and those whose text is written for them."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import replace

import torch

from spear_spec.config import T2SConfig
from spear_spec.errors import ConfigError
from spear_spec.evaluation.edits import edit_distance
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.semantic.tokenizer import read_centroids
from spear_spec.training.data.align import find_frames
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.ctc import PhonemeCTC, phones
from spear_spec.training.data.ctc_training import train_ctc
from spear_spec.training.data.prepared import load_rows, save_rows
from spear_spec.training.low_resource.backtranslate import Heard, hear, neighbours
from spear_spec.training.low_resource.durations import customs, share_out
from spear_spec.training.low_resource.filter import sift, spoken_range
from spear_spec.training.low_resource.learner import best_weights
from spear_spec.training.low_resource.lessons import School
from spear_spec.training.low_resource.plan import LowResource
from spear_spec.training.recipe.stages.common import hands, spoken


def choose(clips: Sequence[Clip], speaker: str, minutes: float, seed: int) -> list[Clip]:
    """Clips of a speaker, drawn by chance, of so many minutes together; a smaller part lies within a larger one.

    Raises:
        ConfigError: the speaker has no clip, or less than that.
    """
    own = [clip for clip in clips if clip.speaker == speaker]
    random.Random(seed).shuffle(own)
    chosen: list[Clip] = []
    seconds = 0.0
    for clip in own:
        if seconds + clip.seconds > 60 * minutes and chosen:
            break
        chosen.append(clip)
        seconds += clip.seconds
    else:
        if seconds < 57 * minutes:
            raise ConfigError(f"{speaker} has {seconds / 60:.1f} minutes, not {minutes:g}")
    return chosen


def parallel(plan: LowResource) -> None:
    """Set apart the clips whose text may be used."""
    school = School(plan)
    at, cfg = school.at, plan.parallel
    clips, tokens = at.shared.prepared.clips(), load_rows(at.shared.prepared.tokens)
    clips = [clip for clip in clips if clip.id in tokens]
    if cfg.minutes:
        clips = choose(clips, school.speaker(), cfg.minutes, plan.corpus.seed)
    save_rows(at.parallel.tokens, {clip.id: tokens[clip.id] for clip in clips})
    at.parallel.write(clips, at.shared.prepared.names())
    minutes = sum(clip.seconds for clip in clips) / 60
    known = sum(clip.frames is not None for clip in clips)
    print(f"{plan.part}: {len(clips)} clips, {minutes:.1f} minutes; {known} with durations", flush=True)


def ctc(plan: LowResource) -> None:
    """Train the CTC on the parallel part."""
    school, cfg = School(plan), plan.ctc
    at = school.at
    model = train_ctc(
        spoken(at.parallel),
        school.clusters,
        at.work("ctc").folder,
        clock=plan.corpus.clock,
        minutes=cfg.minutes,
        steps=cfg.steps,
        dim=cfg.dim,
        blocks=cfg.blocks,
        centroids=read_centroids(at.shared.centroids)[0],
        seed=plan.corpus.seed,
        device=plan.corpus.device,
        progress=plan.corpus.progress,
    ).cpu()
    model.save(at.ctc)
    print(f"phoneme error of the CTC on held-out true tokens: {100 * model.error_rate(spoken(at.shared.dev)):.1f} %")


def pseudo(plan: LowResource) -> None:
    """Write a text for each clip that has none, and keep the pairs that are good enough."""
    school, cfg = School(plan), plan.pseudo
    at, clock = school.at, plan.corpus.clock
    tokens = load_rows(at.shared.prepared.tokens)
    known = at.parallel.clips()
    given = {clip.id for clip in known}
    audio = [clip for clip in at.shared.prepared.clips() if clip.id in tokens and clip.id not in given]
    random.Random(plan.corpus.seed).shuffle(audio)
    audio = audio[: cfg.limit]
    if not audio:
        raise ConfigError("the parallel part is all there is: no audio is left to write texts for")
    listener = PhonemeCTC.load(at.ctc)
    writer = load_best(school, "back")
    heard = hear(
        writer,
        audio,
        tokens,
        at.heard,
        school.front,
        school.source,
        cfg.sampling,
        listener,
        neighbours(school.turned(known, tokens), writer.start_id, writer.eos_id),
        way=cfg.way,
        beam=cfg.beam,
        candidates=cfg.candidates,
        clock=clock,
        batch=cfg.batch,
        seed=plan.corpus.seed,
        progress=plan.corpus.progress,
    )
    kept, dropped = sift(heard, tokens, listener, spoken_range(known, tokens), cfg.filter)
    if not kept:
        reasons = ", ".join(sorted({reason.partition(":")[0] for _, reason in dropped}))
        raise ConfigError(
            f"no pseudo-pair of {len(heard)} passed the filter ({reasons}): the back-translator cannot write yet; give "
            "back.training more steps, or the parallel part more minutes"
        )
    written = {item.id: item.phonemes for item in kept}
    clips = [replace(clip, text="", phonemes=written[clip.id], frames=None) for clip in audio if clip.id in written]
    rows = {clip.id: tokens[clip.id] for clip in clips}
    aligned = cfg.durations and any(clip.frames is not None for clip in known)
    at.pseudo.durations.unlink(missing_ok=True)
    save_rows(at.pseudo.tokens, rows)
    if aligned:
        place = at.folder / "shards"
        shutil.rmtree(place, ignore_errors=True)  # they may be of other texts
        workers = hands(plan.corpus, device=False)
        found, usual = find_frames(clips, at.pseudo.tokens, at.ctc, clock, place, workers)[0], customs(known)
        shared = {name: share_out(written[name], row.tolist(), usual) for name, row in found.items()}
        save_rows(at.pseudo.durations, {name: torch.tensor(row) for name, row in shared.items()})
    at.pseudo.write(clips, at.shared.prepared.names(), dropped)
    print(f"{len(clips)} pseudo-pairs kept, {len(dropped)} left out ({at.pseudo.dropped})", flush=True)
    truth = {clip.id: clip.phonemes for clip in audio if clip.phonemes}
    if truth:  # told, and used for nothing
        print(
            f"phoneme error of what was written, had the texts been known: {100 * _error(heard, truth):.1f} %, "
            f"of what is kept: {100 * _error(kept, truth):.1f} %",
            flush=True,
        )


def load_best(school: School, name: str) -> TextToSemantic:
    """The model that a training kept, ready to decode.

    Raises:
        SpearSpecError: it has kept nothing.
    """
    kept = best_weights(school.at.work(name).folder)
    model = TextToSemantic(T2SConfig.from_dict(kept["shape"]))
    weights = kept["trainee"]
    model.load_state_dict({key.removeprefix("model."): weights[key] for key in weights if key.startswith("model.")})
    return model.eval().requires_grad_(False)


def _error(heard: Sequence[Heard], truth: dict[str, str]) -> float:
    pairs = [(phones(item.phonemes), phones(truth[item.id])) for item in heard if item.id in truth]
    return sum(edit_distance(wanted, got) for got, wanted in pairs) / max(1, sum(len(wanted) for _, wanted in pairs))
