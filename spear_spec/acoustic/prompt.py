"""A prompt: a few seconds of somebody's speech, read, looked at and made ready for a stage that hears voices."""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spear_spec.acoustic.contract import AcousticStage, Heard
from spear_spec.acoustic.speech import HOP_S, Sounding, listen, spread
from spear_spec.audio import Audio, FloatArray, read_channels
from spear_spec.errors import AudioError, ConfigError

log = logging.getLogger("spear_spec")

LEAST_S = 1.0  # of speech
MOST_S = 10.0  # what a stage gets unless it says otherwise
READ_S = 60.0  # of a long file the beginning is read
SLOWEST_RATE = 8000
_LEVEL = 0.08  # root mean square of the speech that a stage gets, as in the corpora; its peak stays below full scale
_PAUSE, _END = 25, 10  # frames: silence beside speech that is kept, within a prompt and at its ends
_NOISE, _NOISY = 0.05, 0.12  # flatness of what is no speech, from which it is noise; of speech, from which it has noise
_SPEECH, _CLEAR = 0.12, 0.25  # share of voiced frames: of speech at least (a whisper has .2); of clear speech
_NOTES = 0.5  # share of voiced frames whose pitch stands still
_CLIPPED = 2e-3  # share of samples that lie in a run at the peak

Source = Any  # str | os.PathLike[str] | bytes | BinaryIO | Audio | tuple[samples, rate]


@dataclass(frozen=True)
class Prompt:
    """A prompt made ready: samples float32 [T], mono, at `sample_rate` Hz, without the silence around the speech.

    speech_s: how much speech was found (in the first minute). sha256: of the file, or of the samples and their rate.
    warnings: what makes it a poor prompt.
    """

    samples: FloatArray
    sample_rate: int
    speech_s: float
    sha256: str
    warnings: tuple[str, ...] = ()


def open_prompt(source: Source, most_s: float = MOST_S) -> Prompt:
    """Read a prompt and look whether it is speech.

    Args:
        source: a file (what `read_channels` reads), its bytes, an `Audio`, or (samples float [T] or [T, channels],
            rate in Hz).
        most_s: the first so many seconds of speech are kept.

    Raises:
        AudioError: it cannot be read; silence, noise or music; less than a second of speech.
    """
    name, channels, rate, sha256 = _read(source)
    if rate < SLOWEST_RATE:
        raise AudioError(f"{name} has {rate} samples a second: a prompt needs {SLOWEST_RATE} or more")
    mono = _mixed(channels)
    sounding = listen(mono, rate)
    warnings = _judged(name, sounding)
    if _clipped_share(mono) > _CLIPPED:
        warnings.append(f"{name} is clipped: a quieter recording makes a better prompt")
    samples = _levelled(_kept(mono, rate, sounding, most_s), rate)
    return Prompt(samples, rate, sounding.speech_s, sha256, tuple(warnings))


def warn(prompt: Prompt) -> None:
    """Log what is wrong with it."""
    for warning in prompt.warnings:
        log.warning("prompt: %s", warning)


def digest_of(path: str | os.PathLike[str]) -> str:
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


def check_hears(stage: AcousticStage, speakers: Sequence[str]) -> None:
    """Refuse a stage that has named speakers only.

    Raises:
        ConfigError: it cannot hear a voice in a prompt.
    """
    if not callable(getattr(stage, "prompt", None)):
        known = ", ".join(speakers)
        raise ConfigError(f"this voice takes no prompts: its sound is that of its own speakers ({known})")


def hear(stage: AcousticStage, prompt: Prompt) -> Heard:
    """The voice that a stage hears in it.

    Raises:
        AudioError: the stage cannot use it.
    """
    heard: Heard = stage.prompt(torch.from_numpy(prompt.samples.copy()), prompt.sample_rate)  # type: ignore[attr-defined]
    return replace(heard, sha256=prompt.sha256)


def _read(source: Source) -> tuple[str, FloatArray, int, str]:
    """(name for messages, samples [T, channels], rate, SHA-256)."""
    if isinstance(source, Audio):
        source = source.samples, source.sample_rate
    if isinstance(source, tuple):
        try:
            samples, rate = source
            values, rate = np.ascontiguousarray(samples, dtype=np.float32), int(rate)
        except (TypeError, ValueError):
            raise AudioError("a prompt of samples is a pair: float samples [T] or [T, channels], rate in Hz") from None
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or not values.size:
            raise AudioError(f"a prompt's samples are [T] or [T, channels], not of shape {list(np.shape(samples))}")
        if not np.isfinite(values).all():
            raise AudioError("the prompt holds NaN or infinite samples")
        digest = hashlib.sha256(f"{rate} {values.shape[1]}\n".encode() + values.tobytes()).hexdigest()
        return "the prompt", values[: int(READ_S * rate)], rate, digest
    if isinstance(source, str | os.PathLike):
        path = Path(source)
        digest = digest_of(path)
        return str(path), *read_channels(path, READ_S), digest
    data = source if isinstance(source, bytes) else getattr(source, "read", lambda: None)()
    if not isinstance(data, bytes):
        raise AudioError(f"a prompt is a file, its bytes, an Audio or (samples, rate), not {type(source).__name__}")
    return "the prompt", *read_channels(io.BytesIO(data), READ_S), hashlib.sha256(data).hexdigest()


def _mixed(channels: FloatArray) -> FloatArray:
    """One channel [T] of [T, channels], without its mean; the loudest one where the others take it away (one of two
    microphones wired the wrong way round)."""
    channels = channels - channels.mean(axis=0)
    mono = channels.mean(axis=1)
    powers = np.square(channels, dtype=np.float64).mean(axis=0)
    loudest = int(powers.argmax())
    # a dead channel leaves a quarter of the loudest one's power
    if np.square(mono, dtype=np.float64).mean() < 0.9 * powers[loudest] / channels.shape[1] ** 2:
        mono = channels[:, loudest]
    return np.ascontiguousarray(mono, dtype=np.float32)


def _judged(name: str, sounding: Sounding) -> list[str]:
    """What makes it a poor prompt.

    Raises:
        AudioError: it is none.
    """
    if not sounding.active.any():
        what = "it is silent" if len(sounding.level) else "it is shorter than a tenth of a second"
        raise AudioError(f"{name} holds no speech: {what}. A prompt is {LEAST_S:g} s or more of one person's speech")
    if sounding.still_share > _NOTES:
        raise AudioError(f"{name} holds music or a tone, not speech (its pitch stands still): give speech alone")
    if sounding.voiced_share < _SPEECH:
        what = "noise" if sounding.flatness > _NOISE else "music"
        raise AudioError(f"{name} holds {what}, not speech: give {LEAST_S:g} s or more of one person's speech")
    if sounding.speech_s < LEAST_S:
        raise AudioError(
            f"{name} has {sounding.speech_s:.1f} s of speech: a prompt needs {LEAST_S:g} s or more, 3 s are good"
        )
    warnings = []
    if sounding.flatness > _NOISY:
        warnings.append(f"{name} has noise in it: the voice may sound noisy")
    elif sounding.voiced_share < _CLEAR:
        warnings.append(f"{name} has little clear voice in it: it is whispered, or there is music behind it")
    return warnings


def _clipped_share(mono: FloatArray) -> float:
    """Samples that lie at the peak with both of their neighbours."""
    at = np.abs(mono) >= 0.999 * np.abs(mono).max(initial=0.0)
    return float((at[1:-1] & at[:-2] & at[2:]).mean()) if len(mono) > 2 else 0.0


def _kept(mono: FloatArray, rate: int, sounding: Sounding, most_s: float) -> FloatArray:
    """The speech, with what is around it: long pauses are shortened, the silence at the ends goes."""
    speech = sounding.speech & (np.cumsum(sounding.speech) * HOP_S <= most_s)
    there = np.flatnonzero(speech)
    near = spread(speech, _PAUSE)
    near[: max(0, there[0] - _END)] = near[there[-1] + _END + 1 :] = False
    kept = np.repeat(near, round(1000 * HOP_S))  # milliseconds
    kept = np.concatenate([kept, np.repeat(near[-1:], 30)])  # the window of the last frame
    # a sample belongs to the millisecond that it lies in
    ms = np.minimum((np.arange(len(mono)) * 1000) // rate, len(kept) - 1)
    return np.ascontiguousarray(mono[kept[ms]])


def _levelled(samples: FloatArray, rate: int) -> FloatArray:
    """At the level of the corpora; pauses do not count."""
    size = max(1, int(rate * HOP_S))
    powers = np.square(samples[: len(samples) // size * size], dtype=np.float64).reshape(-1, size).mean(1)
    loud = powers[powers > powers.mean() / 100].mean()
    gain = min(_LEVEL / float(np.sqrt(loud)), 0.99 / float(np.abs(samples).max()))
    return np.asarray(samples * np.float32(gain), dtype=np.float32)
