"""Stage 0: corpora to clips with phonemes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from spear_spec.errors import ConfigError
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.data import corpus
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.stage import Stage, sources


def run(plan: Plan) -> None:
    """Read the corpora, phonemize with the package's own front end, leave out what does not fit, hold some out."""
    cfg, at = plan.prepare, Layout(plan.out)
    front = PhonemeTokenizer(())

    def read(folders: Sequence[str], keep: Sequence[str]) -> tuple[list[corpus.Clip], list[tuple[str, str]]]:
        clips = list(chain.from_iterable(corpus.read_corpus(folder, cfg.form, scratch=at.cuts) for folder in folders))
        speakers = set(keep or corpus.speakers_of(clips)[: cfg.most_speakers])
        dropped = [(clip.id, f"speaker {clip.speaker}") for clip in clips if clip.speaker not in speakers]
        clips = [clip for clip in clips if clip.speaker in speakers][: cfg.limit]
        clips, silent = corpus.add_phonemes(clips, lambda text: front.phonemes(text)[0], progress=plan.progress)
        clips, odd = corpus.measure(clips, cfg.shortest, cfg.longest, progress=plan.progress)
        return clips, dropped + silent + odd

    clips, dropped = read(cfg.corpora, cfg.speakers)
    if not clips:
        reason = dropped[0][1] if dropped else "none"
        raise ConfigError(f"no clip of {', '.join(cfg.corpora)} can be used; the first reason is: {reason}")
    speakers = list(cfg.speakers) or corpus.speakers_of(clips)
    if cfg.dev:
        held, missing = read(cfg.dev, speakers)
    else:
        held, missing = clips[:: cfg.held_out_every], []
        clips = [clip for i, clip in enumerate(clips) if i % cfg.held_out_every]
    if not clips or not held:
        raise ConfigError(
            f"{'nothing is left to train on' if not clips else 'no held-out clip of these speakers'}: "
            "name other dev folders, or lower prepare.held_out_every"
        )
    at.prepared.write(clips, speakers, dropped)
    at.dev.write(held, speakers, missing)
    hours = sum(clip.seconds for clip in clips) / 3600
    print(
        f"{len(clips)} clips, {hours:.2f} h, {len(speakers)} speakers; {len(dropped)} left out "
        f"({at.prepared.dropped}); held out {len(held)}"
    )


STAGE = Stage(
    "prepare",
    run,
    reads=lambda plan, at: sources(plan),
    writes=lambda plan, at: [
        at.prepared.utterances, at.prepared.speakers, at.prepared.dropped, at.dev.utterances, at.dev.speakers,
        at.dev.dropped,
    ],
)  # fmt: skip
