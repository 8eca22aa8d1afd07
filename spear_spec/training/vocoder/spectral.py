"""Spectra and spectral losses for training the vocoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.audio import mel_filterbank


class _RealFFT(torch.autograd.Function):
    """rfft over the last axis, of even length. Its backward is one inverse real transform, where autograd's own runs a
    complex transform of full length: many times slower on a CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.length = x.shape[-1]
        return torch.fft.rfft(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad * 0.5
        grad[..., 0] *= 2
        grad[..., -1] *= 2
        return torch.fft.irfft(grad, n=ctx.length, norm="forward")


def rfft(x: Tensor) -> Tensor:
    """torch.fft.rfft over an even last axis, with a cheap backward."""
    return _RealFFT.apply(x)  # type: ignore[no-any-return,no-untyped-call]


def stft(samples: Tensor, window: Tensor, hop: int) -> Tensor:
    """Short-time spectra of samples [B, T], frames centred, edges reflected: complex [B, 1 + T // hop, n_fft // 2 +
    1].
    """
    size = len(window)
    padded = F.pad(samples, (size // 2, size // 2), mode="reflect")
    return rfft(padded.unfold(1, size, hop) * window)


# Hz. Above, the teacher's harmonics drown in noise and their phase cannot be predicted: a loss there would only make
# the
# voice duller.
PHASE_BAND = 1800


class SpectralLoss(nn.Module):
    """L1 between log spectra, linear and mel, and between compressed complex spectra, at several resolutions."""

    def __init__(self, sample_rate: int, sizes: Sequence[int] = (2048, 1024, 512, 256, 128)) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.sample_rate = sample_rate
        for size, mels in zip(self.sizes, (160, 100, 64, 32, 16), strict=False):
            self.register_buffer(f"window_{size}", torch.hann_window(size), persistent=False)
            filters = torch.from_numpy(mel_filterbank(sample_rate, size, mels).copy()).T
            # Unit peak instead of unit area: then log-mel values compare with log magnitudes.
            self.register_buffer(
                f"mel_{size}", filters / filters.sum(0, keepdim=True).clamp_min(1e-9), persistent=False
            )

    def forward(
        self, fake: Tensor, real: Tensor, voiced: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Mel, magnitude and phase loss of waveforms [B, T], and the coherence (1 = in phase) under and over 1.5 kHz.

        The phase loss counts where `voiced` [B, any rate] is 1: the phase of noise cannot be predicted.
        """
        both = torch.cat([fake, real])
        half = len(fake)
        mel_loss = linear_loss = phase_loss = low = high = fake.new_zeros(())
        for size in self.sizes:
            window, filters = getattr(self, f"window_{size}"), getattr(self, f"mel_{size}")
            spectrum = stft(both, window, size // 4)
            power = spectrum.real**2 + spectrum.imag**2
            magnitude = torch.sqrt(power + 1e-8)
            log = torch.log(magnitude + 1e-3)
            mel = torch.log(magnitude @ filters + 1e-3)
            mel_loss = mel_loss + (mel[:half] - mel[half:]).abs().mean()
            linear_loss = linear_loss + (log[:half] - log[half:]).abs().mean()
            if size in (512, 1024):
                top = int(PHASE_BAND * size / self.sample_rate)
                scale = (power[..., :top] + 1e-4).pow(-0.3)
                real_part, imaginary = spectrum.real[..., :top] * scale, spectrum.imag[..., :top] * scale
                difference = (real_part[:half] - real_part[half:]).abs() + (imaginary[:half] - imaginary[half:]).abs()
                rows = difference.mean(-1)
                if voiced is not None:
                    weight = F.interpolate(voiced[:, None], rows.shape[1], mode="nearest")[:, 0]
                    rows = rows * weight / weight.mean().clamp_min(0.1)
                phase_loss = phase_loss + rows.mean()
            if size == 1024:
                with torch.no_grad():
                    cross = (spectrum[:half] * spectrum[half:].conj()).real
                    norm = magnitude[:half] * magnitude[half:]
                    edges = [int(f * size / self.sample_rate) for f in (0, 1500, 4500)]
                    low, high = (
                        cross[..., a:b].sum() / norm[..., a:b].sum().clamp_min(1e-9)
                        for a, b in zip(edges[:-1], edges[1:], strict=True)
                    )
        count = len(self.sizes)
        return mel_loss / count, linear_loss / count, phase_loss / 2, (low, high)
