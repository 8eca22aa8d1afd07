"""A loss from what a speech recogniser hears: the hidden states of a frozen Whisper encoder, of the output and of the
recording.

Spectral losses count every decibel alike, wherever it lies; what tells an s from an f is a small part of them. A
recogniser's states are made of what tells words apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spear_spec.errors import ConfigError
from spear_spec.semantic import families
from spear_spec.semantic.families import SAMPLE_RATE, Whisper
from spear_spec.training.vocoder.spectral import stft

FRAMES = 100  # log-mels a second


class Recogniser(nn.Module):
    """The L1 distance between the states that two renderings of a crop leave, each channel in units of its own spread.

    Args:
        name: hub name or folder of a Whisper model; layers: of its hidden states; left out: behind each third of its
            blocks.
        sample_rate: of the crops, Hz. Its spectra are taken at this rate: a window of 25 ms has the same bins of 40 Hz
            at every rate, so nothing is resampled.

    Raises:
        ConfigError: the model is no Whisper, or 25 ms are not an even number of samples.
        MissingExtraError, BundleError: see `families.load`.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, name: str, sample_rate: int, layers: Sequence[int] = ()) -> None:
        super().__init__()
        whisper = families.load(name, torch.device("cpu"))
        if not isinstance(whisper, Whisper):
            raise ConfigError(f"the recogniser that the vocoder learns from must be a Whisper model, not {name}")
        if sample_rate < SAMPLE_RATE or sample_rate % 80:
            raise ConfigError(
                f"the recogniser needs at least {SAMPLE_RATE} Hz, in whole steps of 80, not {sample_rate}"
            )
        thirds = sorted({max(1, whisper.depth * third // 3) for third in (1, 2, 3)})
        self.layers, self.whisper, self.model = tuple(layers) or tuple(thirds), whisper, whisper.model
        self.hop = sample_rate // FRAMES
        self.register_buffer("window", torch.hann_window(sample_rate // 40), persistent=False)
        mels = torch.as_tensor(whisper.extract.mel_filters, dtype=torch.float32)  # [bins up to 8 kHz, mels]
        # A longer window gives larger sums: power is brought to that of 25 ms at 16 kHz.
        self.register_buffer("filters", mels * (SAMPLE_RATE / sample_rate) ** 2, persistent=False)

    def power(self, samples: Tensor) -> Tensor:
        """Log10 mel power [B, mels, T * 100] of samples [B, T seconds], before Whisper's own levelling."""
        with torch.autocast(samples.device.type, enabled=False):  # levels of 80 dB do not fit half precision
            spectrum = stft(samples.float(), self.window, self.hop)[:, :-1, : len(self.filters)]
            mels = (spectrum.real**2 + spectrum.imag**2) @ self.filters
            return torch.log10(mels.clamp_min(1e-10)).transpose(1, 2)

    def states(self, power: Tensor, loudest: Tensor) -> list[Tensor]:
        """Hidden states [B, T, dim] at 50 Hz of `power`; loudest [B, 1, 1]: what the levels of a row are counted
        from.
        """
        mel = (torch.maximum(power, loudest - 8.0) + 4.0) / 4.0
        return self.whisper.of_mels(mel, self.layers)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Of crops [B, T]; no gradient goes to `real`. 0 where both are equal."""
        with torch.no_grad():
            wanted_power = self.power(real)
            loudest = wanted_power.amax((1, 2), keepdim=True)
            wanted = self.states(wanted_power, loudest)
        terms = []
        for got, want in zip(self.states(self.power(fake), loudest), wanted, strict=True):
            spread = want.float().std((0, 1)).clamp_min(1e-3)
            terms.append(((got.float() - want.float()).abs() / spread).mean())
        return torch.stack(terms).mean()
