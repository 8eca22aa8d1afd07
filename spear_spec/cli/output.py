"""Speech into files and standard output, piece by piece: a text of any length needs no more memory than a sentence."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from spear_spec.audio import replacing
from spear_spec.errors import AudioError

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS


def check_output(path: Path) -> None:
    """Refuse an output that cannot be written before the voice is loaded.

    Raises:
        AudioError: unknown suffix, no such folder, or no permission.
    """
    if is_device(path):
        return
    if path.suffix.lower() not in (".wav", ".flac"):
        raise AudioError(f"cannot write {path}: the name must end in .wav or .flac (or be - for standard output)")
    if path.is_dir():
        raise AudioError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise AudioError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise AudioError(f"cannot write {path}: no permission in {path.parent}")


def is_device(path: Path) -> bool:
    """A device or a pipe: it cannot be replaced by a rename."""
    return path.exists() and not path.is_file() and not path.is_dir()


def speak(tts: TTS, text: str, output: str, options: dict[str, Any]) -> dict[str, Any]:
    """Speak a text into a wav or flac file, a device, or standard output ("-"); returns its item of say/1.

    A file appears whole or not at all.

    Raises:
        AudioError: it cannot be written. SpearSpecError: the text cannot be spoken.
    """
    if Path(output).suffix.lower() == ".flac":
        audio = tts.synthesize(text, **options)
        audio.save(output)
        return {**audio.stats, "file": output}
    from spear_spec.pipeline import Meter

    meter = Meter(tts.sample_rate)
    with _sink(output) as file:
        _write_wav(file, tts, text, meter, options)
    return {**meter.item(text), "file": output}


def _write_wav(file: IO[bytes], tts: TTS, text: str, meter: Any, options: dict[str, Any]) -> None:
    import numpy as np

    chunks = tts.stream(text, meter=meter, **options)
    with wave.open(file, "wb") as wav:
        wav.setparams((1, 2, tts.sample_rate, 0, "NONE", ""))
        for chunk in chunks:
            wav.writeframesraw((np.clip(chunk.samples, -1.0, 1.0) * 32767.0).round().astype("<i2").tobytes())


@contextlib.contextmanager
def _sink(output: str) -> Iterator[IO[bytes]]:
    """A seekable file (the wav header learns its length last) that reaches `output` when all went well."""
    path = Path(output)
    if output == "-" or is_device(path):
        with tempfile.TemporaryFile() as spool:
            yield spool
            spool.seek(0)
            if output == "-":
                shutil.copyfileobj(spool, sys.stdout.buffer)
                sys.stdout.buffer.flush()
                return
            with _writing(output), path.open("wb") as device:
                shutil.copyfileobj(spool, device)
        return
    with replacing(path) as file:
        yield file


@contextlib.contextmanager
def _writing(output: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise AudioError(f"cannot write {output}: {error.strerror or error}") from None
