"""Voices of a server that are prompts: a folder of recordings, each a voice by its file's name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from spear_spec.acoustic.contract import Heard
from spear_spec.config import require
from spear_spec.errors import AudioError, ConfigError

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif")
LONGEST_NAME = 200


def prompt_files(folder: str | Path, speakers: tuple[str, ...]) -> dict[str, Path]:
    """The recordings in a folder by the names that clients call them by, without their endings.

    Raises:
        ConfigError: there is no such folder, there are none in it, or a name is a speaker's or another's.
    """
    try:
        paths = sorted(p for p in Path(folder).iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
    except OSError as error:
        raise ConfigError(f"cannot read the folder of prompts {folder}: {error.strerror or error}") from None
    require(bool(paths), f"there are no prompts in {folder}: files that end in {', '.join(SUFFIXES)}")
    found: dict[str, Path] = {}
    for path in paths:
        name = path.stem
        require(name.isprintable() and len(name) <= LONGEST_NAME, f"the prompt {path} cannot name a voice: rename it")
        require(name not in speakers, f"the prompt {path} is called as a speaker of the voice is: rename it")
        require(name not in found, f"the prompts {found.get(name)} and {path} have one name: rename one")
        found[name] = path
    return found


def hear_prompts(tts: TTS, files: Mapping[str, Path]) -> dict[str, Heard]:
    """The voices in them.

    Raises:
        AudioError: one cannot be used. ConfigError: the voice takes no prompts.
    """
    heard = {}
    for name, path in files.items():
        try:
            heard[name] = tts.hear(path)
        except AudioError as error:
            raise AudioError(f"prompt {name}: {error}") from None
    return heard
