"""Pieces of a book that are spoken already, kept beside the output until it is whole.

A piece is named by what it is made of (text and settings) and by its own checksum, so there is no list that could be
wrong: a stop at any moment, a changed paragraph or another voice leave nothing that is taken for what it is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spear_spec.audio import Audio, write_atomically
from spear_spec.books.write import Samples
from spear_spec.errors import AudioError

_OURS = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}\.flac|\.[0-9a-f]{16}\.part")


class Pieces:
    """A folder of pieces; settings: everything that the sound depends on save the text, as JSON would have it."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        self._settings = json.dumps(settings, sort_keys=True, ensure_ascii=False)
        try:
            folder.mkdir(exist_ok=True)
            names = [path.name for path in folder.iterdir()]
        except OSError as error:
            raise AudioError(f"cannot keep pieces in {folder}: {error.strerror or error}") from None
        self._kept = {name[:32]: folder / name for name in names if name.endswith(".flac") and _OURS.fullmatch(name)}

    def key(self, text: str) -> str:
        """What a piece of this text is called."""
        return hashlib.sha256(f"{self._settings}\n{text}".encode()).hexdigest()[:32]

    def find(self, key: str) -> Path | None:
        """A piece that is there and whole; a damaged one is deleted."""
        path = self._kept.get(key)
        if path is None:
            return None
        try:
            whole = _checksum(path.read_bytes()) == path.stem[33:]
        except OSError:
            whole = False
        if whole:
            return path
        del self._kept[key]
        with contextlib.suppress(OSError):
            path.unlink()
        return None

    def keep(self, key: str, audio: Audio) -> Path:
        """Write a piece, whole or not at all.

        Raises:
            AudioError: it cannot be written.
        """
        data = audio.encode(".flac")
        path = self.folder / f"{key}-{_checksum(data)}.flac"
        write_atomically(path, data)
        self._kept[key] = path
        return path

    def clear(self) -> None:
        """Delete what is ours, and the folder if nothing else is in it."""
        with contextlib.suppress(OSError):
            for path in self.folder.iterdir():
                if _OURS.fullmatch(path.name):
                    path.unlink()
            self.folder.rmdir()


def load(path: Path) -> Samples:
    """The samples of a piece, 16 bit [T].

    Raises:
        AudioError: it has gone, or is damaged.
    """
    import soundfile

    if not length(path):
        return np.zeros(0, dtype=np.int16)
    try:
        samples, _ = soundfile.read(path, dtype="int16")
    except (OSError, RuntimeError) as error:
        raise AudioError(f"cannot read {path} again: {error}") from None
    return samples  # type: ignore[no-any-return]


def length(path: Path) -> int:
    """How many samples a piece has."""
    import soundfile

    return int(soundfile.info(path).frames) if path.stat().st_size else 0  # libsndfile writes nothing for no samples


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]
