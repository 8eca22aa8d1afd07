"""Speech into files and standard output, piece by piece: a text of any length needs no more memory than a sentence."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from spear_spec.audio import TimedWord, check_place, replacing, to_int16, wav_header, wav_info
from spear_spec.cli.timestamps import save_timestamps
from spear_spec.errors import AudioError, MissingExtraError

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS, AudioChunk

ENCODED = (".mp3", ".opus", ".m4a")


def check_output(output: str) -> None:
    """Refuse an output that cannot be written before the voice is loaded.

    Raises:
        AudioError: unknown suffix, no such folder, no permission, or standard output ("-") is closed.
    """
    if output == "-":
        if sys.stdout is None:
            raise AudioError("cannot write to standard output, which is closed; name a file with -o")
        return
    path = Path(output)
    if is_device(path):
        return
    if path.suffix.lower() not in (".wav", ".flac", *ENCODED):
        raise AudioError(
            f"cannot write {path}: the name must end in .wav or .flac, {', '.join(ENCODED)}, or be - (standard output)"
        )
    if path.suffix.lower() in ENCODED and find_spec("av") is None:
        raise MissingExtraError(f"cannot write {path}: this needs PyAV: pip install 'spear_spec[books]'")
    check_place(path)


def is_device(path: Path) -> bool:
    """A device or a pipe: it cannot be replaced by a rename."""
    return path.exists() and not path.is_file() and not path.is_dir()


def speak(
    tts: TTS,
    text: str,
    output: str,
    options: dict[str, Any],
    timestamps: str | None = None,
    provenance: bool | None = None,
) -> dict[str, Any]:
    """Speak a text into a wav or flac file, a device, or standard output ("-"); returns its item of say/1.

    A file appears whole or not at all. timestamps: a file for the times of its words. provenance: as
    `TTS.synthesize`; the text's voice must be heard already.

    Raises:
        AudioError: it cannot be written. SpearSpecError: the text cannot be spoken.
    """
    if timestamps is not None:
        options = {**options, "timestamps": True}
    if output != "-" and not is_device(Path(output)):
        options = tts.unheard(options)
    words: list[TimedWord] = []
    tags = tts.tags(options.get("speaker"), options.get("voice"), provenance)
    if Path(output).suffix.lower() == ".flac":
        audio = tts.synthesize(text, provenance=provenance, **options)
        audio.save(output)
        item, words = {**audio.stats, "file": output}, list(audio.words or ())
    elif Path(output).suffix.lower() in ENCODED and not is_device(Path(output)):
        from spear_spec.books.write import Tags, write_sound
        from spear_spec.meter import Meter

        meter = Meter(tts.sample_rate)
        chunks = _noting(tts.stream(text, meter=meter, **options), words)
        with replacing(Path(output)) as file:
            sound, told = (to_int16(c.samples) for c in chunks), Tags(comment=tags.get("comment", ""))
            write_sound(file, Path(output).suffix.lower(), tts.sample_rate, sound, tags=told)
        item = {**meter.item(text), "file": output}
    else:
        from spear_spec.meter import Meter

        meter = Meter(tts.sample_rate)
        with _sink(output) as file:
            _write_wav(file, _noting(tts.stream(text, meter=meter, **options), words), wav_info(tags))
        item = {**meter.item(text), "file": output}
    if timestamps is not None:
        save_timestamps(timestamps, tts.name, text, words, item["audio_s"])
        item["timestamps"] = timestamps
    return item


def _noting(chunks: Iterable[AudioChunk], words: list[TimedWord]) -> Iterator[AudioChunk]:
    for chunk in chunks:
        words.extend(chunk.words)
        yield chunk


def _write_wav(file: IO[bytes], chunks: Iterable[AudioChunk], info: bytes = b"") -> None:
    """Write 16 bit as it is spoken, so that a pipe can be heard at once; the lengths follow where it can be rewound.

    Nothing is written before there is something to be heard: a text that cannot be spoken leaves no header.
    """
    start, rate, size = -1, 0, 0
    for chunk in chunks:
        if not rate:
            rate, start = chunk.sample_rate, file.tell() if _rewindable(file) else -1
            file.write(wav_header(rate, info=info))
        data = to_int16(chunk.samples).tobytes()
        file.write(data)
        file.flush()
        size += len(data)
    if start >= 0:
        file.seek(start)
        file.write(wav_header(rate, size, info))
        file.seek(0, os.SEEK_END)
        file.flush()


def _rewindable(file: IO[bytes]) -> bool:
    """Whether bytes that were written can be written again: no pipe, and not opened to append (`>> all.wav`)."""
    try:
        import fcntl

        appending = fcntl.fcntl(file.fileno(), fcntl.F_GETFL) & os.O_APPEND
    except (ImportError, OSError, ValueError):  # another system, or no real file: a test's or a notebook's
        return False
    return file.seekable() and not appending


@contextlib.contextmanager
def _sink(output: str) -> Iterator[IO[bytes]]:
    """What reaches `output`: standard output and devices at once, a file when all went well."""
    path = Path(output)
    if output == "-":
        yield sys.stdout.buffer
    elif is_device(path):
        try:
            with path.open("wb") as device:
                yield device
        except OSError as error:
            raise AudioError(f"cannot write {output}: {error.strerror or error}") from None
    else:
        with replacing(path) as file:
            yield file
