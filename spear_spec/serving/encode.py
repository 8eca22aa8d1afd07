"""Sound to bytes while it is made: one header, then each piece as soon as the encoder lets it go.

PyAV (FFmpeg's libraries, no process of its own) makes mp3, opus, aac and flac; pcm and wav are samples as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Protocol

import numpy as np

from spear_spec.audio import FloatArray, to_int16, wav_header, wav_info
from spear_spec.errors import AudioError, MissingExtraError

Tags = Mapping[str, str]
NONE: Tags = {}


class Encoder(Protocol):
    """One stream's. `feed` takes float32 [T] in -1 to 1 and returns what is ready; `finish` the rest."""

    media_type: str

    def feed(self, samples: FloatArray) -> bytes: ...

    def finish(self) -> bytes: ...


class Pcm:
    """16 bit, little-endian, one channel; no header."""

    def __init__(self, sample_rate: int, tags: Tags = NONE) -> None:
        self.media_type = "audio/pcm"

    def feed(self, samples: FloatArray) -> bytes:
        return to_int16(samples).tobytes()

    def finish(self) -> bytes:
        return b""


class Wav(Pcm):
    """The same behind one header, whose sizes are unknown."""

    def __init__(self, sample_rate: int, tags: Tags = NONE) -> None:
        self.media_type = "audio/wav"
        self._header = wav_header(sample_rate, info=wav_info(tags))

    def feed(self, samples: FloatArray) -> bytes:
        header, self._header = self._header, b""
        return header + super().feed(samples)

    def finish(self) -> bytes:
        return self._header


@dataclass(frozen=True)
class _Recipe:
    """How FFmpeg makes a format. sample: what the codec takes."""

    media_type: str
    container: str
    codec: str
    sample: str
    bit_rate: int | None = None
    container_options: Mapping[str, str] = field(default_factory=dict)
    codec_options: Mapping[str, str] = field(default_factory=dict)
    tagged: Mapping[str, str] = field(default_factory=dict)  # container options where there are tags


# Small frames and a page for each packet, so that sound leaves at once; no header of a length that nobody knows yet.
_RECIPES = {
    "mp3": _Recipe(
        "audio/mpeg", "mp3", "libmp3lame", "fltp", 96_000, {"write_xing": "0", "id3v2_version": "0"},
        tagged={"id3v2_version": "4"},
    ),
    "opus": _Recipe(
        "audio/ogg", "ogg", "libopus", "flt", 48_000, {"page_duration": "20000"}, {"frame_duration": "20"}
    ),
    "aac": _Recipe("audio/aac", "adts", "aac", "fltp", 64_000),
    "flac": _Recipe(
        "audio/flac", "flac", "flac", "s16", None, {"metadata_header_padding": "0"}, {"frame_size": "1152"}
    ),
}  # fmt: skip


class _Sink:
    """A file that cannot be sought in, and gives away what is written."""

    def __init__(self) -> None:
        self._written = bytearray()

    def write(self, data: Any) -> int:
        self._written += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._written)
        self._written.clear()
        return taken


class Av:
    """A format of `_RECIPES`.

    Raises:
        MissingExtraError: PyAV is not installed. AudioError: this build of FFmpeg lacks the codec.
    """

    def __init__(self, sample_rate: int, recipe: _Recipe, tags: Tags = NONE) -> None:
        av = _av()
        self.media_type = recipe.media_type
        self._rate, self._recipe, self._count, self._sink = sample_rate, recipe, 0, _Sink()
        try:
            self._container = av.open(
                self._sink,
                mode="w",
                format=recipe.container,
                container_options={**recipe.container_options, **(recipe.tagged if tags else {}), "flush_packets": "1"},
            )
            self._container.metadata.update(dict(tags))
            self._stream = self._container.add_stream(
                recipe.codec, rate=sample_rate, options=dict(recipe.codec_options)
            )
        except (av.FFmpegError, ValueError) as error:
            raise AudioError(f"cannot encode {recipe.codec}: {error}") from None
        self._stream.codec_context.layout = "mono"
        self._stream.codec_context.format = recipe.sample
        if recipe.bit_rate is not None:
            self._stream.codec_context.bit_rate = recipe.bit_rate
        self._make_frame = av.AudioFrame.from_ndarray

    def feed(self, samples: FloatArray) -> bytes:
        if len(samples):
            whole = to_int16(samples)
            # the 16-bit sound, so that every format says the same
            values = whole if self._recipe.sample == "s16" else whole.astype(np.float32) / np.float32(32768)
            frame = self._make_frame(values[None], format=self._recipe.sample, layout="mono")
            frame.sample_rate, frame.time_base = self._rate, Fraction(1, self._rate)
            frame.pts = self._count
            self._count += len(samples)
            for packet in self._stream.encode(frame):
                self._container.mux(packet)
        return self._sink.take()

    def finish(self) -> bytes:
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._sink.take()


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError:
        raise MissingExtraError("encoding needs PyAV: pip install 'spear_spec[serve]'") from None
    return av


class Maker(Protocol):
    """Makes an encoder. tags: as `Audio.tags`; aac and pcm have no place for them."""

    def __call__(self, sample_rate: int, tags: Tags = NONE) -> Encoder: ...


def _with(recipe: _Recipe) -> Maker:
    return lambda sample_rate, tags=NONE: Av(sample_rate, recipe, tags)


ENCODERS: Mapping[str, Maker] = {
    **{name: _with(recipe) for name, recipe in _RECIPES.items()},
    "wav": Wav,
    "pcm": Pcm,
}
MEDIA_TYPES = {name: recipe.media_type for name, recipe in _RECIPES.items()} | {"wav": "audio/wav", "pcm": "audio/pcm"}
