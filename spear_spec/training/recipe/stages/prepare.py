"""Stage 0: corpora to clips with phonemes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spear_spec.errors import ConfigError
from spear_spec.training.data import corpus
from spear_spec.training.data.checks import Limits
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.fit import fit_clips
from spear_spec.training.data.prepared import Prepared
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage, sources
from spear_spec.training.recipe.stages.common import hands

Dropped = list[tuple[str, str]]


def run(plan: Plan) -> None:
    """Read the corpora, phonemize with the package's own front end, leave out what does not fit, hold some out."""
    cfg, at = plan.prepare, Layout(plan.out)
    STAGE.claim(plan, [at.shards("prepare")])
    train, dropped = read(plan, cfg.corpora)
    kept = set(cfg.speakers or corpus.speakers_of(train)[: cfg.most_speakers])
    train = choose(train, kept.__contains__, dropped, cfg.limit)
    dev, missing = read(plan, cfg.dev)
    test, lacking = read(plan, cfg.test)
    if cfg.unseen:
        corpus.apart("prepare.dev", dev, train, "training (prepare.corpora)")
        corpus.apart("prepare.test", test, dev, "prepare.dev")
    else:
        dev = choose(dev, kept.__contains__, missing, cfg.limit)
    corpus.apart("prepare.test", test, train, "training (prepare.corpora)")
    clips = fit(plan, "train", train, dropped)
    if not clips:
        reason = dropped[0][1] if dropped else "none"
        raise ConfigError(f"no clip of {', '.join(cfg.corpora)} can be used; the first reason is: {reason}")
    speakers = list(cfg.speakers) or corpus.speakers_of(clips)
    if cfg.dev:
        held = fit(plan, "dev", choose(dev, None, missing, cfg.limit), missing)
    else:
        held = clips[:: cfg.held_out_every]
        clips = [clip for i, clip in enumerate(clips) if i % cfg.held_out_every]
    if not clips or not held:
        raise ConfigError(
            f"{'nothing is left to train on' if not clips else no_held_out(cfg.dev, missing)}: "
            "name other dev folders, or lower prepare.held_out_every"
        )
    at.prepared.write(clips, speakers, dropped)
    at.dev.write(held, [] if cfg.unseen and cfg.dev else speakers, missing)
    tell("training", clips, at.prepared, dropped)
    tell("dev", held, at.dev, missing)
    if cfg.test:
        unheard = fit(plan, "test", choose(test, None, lacking, cfg.limit), lacking)
        if not unheard:
            raise ConfigError(f"no clip of {', '.join(cfg.test)} can be used; the first reason is: {lacking[0][1]}")
        at.test.write(unheard, dropped=lacking)
        tell("test", unheard, at.test, lacking)


def read(plan: Plan, folders: Sequence[str]) -> tuple[list[Clip], Dropped]:
    """All clips of these corpora, and what cannot be one."""
    clips: list[Clip] = []
    skipped: Dropped = []
    for folder in plan.prepare.folders(folders):
        found = corpus.open_corpus(folder, plan.prepare.form, scratch=Layout(plan.out).cuts)
        clips += found.clips
        skipped += found.skipped
    return clips, skipped


def choose(clips: list[Clip], wanted: Callable[[str], bool] | None, dropped: Dropped, limit: int | None) -> list[Clip]:
    """The first clips of the speakers that are wanted; the others are noted."""
    if wanted is not None:
        dropped += [(clip.id, f"speaker {clip.speaker}") for clip in clips if not wanted(clip.speaker)]
        clips = [clip for clip in clips if wanted(clip.speaker)]
    return clips[:limit]


def fit(plan: Plan, part: str, clips: list[Clip], dropped: Dropped) -> list[Clip]:
    """Those that can be learnt from, with phonemes and length; the others are noted."""
    cfg = plan.prepare
    limits = Limits(cfg.shortest, cfg.longest, cfg.clipped, cfg.pace)
    kept, odd = fit_clips(clips, limits, Layout(plan.out).shards("prepare") / part, hands(plan, device=False))
    dropped += odd
    return kept


def no_held_out(dev: Sequence[str], missing: Dropped) -> str:
    """Why nothing is held out."""
    if dev and missing and missing[0][1].startswith("speaker "):
        return "no held-out clip of these speakers (prepare.unseen=true for readers that are not trained on)"
    return "no held-out clip" + (f" (the first reason is: {missing[0][1]})" if missing else "")


def tell(part: str, clips: Sequence[Clip], folder: Prepared, dropped: Dropped) -> None:
    """A line on what became of a part."""
    hours = sum(clip.seconds for clip in clips) / 3600
    readers = len({clip.speaker for clip in clips})
    print(
        f"{part}: {len(clips)} clips, {hours:.2f} h, {readers} speakers; {len(dropped)} left out"
        + (f" ({folder.dropped})" if dropped else "")
    )


STAGE = Stage(
    "prepare",
    run,
    reads=lambda plan, at: sources(plan),
    writes=lambda plan, at: [
        path
        for folder in (at.prepared, at.dev, *([at.test] if plan.prepare.test else []))
        for path in (folder.utterances, folder.speakers, folder.dropped)
    ],
)
