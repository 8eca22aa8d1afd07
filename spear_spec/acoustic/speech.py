"""Is it speech? A few plain measures of a recording, frame by frame: how loud, how periodic, at what pitch, how flat.

Speech is mostly voiced (its autocorrelation has a high peak at the period of the voice: Boersma, "Accurate short-term
analysis of the fundamental frequency", 1993), and its pitch never stands still, while notes do; noise has a flat
spectrum (the geometric over the arithmetic mean of its bins, Johnston 1988), a chord neither one period nor a flat one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from spear_spec.audio import FloatArray, resample

RATE = 16_000  # Hz: what is listened to
HOP_S = 0.01
_HOP, _WINDOW, _FFT = 160, 640, 2048
_PITCHES = 40, 230  # lags: 400 to 70 Hz
_PERIODIC = 0.6  # peak of the autocorrelation from which a frame is voiced; noise 10 dB below speech leaves .9 of it
_OCTAVE = 0.02  # what a peak is worth less an octave lower: two periods fit as well as one (Boersma's octave cost)
_BELOW_DB = 30.0  # frames so far below the loudest ones are silence
_SILENT = 1e-3  # -60 dB of full scale
_AROUND = 15  # frames: what stands so near to a voiced one is speech
_APART, _STILL_CENTS, _LEAP_CENTS = 5, 10.0, 300.0  # pitch is compared over so many frames

Values = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sounding:
    """Measures of a recording, one value for each frame of 10 ms (windows of 40 ms at 16 kHz).

    level: dB, between 80 and 3800 Hz. periodic: peak of the autocorrelation at lags of 70 to 400 Hz, 1 for a periodic
    frame. pitch: Hz, of that lag. flat: flatness of the spectrum between 100 and 3800 Hz, .56 for white noise.
    peak: the largest sample of all.
    """

    level: Values
    periodic: Values
    pitch: Values
    flat: Values
    peak: float

    @cached_property
    def active(self) -> Flags:
        """Frames that are not silence."""
        if not len(self.level) or self.peak < _SILENT:
            return np.zeros(len(self.level), dtype=bool)
        return self.level > np.percentile(self.level, 95) - _BELOW_DB

    @cached_property
    def voiced(self) -> Flags:
        return self.active & (self.periodic > _PERIODIC)

    @cached_property
    def speech(self) -> Flags:
        """Frames that are voiced, or near to one that is: consonants and short pauses."""
        return spread(self.voiced, _AROUND)

    @property
    def speech_s(self) -> float:
        return float(self.speech.sum()) * HOP_S

    @property
    def voiced_share(self) -> float:
        """Of the active frames: .5 to .9 for speech, about 0 for noise and chords."""
        return float(self.voiced.sum() / max(1, self.active.sum()))

    @property
    def still_share(self) -> float:
        """How often the pitch of a voiced frame is the one of 50 ms before, to a tenth of a semitone: below .1 for
        speech, about 1 for notes; 0 where nothing is voiced.
        """
        both = self.voiced[_APART:] & self.voiced[:-_APART]
        cents = 1200 * np.abs(np.diff(np.log2([self.pitch[_APART:], self.pitch[:-_APART]]), axis=0))[0][both]
        near = cents[cents < _LEAP_CENTS]
        return float((near < _STILL_CENTS).mean()) if near.size else 0.0

    @property
    def flatness(self) -> float:
        """The median of the active frames: about .02 for clean speech, .15 with noise 10 dB below it."""
        return float(np.median(self.flat[self.active])) if self.active.any() else 0.0


def listen(samples: FloatArray, rate: int) -> Sounding:
    """Measure samples float32 [T] at this rate; a tenth of a second or less has no frames."""
    wave = resample(samples, rate, RATE)
    count = max(0, (len(wave) - _WINDOW) // _HOP + 1)
    window = np.hanning(_WINDOW)
    bins = np.fft.rfftfreq(_FFT, 1 / RATE)
    voice, pitched = (bins >= 80) & (bins <= 3800), (bins >= 80) & (bins <= 1500)
    spread_over = (bins >= 100) & (bins <= 3800)
    tilted = bins * pitched  # 3 dB an octave: low rumble has no period then, a voice still does
    low, high = _PITCHES
    dearer = _OCTAVE * np.log2(np.arange(low, high) / low)
    of_window = np.fft.irfft(np.abs(np.fft.rfft(window, _FFT)) ** 2)[: high + 1]
    parts: list[tuple[Values, ...]] = []
    for at in range(0, count, 1000):
        block = wave[at * _HOP : (min(at + 1000, count) - 1) * _HOP + _WINDOW]
        framed = np.lib.stride_tricks.sliding_window_view(block, _WINDOW)[::_HOP]
        power = np.abs(np.fft.rfft(framed * window, _FFT)) ** 2
        level = 10 * np.log10(power[:, voice].sum(1) + 1e-12)
        lagged = np.fft.irfft(power * tilted)[:, : high + 1] / of_window
        lagged /= lagged[:, :1] + 1e-12
        rows, lag = np.arange(len(lagged)), (lagged[:, low:high] - dearer).argmax(1) + low
        before, best, after = (lagged[rows, lag + step] for step in (-1, 0, 1))
        bend = before - 2 * best + after
        shift = np.divide(before - after, 2 * bend, out=np.zeros_like(bend), where=np.abs(bend) > 1e-12)
        inside = power[:, spread_over] + 1e-14
        flat = np.exp(np.log(inside).mean(1)) / inside.mean(1)
        parts.append((level, best, RATE / (lag + np.clip(shift, -1, 1)), flat))
    level, periodic, pitch, flat = (
        np.concatenate([np.zeros(0), *values]) for values in (zip(*parts) if parts else [()] * 4)
    )
    return Sounding(level, periodic, pitch, flat, float(np.abs(samples).max(initial=0.0)))


def spread(flags: Flags, frames: int) -> Flags:
    """Flags widened by so many frames on each side."""
    if not len(flags):
        return flags
    near = np.convolve(flags.astype(np.int64), np.ones(2 * frames + 1, dtype=np.int64))
    return np.asarray(near[frames : frames + len(flags)] > 0)
