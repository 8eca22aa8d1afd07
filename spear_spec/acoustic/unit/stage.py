"""The unit vocoder as an acoustic stage: speakers by name, streams, whole utterances."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.acoustic.unit.excitation import token_noise
from spear_spec.acoustic.unit.native import NativeStream, native_for
from spear_spec.acoustic.unit.streaming import VocoderStream
from spear_spec.acoustic.unit.vocoder import UnitVocoder, drive_for, initial_phase
from spear_spec.errors import ConfigError, NumericsError


class UnitStage:
    """See `AcousticStage`. The speakers stand in the order in which the vocoder knows them."""

    def __init__(self, vocoder: UnitVocoder, speakers: Sequence[str]) -> None:
        self.module: UnitVocoder = vocoder
        self.speakers = tuple(speakers)

    @property
    def sample_rate(self) -> int:
        return self.module.cfg.sample_rate

    @property
    def lookahead(self) -> int:
        return self.module.cfg.lookahead

    @property
    def overlaps(self) -> bool:
        """See `AcousticStage`: in C, a chunk runs without Python."""
        return native_for(self.module) is not None

    def open(
        self, voice: str, rate: float = 1.0, generator: torch.Generator | None = None
    ) -> NativeStream | VocoderStream:
        """See `AcousticStage.open`; equal to `render` for the same generator state, in C bit for bit."""
        if rate != 1:
            raise ConfigError(f"this voice speaks at its own rate only: rate must be 1, not {rate!r}")
        return open_stream(self.module, self._speaker(voice), generator or torch.Generator().manual_seed(0))

    def render(self, tokens: Tensor, voice: str, generator: torch.Generator | None = None) -> Tensor:
        """Samples float32 [T * samples a token] of whole utterances [T], in one pass: what a stream must equal.

        Raises:
            AudioError: a token that does not exist. ConfigError: a speaker that does not. NumericsError: NaN.
        """
        return render(self.module, tokens, self._speaker(voice), generator)

    def _speaker(self, voice: str) -> int:
        if voice not in self.speakers:
            raise ConfigError(f"there is no speaker {str(voice)[:40]!r}; there are {', '.join(self.speakers)}")
        return self.speakers.index(voice)


def open_stream(vocoder: UnitVocoder, speaker: int, generator: torch.Generator) -> NativeStream | VocoderStream:
    """A stream in C where `native_for` has one, else on torch."""
    kernel = native_for(vocoder)
    if kernel is None:
        return VocoderStream(vocoder, speaker, generator)
    return NativeStream(vocoder, kernel, speaker, generator)


def render(vocoder: UnitVocoder, tokens: Tensor, speaker: int = 0, generator: torch.Generator | None = None) -> Tensor:
    """Samples float32 [T * samples a token] of tokens [T]; the generator gives the initial phase, then the noise.

    Raises:
        AudioError: a token id or speaker that does not exist. NumericsError: the weights gave NaN or infinity.
    """
    tokens = torch.as_tensor(tokens, device="cpu")
    vocoder.check_tokens(tokens, speaker)
    if tokens.numel() == 0:
        return torch.zeros(0, dtype=torch.float32, device="cpu")
    generator = generator or torch.Generator().manual_seed(0)
    kernel = native_for(vocoder)
    if kernel is not None:
        stream = NativeStream(vocoder, kernel, speaker, generator)
        return torch.cat([stream.push(tokens), stream.finish()])
    return render_in_torch(vocoder, tokens, speaker, generator)


def render_in_torch(vocoder: UnitVocoder, tokens: Tensor, speaker: int, generator: torch.Generator) -> Tensor:
    """`render` on any device, whole layers at a time: what the streams, this one's and C's, must equal."""
    device = vocoder.device
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        start = initial_phase(generator).to(device)
        noise = token_noise(generator, len(tokens), vocoder.cfg.token_samples, device)
        who = torch.tensor([speaker], dtype=torch.int64, device=device)
        hidden, raw = vocoder.encode(tokens.to(device).long()[None], who)
        prosody = vocoder.read_prosody(raw)
        frames = vocoder.decode(hidden, prosody, who)
        driven = drive_for(prosody.f0.double(), start, vocoder.cfg)
        samples = vocoder.synthesise(frames, driven, noise[None])[0].float()
    if not torch.isfinite(samples).all():
        raise NumericsError("the vocoder produced NaN or infinite samples: the voice's weights are damaged")
    return samples.cpu()
