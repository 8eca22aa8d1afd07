"""`spear-spec tune`: measure what is fastest here, and keep it for `say` and `serve`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_spec.cli.loading import load_tts, setup_key
from spear_spec.cli.options import sampling_overrides
from spear_spec.cli.report import Status, check_json_target, note, write_json
from spear_spec.errors import ConfigError
from spear_spec.tuning.store import Tuned, check_writable, read_tuned, tune_file, write_tuned

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS

BATCHES = (1, 2, 4, 8)  # the first is what settings race at, the others get draft lengths
SHOWN = 12  # settings in the table
HEAD = ("setting", "rounds", "tokens/s", "speed-up", "tokens/call")


def run(args: argparse.Namespace) -> int:
    """Tune, or forget."""
    began = time.monotonic()
    check_json_target(args.json)
    if args.forget:
        return _forget(args)
    if not args.dry_run:
        check_writable()
    tts = load_tts(args)
    from spear_spec.tuning.tune import spec_of, tune

    status = Status()
    batch, *larger = sorted(set(args.batch or BATCHES))
    try:
        result = tune(
            tts,
            seconds=args.seconds - (time.monotonic() - began),
            batch=batch,
            larger=larger,
            speaker=args.speaker,
            seed=args.seed,
            max_tokens=args.max_tokens,
            progress=status,
            **sampling_overrides(args),
        )
    finally:
        status.close()
    for line in table(result["candidates"][:SHOWN]):
        note(line)
    if missed := sum(not candidate["rounds"] for candidate in result["candidates"]):
        note(f"{missed} more could not be measured in {args.seconds} seconds")
    if not args.dry_run:
        result["file"] = str(_store(tts, result, spec_of(result).to_dict(), batch))
    result["seconds"] = round(time.monotonic() - began, 1)
    note(verdict(result))
    write_json(result, args.json)
    return 0


def _store(tts: TTS, result: dict[str, Any], spec: dict[str, Any], batch: int) -> Path:
    from spear_spec import __version__

    entry = Tuned(
        **setup_key(tts, batch),
        spec=spec,
        tokens_per_s=result["tokens_per_s"]["median"],
        speedup=result["speedup"]["median"],
        measured=date.today().isoformat(),
        version=f"{__version__} ({result['commit']})",
        batches=tuple(found["batch"] for found in result["lengths"]),
    )
    return write_tuned([*(other for other in _known() if other.key != entry.key), entry])


def _known() -> list[Tuned]:
    """What is stored; nothing of a damaged file, which is about to be replaced."""
    try:
        return read_tuned()
    except ConfigError as error:
        note(f"spear-spec: {error}")
        return []


def _forget(args: argparse.Namespace) -> int:
    from spear_spec.voice.bundle import open_voice

    name = open_voice(args.voice).config.name
    path, known = tune_file(), _known()
    kept = [entry for entry in known if entry.voice != name]
    if path.exists() and (len(kept) < len(known) or not known):
        write_tuned(kept)
    gone = len(known) - len(kept)
    note(f"{name}: {gone} tuned setting{'' if gone == 1 else 's'} forgotten ({path})")
    write_json({"schema": "tune/1", "voice": name, "forgotten": gone, "file": str(path)}, args.json)
    return 0


def verdict(result: dict[str, Any]) -> str:
    """What was chosen, by how much, and where it is kept."""
    from spear_spec.tuning.candidates import named

    line = f"{result['voice']}: {named(result)}, {result['tokens_per_s']['median']:.0f} tokens/s"
    if result["drafter"] != "none":
        line += f", {result['speedup']['median']:.2f} x the autoregressive loop"
    if result["changed"]:
        line += f", {result['gain']['median']:.2f} x the voice's own setting"
    else:
        line += "; nothing is faster for certain than this, the voice's own setting"
    if result["lengths"] and result["gammas"]:
        line += "; " + ", ".join(f"gamma {gamma} from batch {rows} on" for rows, gamma in result["gammas"].items())
    kept = "nothing is stored" if result["file"] is None else f"kept in {result['file']}, say uses it"
    return f"{line}; {kept} ({result['seconds']:.0f} s)"


def table(candidates: Sequence[dict[str, Any]]) -> list[str]:
    """Aligned lines, the fastest first."""
    rows = [HEAD, *(_row(candidate) for candidate in candidates if candidate["rounds"])]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEAD))]
    return [
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths)))
        for row in rows
    ]


def _row(candidate: dict[str, Any]) -> tuple[str, ...]:
    from spear_spec.tuning.candidates import named

    return (named(candidate), str(candidate["rounds"]), f"{candidate['tokens_per_s']['median']:.0f}",
            f"{candidate['speedup']['median']:.2f} x", f"{candidate['tokens_per_call']:.2f}")  # fmt: skip
