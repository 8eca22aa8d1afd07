"""`spear-spec say --file book.epub -o book.m4b`: a book into one file with chapters; stopped, it goes on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_spec.cli.loading import load_tuned
from spear_spec.cli.options import sampling_overrides
from spear_spec.cli.prompt import hear_prompt, told_prompt, wanted_provenance
from spear_spec.cli.report import note, write_json
from spear_spec.errors import ConfigError
from spear_spec.text import Reading

if TYPE_CHECKING:
    from spear_spec.books import Spoken
    from spear_spec.pipeline import TTS
    from spear_spec.tuning.store import Tuned


def say_book(args: argparse.Namespace, options: dict[str, Any]) -> int:
    """Speak the whole file; options: of `TTS.synthesize`."""
    from spear_spec.books import SUFFIXES, open_book, speak_book
    from spear_spec.books.speak import check_target

    if args.file == "-":
        raise ConfigError(f"a book is read from a file ({', '.join(SUFFIXES)}); give standard input as a text: say -")
    target = Path(args.output)
    check_target(target)
    book = open_book(args.file, ssml=options["ssml"])
    blocks = [block for chapter in book.chapters for block in chapter.blocks()]
    tts, tuned = load_tuned(args, blocks, Reading.of(options["pause"], options["lexicon"], book.ssml))
    options |= hear_prompt(tts, args)
    from tqdm import tqdm

    bar: Any
    with tqdm(
        total=sum(map(len, blocks)), unit="char", unit_scale=True, file=sys.stderr, desc=book.title[:30], disable=None
    ) as bar:
        provenance = wanted_provenance(args)
        spoken = speak_book(tts, book, target, progress=bar.update, provenance=provenance, **options)
    write_json(_result(tts, args, options, spoken, tuned), args.json)
    note(
        f"{target}: {len(spoken.marks)} chapters, {_clock(spoken.seconds)} of speech"
        + (f" ({spoken.found} of {spoken.found + spoken.spoken} pieces were there already)" if spoken.found else "")
    )
    return 0


def _result(
    tts: TTS, args: argparse.Namespace, options: dict[str, Any], spoken: Spoken, tuned: Tuned | None
) -> dict[str, Any]:
    """The book/1 object."""
    rate = tts.sample_rate
    return {
        "schema": "book/1",
        "voice": tts.name,
        **tts.describe(batch=args.batch or 1, seed=args.seed, **sampling_overrides(args)),
        "beam": args.beam,
        "tuned": None if tuned is None else tuned.measured,
        "load_s": round(tts.load_s, 4),
        **told_prompt(args, options),
        "file": str(spoken.file),
        "audio_s": round(spoken.seconds, 4),
        "pieces": {"spoken": spoken.spoken, "found": spoken.found},
        "chapters": [
            {"title": mark.title, "start_s": round(mark.start / rate, 4), "end_s": round(mark.end / rate, 4)}
            for mark in spoken.marks
        ],
    }


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
