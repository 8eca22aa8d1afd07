"""`spear-spec say --file big.jsonl --out-dir D [--workers N | --ray [ADDRESS]]`: bulk synthesis."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_spec.cli.options import sampling_overrides, spec_overrides
from spear_spec.cli.prompt import wanted_provenance
from spear_spec.cli.report import note, write_json
from spear_spec.cli.texts import read_text
from spear_spec.errors import ConfigError, DeviceError
from spear_spec.text import Lexicon, Pauses

if TYPE_CHECKING:
    from spear_spec.bulk.crew import Event
    from spear_spec.bulk.settings import Settings
    from spear_spec.config import SpecConfig
    from spear_spec.voice.bundle import Bundle

MOST_TOLD = 20  # lines that failed, on standard error; all of them are in the manifest


def wanted(args: argparse.Namespace) -> bool:
    """Whether the arguments of `say` ask for it: JSON Lines, or several workers.

    Raises:
        ConfigError: options of bulk synthesis without a file.
    """
    asked = args.workers is not None or args.ray is not None
    jsonl = args.file is not None and args.file.lower().endswith(".jsonl")
    other = (args.format, args.shard_format, args.shard_lines) != ("wav", "files", 64)
    if (asked or other) and args.file is None:
        raise ConfigError("--workers, --ray, --format and --shard-... go with --file")
    if other and not (asked or jsonl):
        raise ConfigError("--format and --shard-... go with bulk synthesis: --file NAME.jsonl, --workers N or --ray")
    return asked or jsonl


def run(args: argparse.Namespace) -> int:
    """Speak every line; exit status 2 when one could not be spoken (the others are kept, the manifest says why)."""
    if args.text is not None:
        raise ConfigError("give either a text or --file, not both")
    if args.output is not None:
        raise ConfigError("-o goes with one text; --file writes into --out-dir")
    if args.out_dir is None:
        raise ConfigError("--file needs --out-dir")
    if args.play:
        raise ConfigError("bulk synthesis writes files: leave --play out")
    if args.runtime != "eager":
        raise ConfigError(f"bulk synthesis runs eagerly: leave --runtime {args.runtime} out")
    if args.beam is not None:
        raise ConfigError("bulk synthesis draws its tokens: leave --beam out")
    if args.timestamps is not None:
        raise ConfigError("bulk synthesis writes no timestamps: leave --timestamps out")
    text = read_text(args.file)
    from spear_spec.bulk.lines import parse_lines
    from spear_spec.bulk.run import speak_lines
    from spear_spec.voice.bundle import open_voice

    bundle = open_voice(args.voice)
    lines = parse_lines(
        text,
        jsonl=args.file.lower().endswith(".jsonl"),
        name=args.file,
        speakers=bundle.config.speakers,
        base=Path() if args.file == "-" else Path(args.file).parent,
    )
    settings = settings_of(args, bundle)
    workers = args.workers or (1 if settings.device.startswith("cuda") else len(os.sched_getaffinity(0)))
    from tqdm import tqdm

    with tqdm(total=len(lines), unit="line", file=sys.stderr, disable=None) as bar:
        totals = speak_lines(
            lines, settings, Path(args.out_dir), workers=workers, ray=args.ray, told=lambda event: _show(event, bar)
        )
    write_json({**totals, "workers": workers, "ray": args.ray, "folder": args.out_dir}, args.json)
    note(
        f"{totals['spoken']} lines, {totals['samples'] / _rate(args, bundle):.0f} s of speech in {args.out_dir}"
        + (f" ({totals['resumed']} lines were there)" if totals["resumed"] else "")
        + (f"; {totals['failed']} lines failed: their reasons are in manifest.jsonl" if totals["failed"] else "")
        + (f"; {totals['deaths']} workers died and were replaced" if totals["deaths"] else "")
        + f"; {totals['wall_s']:.1f} s"
    )
    return 2 if totals["failed"] else 0


def settings_of(args: argparse.Namespace, bundle: Bundle) -> Settings:
    """What the arguments come to, in full.

    Raises:
        SpearSpecError: an option cannot be used.
    """
    from spear_spec import __version__
    from spear_spec.acoustic.prompt import digest_of
    from spear_spec.acoustic.takes import check_takes
    from spear_spec.bulk.settings import BATCH, Settings, digest
    from spear_spec.tuning.store import fingerprint
    from spear_spec.voice.acoustic import anywhere, find_stage
    from spear_spec.voice.bundle import choose_speaker

    device = args.device or ("cpu" if args.ray is not None else _device())
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise DeviceError(f"unknown device {device!r}: cpu, cuda or cuda:N")
    batch = args.batch or BATCH
    voice = args.voice
    if voice is not None and Path(voice).is_dir():
        voice = str(Path(voice).resolve())
    sampling, lexicon = bundle.sampling.changed(**sampling_overrides(args)), Lexicon.of(args.lexicon)
    judge = check_takes(args.best_of, args.judge, sampling.temperature)
    stage = None if args.acoustic is None else find_stage(bundle, args.acoustic)
    return Settings(
        voice=voice,
        name=bundle.config.name,
        fingerprint=fingerprint(bundle.path),
        speaker=choose_speaker(bundle, args.speaker),
        version=__version__,
        seed=args.seed,
        speed=args.speed,
        max_tokens=args.max_tokens,
        sampling=sampling.to_dict(),
        spec=_spec(args, bundle, batch).to_dict(),
        device=device,
        dtype=args.dtype or "float32",
        threads=args.threads,
        format=args.format,
        packing=args.shard_format,
        shard_lines=args.shard_lines,
        batch=batch,
        prompt=None if args.voice_prompt is None else str(Path(args.voice_prompt).resolve()),
        prompt_sha256=None if args.voice_prompt is None else digest_of(args.voice_prompt),
        provenance=wanted_provenance(args),
        pauses=asdict(Pauses.of(args.pause)),
        lexicon=None if lexicon is None else str(Path(args.lexicon).resolve()),
        lexicon_sha256=None if lexicon is None else digest(lexicon.to_json()),
        ssml=args.ssml,
        complete=_complete(args, bundle),
        best_of=args.best_of,
        judge=None if judge is None else str(judge),
        acoustic=None if stage is None else anywhere(bundle, args.acoustic),
        acoustic_fingerprint=None if stage is None else fingerprint(stage),
    )


def _complete(args: argparse.Namespace, bundle: Bundle) -> str:
    """Whole sentences are kept here, so what the voice is good for is "on"."""
    if args.complete != "auto":
        return str(args.complete)
    return "on" if bundle.config.complete else "off"


def _spec(args: argparse.Namespace, bundle: Bundle, batch: int) -> SpecConfig:
    """What was asked for, with one draft length; else none drafts, which is the fastest where many rows are decoded."""
    from spear_spec.bulk.settings import steady
    from spear_spec.voice.parts import choose_spec

    given: dict[str, Any] = spec_overrides(args)
    drafter = given.pop("drafter", None)
    if drafter is None and not given:
        drafter = "none"
    return steady(choose_spec(bundle, drafter, given), batch)


def _rate(args: argparse.Namespace, bundle: Bundle) -> int:
    """Samples a second of what is written."""
    from spear_spec.voice.acoustic import StageConfig, find_stage

    if args.acoustic is None:
        return bundle.config.clock.sample_rate
    return StageConfig.read(find_stage(bundle, args.acoustic)).sample_rate


def _device() -> str:
    from spear_spec.device import find_device

    return str(find_device(None))


def _show(event: Event | int, bar: Any) -> None:
    """Progress, for people."""
    from spear_spec.bulk.crew import Done, Gone

    if isinstance(event, int):
        bar.update(event)
    elif isinstance(event, Done):
        bar.update(event.told["lines"])
        for line in event.told["failed"][:MOST_TOLD]:
            bar.write(f"spear-spec: line {line['line']} ({line['id']}): {line['error']}", file=sys.stderr)
    elif isinstance(event, Gone):
        bar.write(f"spear-spec: a worker died ({event.why}); its lines go to another", file=sys.stderr)
