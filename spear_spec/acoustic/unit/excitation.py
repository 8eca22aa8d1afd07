"""What drives the vocoder: a band-limited pulse train in step with a fundamental's phase, and white noise.

Above a few harmonics voiced speech is noise that swells and fades with every glottal period, so the noise comes in
three forms: steady, and multiplied by the cosine and the sine of the fundamental's phase.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TWO_PI = 2.0 * math.pi


def advance_phase(f0: Tensor, hop_seconds: float, start: Tensor) -> Tensor:
    """Phase of the fundamental at every frame, by the trapezoid rule on F0.

    Args:
        f0: Hz at the frames' centres, float64 [B, F].
        hop_seconds: from one frame to the next.
        start: phase at the first of these frames, radians, float64 [B].

    Returns:
        float64 [B, F], not wrapped.
    """
    steps = 0.5 * (f0[:, 1:] + f0[:, :-1]) * (TWO_PI * hop_seconds)
    return torch.cat([start[:, None], start[:, None] + torch.cumsum(steps, dim=1)], dim=1)


def unwrap(phase: Tensor, f0: Tensor, hop_seconds: float) -> Tensor:
    """Unwrapped phase [B, F] (float64) from wrapped phase and F0: the multiple of 2 pi nearest to F0's own integral."""
    phase, f0 = phase.double(), f0.double()
    expected = 0.5 * (f0[:, 1:] + f0[:, :-1]) * (TWO_PI * hop_seconds)
    step = phase[:, 1:] - phase[:, :-1]
    step = step + TWO_PI * torch.round((expected - step) / TWO_PI)
    return torch.cat([phase[:, :1], phase[:, :1] + torch.cumsum(step, dim=1)], dim=1)


def drive(phase: Tensor, f0: Tensor, hop: int, sample_rate: int) -> Tensor:
    """Pulse train, cosine and sine of the fundamental's phase, sampled from the first frame's centre to the last.

    The pulse train is the sum of all harmonics cos(h * phase) below the Nyquist frequency, of unit power.

    Phase and F0 at neighbouring centres fix a cubic (Hermite) phase between them. The sum has a closed form, the
    Dirichlet kernel; the harmonic that crosses the Nyquist frequency fades in and out.

    Args:
        phase: float64 [B, F], not wrapped; f0: Hz [B, F].

    Returns:
        float32 [B, 3, (F - 1) * hop].
    """
    f0 = f0.double()
    t = torch.arange(hop, dtype=torch.float64, device=f0.device) / hop
    slope = f0 * (TWO_PI * hop / sample_rate)
    p0, step = phase[:, :-1, None], (phase[:, 1:] - phase[:, :-1])[..., None]
    m0, m1 = slope[:, :-1, None], slope[:, 1:, None]
    angle = p0 + t * (m0 + t * ((3 * step - 2 * m0 - m1) + t * (m0 + m1 - 2 * step)))
    angle = torch.remainder(angle, TWO_PI).float()
    pitch = torch.lerp(f0[:, :-1, None], f0[:, 1:, None], t).float()
    highest = (0.49 * sample_rate) / pitch
    whole = torch.floor(highest)
    half = torch.sin(0.5 * angle)
    small = half.abs() < 1e-4
    kernel = torch.sin((whole + 0.5) * angle) / torch.where(small, torch.ones_like(half), 2 * half) - 0.5
    kernel = torch.where(small, whole, kernel) + (highest - whole) * torch.cos((whole + 1) * angle)
    pulses = kernel * torch.sqrt(2.0 / highest)
    return torch.stack([pulses.flatten(1), torch.cos(angle).flatten(1), torch.sin(angle).flatten(1)], dim=1)


def excite(driven: Tensor, noise: Tensor) -> Tensor:
    """Excitation [B, 4, L] from `drive`'s [B, 3, L] and white noise [B, L]: pulses, noise, noise * cos, noise * sin."""
    return torch.cat([driven[:, :1], noise[:, None], noise[:, None] * driven[:, 1:]], dim=1)


def token_noise(generator: torch.Generator, samples: Sequence[int], device: torch.device | None = None) -> Tensor:
    """White noise of unit variance, drawn token by token so that any chunking sees the same: float32 [sum].

    samples: of each token.
    """
    if not samples:
        return torch.zeros(0, dtype=torch.float32, device=device)
    where = generator.device
    drawn = [torch.randn(count, generator=generator, dtype=torch.float32, device=where) for count in samples]
    return torch.cat(drawn).to(device)
