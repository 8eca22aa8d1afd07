"""`--voice-prompt`, `--best-of`, `--provenance` of `say`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spear_spec.errors import ConfigError

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
        from spear_spec.acoustic.prompt import digest_of

        digest_of(args.voice_prompt)


def hear_prompt(tts: TTS, args: argparse.Namespace) -> dict[str, Any]:
    """The option `voice` of `TTS.stream`, where a prompt was given.

    Raises:
        As `TTS.hear`.
    """
    return {} if args.voice_prompt is None else {"voice": tts.hear(args.voice_prompt)}


def told_prompt(args: argparse.Namespace, options: Mapping[str, Any]) -> dict[str, Any]:
    """What results tell of the prompt that was heard (`hear_prompt`)."""
    if args.voice_prompt is None:
        return {}
    return {"prompt": {"file": args.voice_prompt, "sha256": options["voice"].sha256}}


def wanted_provenance(args: argparse.Namespace) -> bool | None:
    """As `TTS.synthesize` takes it."""
    return None if args.provenance is None else bool(args.provenance == "on")
