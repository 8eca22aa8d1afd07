"""The pulse train against plain sums of cosines and the Fourier transform; the phase against integration by hand."""

from __future__ import annotations

import math

import pytest
import torch

from spear_spec.acoustic.unit.excitation import advance_phase, drive, token_noise, unwrap
from spear_spec.acoustic.unit.vocoder import VocoderConfig, drive_for, drive_from_phase

RATE, HOP = 24000, 240


@pytest.mark.parametrize("pitch", [80.0, 123.4, 317.0])
def test_constant_pitch_gives_a_line_at_every_harmonic_and_nothing_between(pitch: float) -> None:
    f0 = torch.full((1, 101), pitch, dtype=torch.float64)
    samples = drive_for(f0, torch.tensor([0.7], dtype=torch.float64), VocoderConfig())[0, 0]
    assert samples.shape == (101 * HOP,)
    window = torch.hann_window(len(samples), dtype=torch.float64)
    power = torch.fft.rfft(samples.double() * window).abs() ** 2
    bin_hertz = RATE / len(samples)
    expected = int(round(pitch / bin_hertz))
    assert abs(int(power[: 3 * expected // 2].argmax()) - expected) <= 1
    frequencies = torch.arange(len(power)) * bin_hertz
    harmonic = torch.round(frequencies / pitch) * pitch
    near = (frequencies - harmonic).abs() < 4 * bin_hertz
    assert float(power[near].sum() / power.sum()) > 0.999
    assert float((samples.double() ** 2).mean()) == pytest.approx(1.0, rel=0.03)


def test_closed_form_equals_the_sum_of_cosines() -> None:
    f0 = 150.0 + 60.0 * torch.sin(torch.arange(30, dtype=torch.float64) / 4)[None]
    phase = advance_phase(f0, HOP / RATE, torch.tensor([1.0], dtype=torch.float64))
    samples = drive(phase, f0, HOP, RATE)[0, 0].double()
    t = torch.arange(HOP, dtype=torch.float64) / HOP
    expected = []
    for i in range(f0.shape[1] - 1):
        p0, p1, step = phase[0, i], phase[0, i + 1], 2 * math.pi * HOP / RATE
        m0, m1 = step * f0[0, i], step * f0[0, i + 1]
        # Hermite basis, written out
        angle = (
            (2 * t**3 - 3 * t**2 + 1) * p0
            + (t**3 - 2 * t**2 + t) * m0
            + (-2 * t**3 + 3 * t**2) * p1
            + (t**3 - t**2) * m1
        )
        highest = 0.49 * RATE / (f0[0, i] + (f0[0, i + 1] - f0[0, i]) * t)
        total = torch.zeros(HOP, dtype=torch.float64)
        for harmonic in range(1, 140):
            total += (highest - harmonic + 1).clamp(0, 1) * torch.cos(harmonic * angle)
        expected.append(total * torch.sqrt(2 / highest))
    # float32 inside the sine of up to a hundred periods
    assert float((samples - torch.cat(expected)).abs().max()) < 5e-3


def test_phase_of_a_linear_glide_is_its_integral() -> None:
    f0 = torch.linspace(100, 300, 201, dtype=torch.float64)[None]
    phase = advance_phase(f0, 0.01, torch.tensor([0.25], dtype=torch.float64))
    t = torch.arange(201, dtype=torch.float64) * 0.01
    exact = 0.25 + 2 * math.pi * (100 * t + 0.5 * 100 * t**2)
    assert torch.allclose(phase[0], exact, rtol=0, atol=1e-9)


def test_unwrap_restores_a_wrapped_phase() -> None:
    f0 = 180.0 + 90.0 * torch.sin(torch.arange(200, dtype=torch.float64) / 7)[None]
    truth = advance_phase(f0, 0.01, torch.tensor([0.5], dtype=torch.float64)) + 0.4 * torch.randn(
        1, 200, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    restored = unwrap(torch.remainder(truth, 2 * math.pi), f0, 0.01)
    shift = restored[0, 0] - truth[0, 0]
    assert torch.allclose(restored - shift, truth, rtol=0, atol=1e-9)


def test_a_phase_that_is_given_is_kept() -> None:
    """Training hands over the recording's own phase: at every frame's centre the pulse train must be in step with
    it.
    """
    cfg = VocoderConfig()
    f0 = torch.full((1, 50), 100.0, dtype=torch.float64)
    phase = advance_phase(f0, HOP / RATE, torch.zeros(1, dtype=torch.float64))
    samples = drive_from_phase(phase, f0, cfg)[0, 0]
    # phase 0 at centre 120, then a pulse every 240 samples
    peaks = torch.topk(samples, 50).indices.sort().values
    assert torch.equal(peaks, torch.arange(50) * 240 + 120)


def test_noise_does_not_depend_on_the_chunking() -> None:
    whole = token_noise(torch.Generator().manual_seed(5), [960] * 7)
    generator = torch.Generator().manual_seed(5)
    pieces = torch.cat([token_noise(generator, [960] * n) for n in (1, 0, 4, 2)])
    assert torch.equal(whole, pieces)
    assert float(whole.std()) == pytest.approx(1.0, abs=0.03)
