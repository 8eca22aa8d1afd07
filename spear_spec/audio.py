"""Audio in memory and on disk, resampling, log-mel spectrograms."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from spear_spec.errors import AudioError

FloatArray = npt.NDArray[np.float32]

UNKNOWN = 0xFFFFFFFF  # the size of a wav file that is still being written
_FORMATS = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16")}


@dataclass(frozen=True)
class TimedWord:
    """A word of a signal as it was written, from when to when it is heard, in seconds, and its sentence's index."""

    text: str
    start_s: float
    end_s: float
    sentence: int


@dataclass(frozen=True)
class Audio:
    """A mono signal: `samples` float32 [T] in [-1, 1], `sample_rate` in Hz, `stats` of the synthesis (or None).

    words: when each is heard, in order; None where nobody asked. tags: what a file of it says of itself ("software",
    "comment").
    """

    samples: FloatArray
    sample_rate: int
    stats: Any = field(default=None, compare=False)
    words: tuple[TimedWord, ...] | None = field(default=None, compare=False)
    tags: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        samples = np.ascontiguousarray(self.samples, dtype=np.float32)
        if samples.ndim != 1:
            raise AudioError(f"audio must be mono, one axis of samples; got shape {tuple(samples.shape)}")
        if self.sample_rate <= 0:
            raise AudioError(f"sample rate must be positive, got {self.sample_rate}")
        object.__setattr__(self, "samples", samples)

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / self.sample_rate

    def encode(self, suffix: str = ".wav") -> bytes:
        """The file's bytes, 16 bit, as `.wav` or `.flac`.

        Raises:
            AudioError: unknown suffix, or samples that are NaN or infinite.
        """
        import soundfile

        known = _FORMATS.get(suffix.lower())
        if known is None:
            raise AudioError(f"cannot write audio as {suffix!r}: use {' or '.join(_FORMATS)}")
        samples = to_int16(self.samples)
        buffer = io.BytesIO()
        form, subtype = known
        with soundfile.SoundFile(buffer, "w", self.sample_rate, 1, subtype, format=form) as file:
            for name, value in self.tags.items():
                setattr(file, name, value)
            file.write(samples)
        return buffer.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write 16-bit wav or flac, by the suffix. A temporary file is renamed at the end: never half a file.

        Raises:
            AudioError: the suffix is unknown, the folder is missing, or the path cannot be written.
        """
        target = Path(path)
        write_atomically(target, self.encode(target.suffix))
        return target


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `target` at the end, whole; when something is raised it is deleted instead.

    Raises:
        AudioError: the folder is missing or not writable, or the disk is full.
    """
    partial = target.parent / f".{secrets.token_hex(8)}.part"
    try:
        # made by us and nobody else; the kernel takes the user's umask from its mode
        handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        with os.fdopen(handle, "w+b") as file:
            yield file
        os.replace(partial, target)
    except OSError as error:
        raise AudioError(f"cannot write {target}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):  # the folder may be missing, or read-only by now
            partial.unlink()


def check_place(path: Path) -> None:
    """Refuse a file that could not be written there, before any work is done.

    Raises:
        AudioError: it is a folder, there is no such folder to put it in, or no permission.
    """
    if path.is_dir():
        raise AudioError(f"cannot write {path}: it is a folder")
    if not path.parent.is_dir():
        raise AudioError(f"cannot write {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise AudioError(f"cannot write {path}: no permission in {path.parent}")


def write_atomically(target: Path, data: bytes) -> None:
    """Write `data` beside `target`, then rename, so that a full disk or a stop leaves no half-written file.

    Raises:
        AudioError: the folder is missing or not writable, or the disk is full.
    """
    if target.is_dir():
        raise AudioError(f"cannot write {target}: it is a folder")
    if target.exists() and not target.is_file():
        # A device or a pipe (/dev/stdout, /dev/null) cannot be replaced by a rename.
        try:
            target.write_bytes(data)
        except OSError as error:
            raise AudioError(f"cannot write {target}: {error.strerror or error}") from None
        return
    with replacing(target) as file:
        file.write(data)


def read_channels(source: str | os.PathLike[str] | BinaryIO, seconds: float | None = None) -> tuple[FloatArray, int]:
    """Samples float32 [T, channels] of an audio file, and their rate in Hz. What libsndfile reads: wav, flac, ogg
    (Vorbis, Opus), mp3, aiff, au, caf and others; m4a and webm are not among them.

    Args:
        seconds: the first so many alone; None: all.

    Raises:
        AudioError: the file is missing, unreadable, empty, or holds NaN.
    """
    import soundfile

    name = getattr(source, "name", source if isinstance(source, str | os.PathLike) else "from memory")
    try:
        with soundfile.SoundFile(source) as file:
            rate = int(file.samplerate)
            most = -1 if seconds is None else int(seconds * rate)
            samples = file.read(most, dtype="float32", always_2d=True)
    except (OSError, RuntimeError, TypeError) as error:
        raise AudioError(f"cannot read audio {name}: {error}") from None
    if samples.shape[0] == 0:
        raise AudioError(f"cannot read audio {name}: it holds no samples")
    if not np.isfinite(samples).all():
        raise AudioError(f"cannot read audio {name}: it holds NaN or infinite samples")
    return samples, rate


def to_int16(samples: FloatArray) -> npt.NDArray[np.int16]:
    """float32 [T] to 16 bit [T], clipped: the nearest whole number of 32,768ths.

    What reads 16 bit divides by 32,768 (libsndfile, FFmpeg, browsers), so the gain is 1, silence stays 0, and nothing
    below full scale is off by more than half a step.

    Raises:
        AudioError: NaN or infinity.
    """
    if not np.isfinite(samples).all():
        raise AudioError("the audio holds NaN or infinite samples and was not written")
    return np.clip(np.rint(samples * np.float32(32768)), -32768, 32767).astype("<i2")


def wav_header(rate: int, size: int = UNKNOWN, info: bytes = b"") -> bytes:
    """44 bytes and `info` (`wav_info`) before mono samples of 16 bit; size: theirs in bytes. Readers take an unknown
    one as "to the end".
    """
    riff = struct.pack("<4sI4s", b"RIFF", min(size + 36 + len(info), UNKNOWN), b"WAVE")
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return riff + form + info + struct.pack("<4sI", b"data", min(size, UNKNOWN))


def wav_info(tags: Mapping[str, str]) -> bytes:
    """The chunk of a wav file that holds tags ("software", "comment"), before its samples; empty without any."""
    names = {"software": b"ISFT", "comment": b"ICMT"}
    parts = []
    for name, value in tags.items():
        text = value.encode() + b"\0"
        parts.append(names[name] + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2))
    body = b"INFO" + b"".join(parts)
    return b"LIST" + struct.pack("<I", len(body)) + body if parts else b""


def load_audio(source: str | os.PathLike[str] | BinaryIO, sample_rate: int | None = None) -> Audio:
    """Read an audio file (see `read_channels`), mixed down to mono, resampled if `sample_rate` is given.

    Raises:
        AudioError: the file is missing, unreadable, empty, or holds NaN.
    """
    samples, rate = read_channels(source)
    mono = samples.mean(axis=1, dtype=np.float32)
    if sample_rate is not None and sample_rate != rate:
        return Audio(resample(mono, rate, sample_rate), sample_rate)
    return Audio(mono, rate)


def resample(samples: npt.ArrayLike, source_rate: int, target_rate: int) -> FloatArray:
    """Band-limited resampling (soxr, high quality): float32 [T] to float32 [about T * target / source]."""
    signal = np.ascontiguousarray(samples, dtype=np.float32)
    if source_rate <= 0 or target_rate <= 0:
        raise AudioError(f"sample rates must be positive, got {source_rate} and {target_rate}")
    if source_rate == target_rate:
        return signal
    import soxr

    return np.asarray(soxr.resample(signal, source_rate, target_rate, quality="HQ"), dtype=np.float32)


@lru_cache(maxsize=16)
def mel_filterbank(
    sample_rate: int, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None
) -> FloatArray:
    """Triangular filters on the Slaney mel scale, each of unit area in Hz: float32 [n_mels, n_fft // 2 + 1].

    Linear below 1 kHz (200 / 3 Hz a mel), logarithmic above (27 mels for a factor of 6.4), as in Slaney's Auditory
    Toolbox (1998).
    """
    f_max = sample_rate / 2 if f_max is None else f_max
    if not 0 <= f_min < f_max <= sample_rate / 2:
        raise AudioError(f"mel range {f_min}..{f_max} Hz does not fit a sample rate of {sample_rate} Hz")
    knee, slope, step = 1000.0, 200.0 / 3.0, np.log(6.4) / 27.0

    def to_mel(hertz: float) -> float:
        return hertz / slope if hertz < knee else knee / slope + float(np.log(hertz / knee)) / step

    mels = np.linspace(to_mel(f_min), to_mel(f_max), n_mels + 2)
    edges = np.where(mels < knee / slope, mels * slope, knee * np.exp(step * (mels - knee / slope)))
    bins = np.linspace(0.0, sample_rate / 2, n_fft // 2 + 1)
    rising = (bins[None] - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins[None]) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))[:, None]
    return filters.astype(np.float32)
