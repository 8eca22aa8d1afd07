"""`--voice-prompt`, `--best-of`, `--provenance` of `say`."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spear_spec.errors import AudioError, ConfigError

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS


def check_prompt(args: argparse.Namespace) -> None:
    """Refuse what cannot be before the voice is loaded.

    Raises:
        AudioError: the prompt cannot be read. ConfigError: a judge without takes.
    """
    if args.judge is not None and args.best_of == 1:
        raise ConfigError("--judge goes with --best-of: it chooses among several takes")
    if args.voice_prompt is not None:
        digest_of(args.voice_prompt)


def digest_of(path: str) -> str:
    """SHA-256 of a prompt's file.

    Raises:
        AudioError: it cannot be read.
    """
    if Path(path).is_dir():
        raise AudioError(f"cannot read the prompt {path}: it is a folder; name a file")
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise AudioError(f"cannot read the prompt {path}: {getattr(error, 'strerror', None) or error}") from None


def hear_prompt(tts: TTS, args: argparse.Namespace) -> dict[str, Any]:
    """The option `voice` of `TTS.stream`, where a prompt was given.

    Raises:
        As `TTS.hear`.
    """
    return {} if args.voice_prompt is None else {"voice": tts.hear(args.voice_prompt)}


def told_prompt(args: argparse.Namespace) -> dict[str, Any]:
    """What results tell of it."""
    if args.voice_prompt is None:
        return {}
    return {"prompt": {"file": args.voice_prompt, "sha256": digest_of(args.voice_prompt)}}


def wanted_provenance(args: argparse.Namespace) -> bool | None:
    """As `TTS.synthesize` takes it."""
    return None if args.provenance is None else bool(args.provenance == "on")
