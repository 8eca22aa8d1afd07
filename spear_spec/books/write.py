"""One file of sound with chapters, title, author and cover, by PyAV (FFmpeg's libraries, no process of its own)."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from spear_spec.errors import AudioError, MissingExtraError

Samples = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Format:
    """How FFmpeg makes it. sample: what the codec takes. cover: whether a picture can be in it."""

    container: str
    codec: str
    sample: str
    bit_rate: int | None = None
    cover: bool = True
    options: Mapping[str, str] = field(default_factory=dict)
    codec_options: Mapping[str, str] = field(default_factory=dict)


_FAST = {"aac_coder": "fast"}  # 160 times as fast as speech on one core, instead of 60
FORMATS = {
    ".m4b": Format("mp4", "aac", "fltp", 64_000, options={"brand": "M4B "}, codec_options=_FAST),
    ".m4a": Format("mp4", "aac", "fltp", 64_000, options={"brand": "M4A "}, codec_options=_FAST),
    ".flac": Format("flac", "flac", "s16"),
    ".mp3": Format("mp3", "libmp3lame", "fltp", 64_000),
    ".opus": Format("ogg", "libopus", "flt", 48_000, cover=False),
}


@dataclass(frozen=True)
class Mark:
    """A chapter of a file: its title, and its samples from start to end."""

    title: str
    start: int
    end: int


@dataclass(frozen=True)
class Tags:
    """What the file says of itself; cover: JPEG or PNG; comment: see `acoustic/provenance.py`."""

    title: str = ""
    author: str = ""
    language: str = ""
    cover: bytes | None = None
    comment: str = ""


class _Failing:
    """The file as FFmpeg has it: what goes wrong in it is kept, not raised. FFmpeg writes on while it closes, and PyAV
    would print what is raised there.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failed: OSError | None = None
        self.read, self.tell, self.seekable = file.read, file.tell, file.seekable

    def write(self, data: Any) -> int:
        self._try(self._file.write, data)
        return len(data)

    def seek(self, at: int, whence: int = 0) -> int:
        found = self._try(self._file.seek, at, whence)
        return at if found is None else found

    def _try(self, call: Callable[..., int], *given: Any) -> int | None:
        if self.failed is None:
            try:
                return call(*given)
            except OSError as error:
                self.failed = error
        return None

    def check(self) -> None:
        """Raise what went wrong so far."""
        if self.failed is not None:
            raise self.failed


def write_sound(
    file: IO[bytes], suffix: str, rate: int, pieces: Iterable[Samples], marks: Sequence[Mark] = (), tags: Tags = Tags()
) -> None:
    """Encode pieces of samples into a file that can be rewound.

    Raises:
        MissingExtraError: PyAV is not installed. AudioError: this build of FFmpeg lacks the codec. OSError: the file's.
    """
    av = _av()
    made, told = FORMATS[suffix], _Failing(file)
    try:
        with av.open(told, "w", format=made.container, container_options=dict(made.options)) as container:
            stream = container.add_stream(made.codec, rate=rate, options=dict(made.codec_options))
            stream.codec_context.layout, stream.codec_context.format = "mono", made.sample
            if made.bit_rate is not None:
                stream.codec_context.bit_rate = made.bit_rate
            container.metadata.update(_metadata(made, rate, marks, tags))
            container.set_chapters([_chapter(number, mark, rate) for number, mark in enumerate(marks)])
            picture = _picture(av, container, tags.cover) if tags.cover is not None and made.cover else None
            for packet in _encoded(av, stream, made, rate, pieces):
                if picture is not None:  # once the header knows the sound's parameters
                    container.mux(picture)
                    picture = None
                container.mux(packet)
                told.check()
        told.check()
    except OSError:
        raise
    except (av.FFmpegError, ValueError) as error:
        raise AudioError(f"cannot encode {suffix}: {error}") from None


def _encoded(av: Any, stream: Any, made: Format, rate: int, pieces: Iterable[Samples]) -> Iterator[Any]:
    at = 0
    for piece in pieces:
        for start in range(0, len(piece), rate):
            samples = piece[start : start + rate]
            values = samples if made.sample == "s16" else samples.astype(np.float32) / np.float32(32768)
            frame = av.AudioFrame.from_ndarray(values[None], format=made.sample, layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), at
            at += len(samples)
            yield from stream.encode(frame)
    yield from stream.encode(None)


def _metadata(made: Format, rate: int, marks: Sequence[Mark], tags: Tags) -> dict[str, str]:
    out = {"title": tags.title, "album": tags.title, "artist": tags.author, "language": tags.language}
    out["comment"] = tags.comment
    if made.container == "mp4" and marks:
        out["genre"] = "Audiobook"
    if made.container == "flac":  # its writer knows no chapters: the comments that players read
        for number, mark in enumerate(marks):
            seconds, rest = divmod(mark.start, rate)
            clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest * 1000 // rate:03d}"
            out |= {f"CHAPTER{number:03d}": clock, f"CHAPTER{number:03d}NAME": mark.title}
    return {key: value for key, value in out.items() if value}


def _chapter(number: int, mark: Mark, rate: int) -> dict[str, Any]:
    start, end = (at * 1000 // rate for at in (mark.start, mark.end))
    base = Fraction(1, 1000)
    return {"id": number, "start": start, "end": end, "time_base": base, "metadata": {"title": mark.title}}


def _picture(av: Any, container: Any, data: bytes) -> Any:
    """The packet of a cover, its stream added; None for a picture that cannot be read."""
    try:
        with av.open(io.BytesIO(data)) as source:
            template = source.streams.video[0]
            packet = next(p for p in source.demux(template) if p.size)
            stream = container.add_stream_from_template(template)
    except (av.FFmpegError, IndexError, StopIteration, ValueError):
        return None
    stream.disposition = av.stream.Disposition.attached_pic
    packet.stream, packet.pts, packet.dts = stream, 0, 0
    return packet


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError:
        raise MissingExtraError("this kind of file needs PyAV: pip install 'spear_spec[books]'") from None
    return av
