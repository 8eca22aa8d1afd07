"""What the vocoder is taught to follow, from the audio: pitch, voicing, phase and energy of every frame of a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from spear_spec.config import Clock

F0_FLOOR, F0_CEIL = 55.0, 500.0
REST_F0 = 150.0  # where nothing is voiced
PITCH_RATE = 80  # values of a synthesiser's own F0 a second: every 300 samples at 24 kHz

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Frames:
    """Features at the centres of the frames of the clock: f0 (Hz, interpolated where unvoiced), voiced (0/1),
    phase of the fundamental (radians, wrapped), energy (log RMS)."""

    f0: Array
    voiced: Array
    phase: Array
    energy: Array


def analyse(samples: Array, clock: Clock) -> Frames:
    """Pitch, voicing, phase and energy of samples [F * hop] on the clock: arrays [F].

    F0 by DIO with StoneMask (WORLD; Morise 2016). The phase comes from demodulating the signal with the integral of F0:
    the low-passed angle, unwrapped, is what the integral lacks, so that the excitation of the vocoder can run in step
    with the recording. F0 is then the derivative of that phase.
    """
    import pyworld
    from scipy.signal import fftconvolve

    signal = samples.astype(np.float64)
    rate, hop = clock.sample_rate, clock.hop
    centres = _centres(len(signal), clock)
    count = len(centres)
    raw, times = pyworld.dio(signal, rate, f0_floor=F0_FLOOR, f0_ceil=F0_CEIL, frame_period=5.0)
    raw = pyworld.stonemask(signal, raw, times, rate)
    voiced_raw = raw > 0
    energy = analyse_energy(signal, clock)
    if voiced_raw.sum() < 4:
        angle = 2 * np.pi * REST_F0 * centres / rate
        return _frames(np.full(count, REST_F0), np.zeros(count), angle, energy)
    track = np.interp(np.arange(len(signal)) / rate, times[voiced_raw], raw[voiced_raw])
    angle = 2 * np.pi * np.cumsum(track) / rate
    lowpass = np.hanning(int(0.03 * rate))
    residue = fftconvolve(signal * np.exp(-1j * angle), lowpass / lowpass.sum(), "same")
    voiced = np.interp(centres / rate, times, voiced_raw.astype(np.float64)) > 0.75
    correction = np.unwrap(np.angle(residue))[centres]
    if voiced.sum() > 1:
        index = np.flatnonzero(voiced)
        correction = np.interp(np.arange(count), index, correction[index])
    phase = angle[centres] + correction
    step = np.diff(phase)
    f0 = np.empty(count)
    f0[1:-1] = 0.5 * (step[1:] + step[:-1])
    f0[0], f0[-1] = step[0], step[-1]
    f0 = np.clip(f0 * rate / (2 * np.pi * hop), F0_FLOOR * 0.8, F0_CEIL * 1.2)
    return _frames(f0, voiced, phase, energy)


def frames_from_pitch(samples: Array, pitch: Array, clock: Clock) -> Frames:
    """Features of samples [F * hop] whose synthesiser told its own F0: `pitch` in Hz, `PITCH_RATE` values a second.

    For a corpus spoken by a harmonic-plus-noise network (recipes/default_voice/teacher_pitch.py). Such a source counts
    a step as voiced where F0 is above 10 Hz and runs its sine's phase straight from the middle of one step to the
    middle of the next, so pitch, voicing and phase are exact. What `analyse` finds is not: its jitter smears the upper
    harmonics.
    """
    step = clock.sample_rate // PITCH_RATE
    rate, hop = clock.sample_rate, clock.hop
    energy = analyse_energy(samples.astype(np.float64), clock)
    centres = _centres(len(samples), clock)
    count = len(centres)
    curve = pitch.astype(np.float64)
    last = len(curve) - 1
    voiced = (curve > 10)[np.clip(centres // step, 0, last)] & (centres < len(curve) * step)
    phase = np.interp(
        centres, np.arange(len(curve)) * step + (step - 1) / 2, np.cumsum(curve) * (2 * np.pi * step / rate)
    )
    speed = curve[np.clip(np.ceil((centres - (step - 1) / 2) / step).astype(np.int64), 0, last)]
    steady = np.flatnonzero(voiced & (speed > 50))
    if len(steady) < 2:
        angle = 2 * np.pi * REST_F0 * centres / rate
        f0 = np.full(count, REST_F0)
    else:
        f0 = np.exp(np.interp(np.arange(count), steady, np.log(speed[steady])))
        # Between voiced stretches the phase is free: F0's integral, bent so that it arrives in step.
        integral = np.concatenate([[0.0], np.cumsum(0.5 * (f0[1:] + f0[:-1]) * (2 * np.pi * hop / rate))])
        rest = np.unwrap(np.mod(phase - integral + np.pi, 2 * np.pi)[steady])
        angle = integral + np.interp(np.arange(count), steady, rest) - np.pi
    return _frames(f0, voiced, angle, energy)


def analyse_energy(signal: npt.NDArray[np.float64], clock: Clock) -> npt.NDArray[np.float64]:
    """Log RMS under a 40 ms Hann window at the frames' centres."""
    from scipy.signal import fftconvolve

    window = np.hanning(4 * clock.hop + 1)
    power = fftconvolve(signal**2, window / window.sum(), "same")
    return 0.5 * np.log(np.maximum(power[_centres(len(signal), clock)], 1e-10))


def _centres(samples: int, clock: Clock) -> npt.NDArray[np.int64]:
    """The sample in the middle of each frame."""
    return np.arange(samples // clock.hop) * clock.hop + clock.hop // 2


def _frames(
    f0: npt.NDArray[Any], voiced: npt.NDArray[Any], phase: npt.NDArray[Any], energy: npt.NDArray[Any]
) -> Frames:
    """In float32, the phase wrapped."""
    return Frames(*(x.astype(np.float32) for x in (f0, voiced, _wrap(phase), energy)))


def _wrap(angle: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.mod(angle, 2 * np.pi)
