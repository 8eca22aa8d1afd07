"""`say --timestamps`: what the option may be, and the file that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spear_spec.audio import check_place
from spear_spec.errors import ConfigError
from spear_spec.timing.subtitles import KINDS, check_kind, save_words


def check_timestamps(target: str | None) -> None:
    """Refuse a file that cannot be written before any work is done.

    Raises:
        ConfigError: another ending. AudioError: no such folder, no permission, or it is a folder.
    """
    if target is None:
        return
    check_kind(target)
    check_place(Path(target))


def check_ending(target: str | None) -> str | None:
    """The ending, with its dot, that every file of word times gets beside its sound; None where none is wanted.

    Raises:
        ConfigError: it is no ending alone.
    """
    if target is None:
        return None
    ending = "." + target.lower().removeprefix(".")
    if ending not in KINDS:
        raise ConfigError(f"with --file, --timestamps is an ending ({', '.join(KINDS)}): each line gets a file of it")
    return ending


def save_timestamps(target: str, voice: str, text: str, words: Sequence[Any], audio_s: float) -> None:
    """Write the words of a text that was spoken.

    Raises:
        AudioError: the file cannot be written.
    """
    save_words(target, words, voice=voice, text=text, audio_s=round(audio_s, 4))
