"""What makes a clip unfit to be learnt from: the audio is damaged, cut off, silent, or not what the text says."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.ctc import phones

FULL = 0.999  # of full scale: a sample there was cut off if its neighbour was, too
SILENT_PEAK = 1e-3  # -60 dB of full scale
UNKNOWN = (0, 0xFFFFFFFF)  # sizes of a data chunk that was written to a pipe


@dataclass(frozen=True)
class Limits:
    """shortest, longest: seconds; clipped: largest share of samples that are cut off; pace: phones a second."""

    shortest: float = 0.3
    longest: float = 30.0
    clipped: float = 0.005
    pace: tuple[float, float] = (1.0, 40.0)


def measure(
    clips: Iterable[Clip], limits: Limits | None = None, *, progress: bool = True
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """The clips that are fit, with their length, and (id, reason) of the others. All of the audio is decoded."""
    kept, dropped = [], []
    for clip in tqdm(list(clips), desc="audio", disable=not progress):
        seconds, reason = examine(clip, limits or Limits())
        if reason is None:
            kept.append(replace(clip, seconds=round(seconds, 3)))
        else:
            dropped.append((clip.id, reason))
    return kept, dropped


def examine(clip: Clip, limits: Limits) -> tuple[float, str | None]:
    """Seconds of a clip (0 where they cannot be told), and what is wrong with it, or None."""
    import soundfile

    try:
        info = soundfile.info(clip.audio)
        seconds = info.frames / info.samplerate
        if not limits.shortest <= seconds <= limits.longest:
            return seconds, f"{seconds:.2f} s long"
        if (missing := missing_bytes(Path(clip.audio))) > 0:
            return seconds, f"truncated: {missing} bytes of audio are missing"
        samples, _ = soundfile.read(clip.audio, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        return 0.0, f"audio: unreadable ({str(error).rpartition(': ')[2]})"
    if len(samples) < info.frames:
        return seconds, f"truncated: {len(samples)} of {info.frames} samples"
    if not np.isfinite(samples).all():
        return seconds, "audio: not finite"
    if float(np.abs(samples).max()) < SILENT_PEAK:
        return seconds, "silent"
    if (share := clipped_share(samples)) > limits.clipped:
        return seconds, f"clipped: {100 * share:.2f} % of the samples"
    return seconds, odd_pace(clip.phonemes, seconds, limits.pace)


def missing_bytes(path: Path) -> int:
    """How many bytes the header of a wav promises more than the file has; 0 for other files. libsndfile takes such a
    file for a shorter one.
    """
    with path.open("rb") as file:
        if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
            return 0
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                left = os.fstat(file.fileno()).st_size - file.tell()
                return 0 if size in UNKNOWN else max(0, size - left)
            file.seek(size + size % 2, os.SEEK_CUR)
    return 0


def clipped_share(samples: npt.NDArray[np.float32]) -> float:
    """Share of samples [T, channels] that stand at full scale beside another one that does, of the worst channel."""
    full = np.abs(samples) >= FULL
    beside = np.zeros_like(full)
    beside[1:] |= full[:-1]
    beside[:-1] |= full[1:]
    return float((full & beside).mean(0).max())


def odd_pace(phonemes: str | None, seconds: float, pace: tuple[float, float]) -> str | None:
    """That there are too few or too many phones a second for the text to be what is said; None: it may well be."""
    if phonemes is None:
        return None
    rate = len(phones(phonemes)) / seconds
    if pace[0] <= rate <= pace[1]:
        return None
    return f"mistranscribed: {rate:.1f} phones a second"
