"""`spear-spec say`: one text to a wav file or to standard output, or every line of a file into a folder."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_spec.audio import write_atomically
from spear_spec.cli.loading import load_tts
from spear_spec.cli.options import sampling_overrides
from spear_spec.cli.report import check_json_target, note, write_json
from spear_spec.cli.texts import check_text, read_text
from spear_spec.errors import AudioError, ConfigError, SpearSpecError, TextError

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS

DEFAULT_OUTPUT = "out.wav"


def run(args: argparse.Namespace) -> int:
    """Speak; exit status 2 when a line of --file could not be spoken (the others are kept)."""
    check_json_target(args.json)
    if args.file is not None:
        return _say_file(args)
    return _say_one(args)


def _say_one(args: argparse.Namespace) -> int:
    if args.out_dir is not None:
        raise ConfigError("--out-dir goes with --file; name the output of one text with -o")
    if args.text is None:
        raise ConfigError('nothing to say: give a text, - for standard input, or --file (spear-spec say "Hello." -o hello.wav)')
    output = args.output or DEFAULT_OUTPUT
    to_stdout = output == "-"
    if not to_stdout:
        check_output(Path(output))
    text = check_text(read_text("-") if args.text == "-" else args.text)
    tts = load_tts(args, [text])
    audio = tts.synthesize(text, **speech_options(args))
    if to_stdout:
        sys.stdout.buffer.write(audio.encode(".wav"))
        sys.stdout.buffer.flush()
    elif Path(output).suffix:
        audio.save(output)
    else:
        write_atomically(Path(output), audio.encode(".wav"))  # a device or a pipe
    item = {**audio.stats, "file": output}
    write_json(result(tts, args, [item]), args.json, stdout_taken=to_stdout)
    note(f"{output}: {item['audio_s']:.2f} s of speech, RTF {item['rtf']:.3f}, first audio after {item['ttfa_s']:.2f} s, "
         f"{item['tokens_per_call']:.2f} tokens per target call (loading {tts.load_s:.1f} s)")
    return 0


def _say_file(args: argparse.Namespace) -> int:
    """Line n goes to FOLDER/n.wav (blank lines keep their number but make no file). A line that fails is reported and
    the rest goes on; what was written stays."""
    if args.text is not None:
        raise ConfigError("give either a text or --file, not both")
    if args.output is not None:
        raise ConfigError("-o goes with one text; --file writes into --out-dir")
    if args.out_dir is None:
        raise ConfigError("--file needs --out-dir")
    lines = [line.strip() for line in read_text(args.file).splitlines()]
    if not any(lines):
        raise TextError(f"{args.file} holds no text")
    folder = Path(args.out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(f"cannot make the folder {folder}: {error.strerror or error}") from None
    check_output(folder / "000.wav")
    tts = load_tts(args, [line for line in lines if line])
    from tqdm import tqdm

    items, failed = [], 0
    digits = max(3, len(str(len(lines) - 1)))
    for number, line in enumerate(tqdm(lines, unit="line", file=sys.stderr, disable=None if len(lines) > 1 else True)):
        if not line:
            continue
        path = folder / f"{number:0{digits}d}.wav"
        try:
            audio = tts.synthesize(line, **speech_options(args))
        except SpearSpecError as error:
            failed += 1
            note(f"spear-spec: line {number + 1}: {error}")
            continue
        audio.save(path)  # a full disk stops the run: no later line would fare better
        items.append({**audio.stats, "file": str(path)})
    write_json(result(tts, args, items), args.json)
    note(f"{len(items)} files in {folder}" + (f", {failed} lines failed" if failed else ""))
    return 2 if failed else 0


def check_output(path: Path) -> None:
    """Refuse an output that cannot be written before the voice is loaded.

    Raises:
        AudioError: unknown suffix, no such folder, or no permission.
    """
    import os

    if path.exists() and not path.is_file() and not path.is_dir():
        return  # a device or a pipe
    if path.suffix.lower() not in (".wav", ".flac"):
        raise AudioError(f"cannot write {path}: the name must end in .wav or .flac (or be - for standard output)")
    if path.is_dir():
        raise AudioError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise AudioError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise AudioError(f"cannot write {path}: no permission in {path.parent}")


def speech_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keyword arguments of `TTS.synthesize` from the command line."""
    return {"speaker": args.speaker, "seed": args.seed, "max_tokens": args.max_tokens, "batch": args.batch or 1,
            **sampling_overrides(args)}


def result(tts: TTS, args: argparse.Namespace, items: list[dict[str, Any]]) -> dict[str, Any]:
    """The say/1 object."""
    described = tts.describe(batch=args.batch or 1, seed=args.seed, **sampling_overrides(args))
    return {"schema": "say/1", "voice": tts.name, **described, "load_s": round(tts.load_s, 4), "items": items}
