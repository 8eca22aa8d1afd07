"""A loss from what a speech recogniser hears: the hidden states of a frozen Whisper encoder, of the output and of the
recording, and the features that the semantic tokens are divided from.

Spectral losses count every decibel alike, wherever it lies; what tells an s from an f is a small part of them. A
recogniser's states are made of what tells words apart; the features of the supervised encoder of the tokens
(`semantic/supervised.py`) of little else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spear_spec.errors import ConfigError
from spear_spec.semantic import families
from spear_spec.semantic.families import SAMPLE_RATE, Whisper
from spear_spec.semantic.supervised import PAIR, SupervisedEncoder, frame_pairs
from spear_spec.training.vocoder.spectral import stft

FRAMES = 100  # log-mels a second


class Heard(NamedTuple):
    """How far apart two renderings sound. states: mean L1 distance of the hidden states, each channel in units of its
    own spread; features: mean squared distance of the supervised features (whose variance is 1), or None.
    """

    states: Tensor
    features: Tensor | None


class Recogniser(nn.Module):
    """What a frozen recogniser hears of two renderings of a crop.

    Args:
        name: hub name or folder of a Whisper model; layers: of its hidden states; left out: behind each third of its
            blocks.
        supervised: the small encoder of the semantic tokens and the hidden states that it reads.
        sample_rate: of the crops, Hz. Its spectra are taken at this rate: a window of 25 ms has the same bins of 40 Hz
            at every rate, so nothing is resampled.

    Raises:
        ConfigError: the model is no Whisper, or has not the states that `supervised` reads, or 25 ms are not an even
            number of samples.
        MissingExtraError, BundleError: see `families.load`.
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        name: str,
        sample_rate: int,
        layers: Sequence[int] = (),
        supervised: tuple[SupervisedEncoder, Sequence[int]] | None = None,
    ) -> None:
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
        self.supervised: SupervisedEncoder | None = supervised and supervised[0]
        self.read = tuple(supervised[1]) if supervised else ()
        self.taken = tuple(sorted({*self.layers, *self.read}))
        wide = 0 if self.supervised is None else self.supervised.cfg.inputs
        if self.taken[-1] > whisper.depth or wide != PAIR * len(self.read) * whisper.dim:
            raise ConfigError(
                f"{name} (states 0 to {whisper.depth}, {whisper.dim} wide) is not what the supervised encoder reads: "
                f"{wide} numbers a token, of the states {', '.join(map(str, self.read))}"
            )
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

    def states(self, power: Tensor, loudest: Tensor) -> dict[int, Tensor]:
        """Hidden states [B, T, dim] at 50 Hz of `power`, by their number; loudest [B, 1, 1]: what the levels of a row
        are counted from.
        """
        mel = (torch.maximum(power, loudest - 8.0) + 4.0) / 4.0
        return dict(zip(self.taken, self.whisper.of_mels(mel, self.taken), strict=True))

    def features(self, states: dict[int, Tensor]) -> Tensor:
        """Features [B, T // 2, dim] at 25 Hz of the supervised encoder, which reads the states of pairs of frames."""
        if self.supervised is None:
            raise ConfigError("this recogniser was given no supervised encoder")
        return self.supervised(frame_pairs(torch.cat([states[number] for number in self.read], dim=-1)))

    def forward(self, fake: Tensor, real: Tensor) -> Heard:
        """Of crops [B, T], which begin on a token's boundary; no gradient goes to `real`. 0 where both are equal."""
        with torch.no_grad():
            wanted_power = self.power(real)
            loudest = wanted_power.amax((1, 2), keepdim=True)
            wanted = self.states(wanted_power, loudest)
        heard = self.states(self.power(fake), loudest)
        terms = []
        for number in self.layers:
            got, want = heard[number].float(), wanted[number].float()
            terms.append(((got - want).abs() / want.std((0, 1)).clamp_min(1e-3)).mean())
        if self.supervised is None:
            return Heard(torch.stack(terms).mean(), None)
        with torch.no_grad():
            target = self.features(wanted).float()
        return Heard(torch.stack(terms).mean(), (self.features(heard).float() - target).square().mean())
