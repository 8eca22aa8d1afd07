"""Speech of the shipped voice, made once a process."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from spear_spec.audio import FloatArray
from spear_spec.pipeline import TTS

RATE = 24_000
LOAD = TTS.load  # tests of pages put another in its place
TEXT = "The quick brown fox jumps over the lazy dog, while nobody is looking. Then it sleeps until the evening."


@lru_cache(maxsize=1)
def speech() -> FloatArray:
    """About six seconds, float32 [T] at RATE."""
    samples = LOAD(drafter="none").synthesize(TEXT, seed=3).samples
    samples.setflags(write=False)
    return samples


def chords(rate: int = RATE, seconds: float = 1.0) -> FloatArray:
    """Four chords of plucked strings."""
    time = np.arange(int(rate * seconds)) / rate
    bars = []
    for notes in ((261.6, 329.6, 392.0), (220.0, 261.6, 329.6), (174.6, 220.0, 261.6), (196.0, 246.9, 293.7)):
        strings = [np.sin(2 * np.pi * note * part * time) / part**1.5 for note in notes for part in range(1, 6)]
        bars.append(0.08 * np.sum(strings, axis=0) * np.exp(-1.5 * time))
    return np.concatenate(bars).astype(np.float32)
