"""Judges of the vocoder's GAN: by period (HiFi-GAN; Kong et al. 2020) and by compressed complex spectrogram (EnCodec,
DAC).

Channels are multiples of 32 and everything runs under bf16 autocast: on a CPU that decides the steps a minute.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from spear_spec.training.vocoder.spectral import stft

SLOPE = 0.1
# Speech is near .1; without this and the initialisation below the signal dies out on its way through a period judge.
GAIN = 8.0

Judgement = tuple[Tensor, list[Tensor]]


def _initialise(judge: nn.Module) -> None:
    """Weights that keep the variance through leaky ReLUs (He et al. 2015), no bias."""
    for module in judge.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            with torch.no_grad():
                module.weight = nn.init.kaiming_normal_(module.weight.clone(), a=SLOPE)
                if module.bias is not None:
                    module.bias.zero_()


class PeriodDiscriminator(nn.Module):
    """Folds the waveform [B, T] into `period` columns and convolves along time, each column by itself."""

    def __init__(self, period: int, channels: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.period = period
        sizes = [1, *channels]
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv1d(a, b, 5, stride=3, padding=2)) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.layers.append(weight_norm(nn.Conv1d(sizes[-1], sizes[-1], 5, padding=2)))
        self.out = weight_norm(nn.Conv1d(sizes[-1], 1, 3, padding=1))
        _initialise(self)

    def forward(self, samples: Tensor) -> Judgement:
        """Scores and features of samples [B, T]."""
        batch, length = samples.shape
        x = F.pad(GAIN * samples, (0, -length % self.period), mode="reflect")
        x = x.view(batch, -1, self.period).transpose(1, 2).reshape(batch * self.period, 1, -1)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE, inplace=True)
            features.append(x.view(batch, -1))
        return self.out(x).float().view(batch, -1), features


class SpectrogramDiscriminator(nn.Module):
    """Two-dimensional convolutions over real and imaginary parts, compressed by the power .4, and their magnitude."""

    window: Tensor

    def __init__(self, n_fft: int, channels: int = 32) -> None:
        super().__init__()
        self.n_fft, self.hop = n_fft, n_fft // 4
        self.register_buffer("window", torch.hann_window(n_fft), persistent=False)
        shapes = [(3, 2), (3, 2), (3, 2), (3, 2)]
        ins = [3] + [channels] * (len(shapes) - 1)
        self.layers = nn.ModuleList(
            weight_norm(nn.Conv2d(a, channels, (3, 5), stride=(1, stride), padding=(1, 2)))
            for a, (_, stride) in zip(ins, shapes, strict=True)
        )
        self.layers.append(weight_norm(nn.Conv2d(channels, channels, (3, 3), padding=1)))
        self.out = weight_norm(nn.Conv2d(channels, 1, (3, 3), padding=1))
        _initialise(self)

    def forward(self, samples: Tensor) -> Judgement:
        """Scores and features of samples [B, T]."""
        spectrum = stft(samples.float(), self.window, self.hop)[..., :-1]
        magnitude = torch.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-8)
        scale = magnitude.pow(-0.6)
        x = torch.stack([spectrum.real * scale, spectrum.imag * scale, magnitude.pow(0.4)], dim=1)
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        x = x.contiguous(memory_format=torch.channels_last)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE, inplace=True)
            features.append(x.flatten(1))
        return self.out(x).float().flatten(1), features


class Discriminators(nn.Module):
    """All judges. `select` names those that take part in a step; the others rest."""

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        sizes: Sequence[int] = (2048, 1024, 512),
        period_channels: Sequence[int] = (32, 64, 128, 256),
        channels: int = 32,
    ) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            [PeriodDiscriminator(p, period_channels) for p in periods]
            + [SpectrogramDiscriminator(n, channels) for n in sizes]
        )

    def __len__(self) -> int:
        return len(self.judges)

    def forward(self, samples: Tensor, select: Sequence[int] | None = None) -> list[Judgement]:
        """Scores and features by each (selected) judge of samples [B, T]."""
        chosen = range(len(self.judges)) if select is None else select
        return [self.judges[i](samples) for i in chosen]


def discriminator_loss(judgements: Sequence[Judgement], real: int) -> Tensor:
    """Least squares (Mao et al. 2017): the first `real` rows should score 1, the others 0."""
    total = judgements[0][0].new_zeros(())
    for score, _ in judgements:
        total = total + ((1 - score[:real]) ** 2).mean() + (score[real:] ** 2).mean()
    return total / len(judgements)


def generator_losses(fake: Sequence[Judgement], real: Sequence[Judgement]) -> tuple[Tensor, Tensor]:
    """Adversarial loss, and feature matching: L1 between features, relative to the real features' mean size."""
    adversarial = matching = fake[0][0].new_zeros(())
    for (score, features), (_, references) in zip(fake, real, strict=True):
        adversarial = adversarial + ((1 - score) ** 2).mean()
        terms = [
            (a - b).abs().mean(dtype=torch.float32) / b.abs().mean(dtype=torch.float32).clamp_min(1e-3)
            for a, b in zip(features, references, strict=True)
        ]
        matching = matching + torch.stack(terms).mean()
    return adversarial / len(fake), matching / len(fake)
