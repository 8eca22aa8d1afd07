"""`spear-spec say`: a text to a file, to standard output or to the ear; every line of a file into a folder; a book."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_spec.cli import bulk
from spear_spec.cli.loading import load_tuned
from spear_spec.cli.options import COMPLETE, beam_options, sampling_overrides
from spear_spec.cli.output import check_output, speak
from spear_spec.cli.play import check_device, play
from spear_spec.cli.prompt import check_prompt, hear_prompt, told_prompt, wanted_provenance
from spear_spec.cli.report import check_json_target, note, write_json
from spear_spec.cli.texts import check_text, read_text
from spear_spec.cli.timestamps import check_ending, check_timestamps
from spear_spec.errors import AudioError, ConfigError, SpearSpecError, TextError
from spear_spec.text import Lexicon, Pauses, Reading

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS
    from spear_spec.tuning.store import Tuned

DEFAULT_OUTPUT = "out.wav"


def run(args: argparse.Namespace) -> int:
    """Speak; exit status 2 when a line of --file could not be spoken (the others are kept)."""
    check_json_target(args.json)
    check_prompt(args)
    whole_file = args.file is not None and args.output is not None and args.out_dir is None
    if beam_options(args):
        args.drafter = "none"
    if bulk.wanted(args):
        return bulk.run(args)
    if whole_file:
        if args.text is not None or args.play or args.timestamps is not None:
            raise ConfigError("a book is spoken into a file alone: leave out the text, --play and --timestamps")
        from spear_spec.cli.book import say_book

        return say_book(args, speech_options(args))
    if args.file is not None:
        return _say_file(args)
    return _say_one(args)


def _say_one(args: argparse.Namespace) -> int:
    if args.out_dir is not None:
        raise ConfigError("--out-dir goes with --file; name the output of one text with -o")
    if args.text is None:
        raise ConfigError(
            'nothing to say: give a text, - for standard input, or --file (spear-spec say "Hello." -o hello.wav)'
        )
    output = args.output or DEFAULT_OUTPUT
    to_stdout = output == "-"
    if args.play:
        if args.output is not None or args.timestamps is not None:
            raise ConfigError("--play goes without -o and --timestamps")
        check_device()
        output = "played"
    else:
        check_output(output)
    check_timestamps(args.timestamps)
    text = check_text(read_text("-") if args.text == "-" else args.text)
    options = speech_options(args)
    tts, tuned = load_tuned(args, [text], reading_of(options))
    options |= hear_prompt(tts, args)
    if args.play:
        item = play(tts, text, options)
    else:
        item = speak(tts, text, output, options, args.timestamps, wanted_provenance(args))
    write_json(result(tts, args, options, [item], tuned), args.json, stdout_taken=to_stdout)
    note(
        f"{output}: {item['audio_s']:.2f} s of speech, RTF {_short(item['rtf'])}, "
        f"first audio after {_short(item['ttfa_s'])} s, "
        f"{item['tokens_per_call']:.2f} tokens per target call (loading {tts.load_s:.1f} s)"
        + ("" if tuned is None else f"; tuned on {tuned.measured}")
    )
    return 0


def _say_file(args: argparse.Namespace) -> int:
    """Line n goes to FOLDER/n.wav (blank lines keep their number but make no file). A line that fails is reported and
    the rest goes on; what was written stays."""
    if args.text is not None:
        raise ConfigError("give either a text or --file, not both")
    if args.output is not None:
        raise ConfigError("--out-dir speaks each line into a file of its own, -o all of a book into one: give either")
    if args.out_dir is None:
        raise ConfigError("--file needs --out-dir (each line into a file) or -o book.m4b (all of it into one)")
    if args.play:
        raise ConfigError("--play goes with one text")
    ending = check_ending(args.timestamps)
    lines = [line.strip() for line in read_text(args.file).splitlines()]
    if not any(lines):
        raise TextError(f"{args.file} holds no text")
    folder = Path(args.out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(f"cannot make the folder {folder}: {error.strerror or error}") from None
    check_output(str(folder / "000.wav"))
    options = speech_options(args)
    tts, tuned = load_tuned(args, [line for line in lines if line], reading_of(options))
    options |= hear_prompt(tts, args)
    from tqdm import tqdm

    items, failed = [], 0
    digits = max(3, len(str(len(lines) - 1)))
    for number, line in enumerate(tqdm(lines, unit="line", file=sys.stderr, disable=None if len(lines) > 1 else True)):
        if not line:
            continue
        path = folder / f"{number:0{digits}d}.wav"
        try:
            words = None if ending is None else str(path.with_suffix(ending))
            items.append(speak(tts, line, str(path), options, words, wanted_provenance(args)))
        except AudioError:
            raise  # a full disk stops the run: no later line would fare better
        except SpearSpecError as error:
            failed += 1
            note(f"spear-spec: line {number + 1}: {error}")
    write_json(result(tts, args, options, items, tuned), args.json)
    note(f"{len(items)} files in {folder}" + (f", {failed} lines failed" if failed else ""))
    return 2 if failed else 0


def _short(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def reading_of(options: Mapping[str, Any]) -> Reading:
    """How texts are read with these options of `TTS.synthesize`."""
    return Reading.of(options["pause"], options["lexicon"], options["ssml"])


def speech_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `TTS.synthesize` from the command line.

    Raises:
        ConfigError: the pauses or the lexicon cannot be used.
    """
    return {
        "pause": Pauses.of(args.pause),
        "lexicon": Lexicon.of(args.lexicon),
        "ssml": args.ssml,
        "speaker": args.speaker,
        "seed": args.seed,
        "max_tokens": args.max_tokens,
        "batch": args.batch or 1,
        "complete": COMPLETE.get(args.complete),  # auto: as the voice says
        "speed": args.speed,
        **({"best_of": args.best_of, "judge": args.judge} if args.best_of > 1 else {}),
        **beam_options(args),
        **sampling_overrides(args),
    }


def result(
    tts: TTS,
    args: argparse.Namespace,
    options: Mapping[str, Any],
    items: list[dict[str, Any]],
    tuned: Tuned | None = None,
) -> dict[str, Any]:
    """The say/1 object. `tuned`: the date of the measurement that chose the drafter, or null."""
    described = tts.describe(batch=args.batch or 1, seed=args.seed, **sampling_overrides(args))
    return {
        "schema": "say/1",
        "voice": tts.name,
        **described,
        "speed": args.speed,
        "beam": args.beam,
        "tuned": None if tuned is None else tuned.measured,
        "load_s": round(tts.load_s, 4),
        **told_prompt(args, options),
        "items": items,
    }
