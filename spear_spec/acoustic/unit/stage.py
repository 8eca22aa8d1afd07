"""The unit vocoder as an acoustic stage: speakers by name or from a prompt, streams, whole utterances."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.acoustic.contract import Heard
from spear_spec.acoustic.unit.excitation import token_noise
from spear_spec.acoustic.unit.native import NativeStream, native_for
from spear_spec.acoustic.unit.prompt import PromptEncoder, listen
from spear_spec.acoustic.unit.rate import FASTEST, SLOWEST, at_rate
from spear_spec.acoustic.unit.streaming import VocoderStream
from spear_spec.acoustic.unit.vocoder import UnitVocoder, drive_for, initial_phase
from spear_spec.config import number
from spear_spec.errors import ConfigError, NumericsError

KIND = "unit-vocoder"


class UnitStage:
    """See `AcousticStage`. The speakers stand in the order in which the vocoder knows them. It has named speakers only;
    `HearingStage` hears prompts too.

    rounded: whether the kernel in C rounds, see `NativeVocoder`; open streams stay as they are, torch never rounds.
    """

    rates = SLOWEST, FASTEST
    rounded = False

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
        self, voice: str | Heard, rate: float = 1.0, generator: torch.Generator | None = None
    ) -> NativeStream | VocoderStream:
        """See `AcousticStage.open`; equal to `render` for the same generator state, in C bit for bit."""
        number("rate", rate, *self.rates)
        generator = generator or torch.Generator().manual_seed(0)
        return open_stream(self.module, self._speaker(voice), generator, rate, self.rounded)

    def render(
        self, tokens: Tensor, voice: str | Heard, generator: torch.Generator | None = None, rate: float = 1.0
    ) -> Tensor:
        """Samples float32 of whole utterances [T], in one pass: what a stream must equal. At rate 1 they are
        [T * samples a token].

        Raises:
            AudioError: a token that does not exist. ConfigError: a speaker that does not, a rate. NumericsError: NaN.
        """
        number("rate", rate, *self.rates)
        return render(self.module, tokens, self._speaker(voice), generator, rate, self.rounded)

    def _speaker(self, voice: str | Heard) -> int | Tensor:
        if isinstance(voice, Heard):
            if voice.stage != KIND or not isinstance(voice.value, Tensor):
                raise ConfigError(
                    f"what a stage {voice.stage!r} heard means nothing to {KIND!r}: it hears the prompt anew"
                )
            return voice.value
        if voice not in self.speakers:
            raise ConfigError(f"there is no speaker {str(voice)[:40]!r}; there are {', '.join(self.speakers)}")
        return self.speakers.index(voice)


class HearingStage(UnitStage):
    """A `UnitStage` with a prompt encoder."""

    def __init__(self, vocoder: UnitVocoder, speakers: Sequence[str], encoder: PromptEncoder) -> None:
        super().__init__(vocoder, speakers)
        self.encoder = encoder

    def prompt(self, samples: Tensor, sample_rate: int) -> Heard:
        """The speaker vector float32 [2 * dim] heard in samples [T]; see `AcousticStage`. The same clip gives the same
        vector, at any level.

        Raises:
            AudioError: not mono, not finite, silent, or too short.
        """
        return Heard(listen(self.encoder, samples, sample_rate), KIND)


def open_stream(
    vocoder: UnitVocoder, speaker: int | Tensor, generator: torch.Generator, rate: float = 1.0, rounded: bool = False
) -> NativeStream | VocoderStream:
    """A stream in C where `native_for` has one, else on torch."""
    kernel = native_for(vocoder, rounded)
    if kernel is None:
        return VocoderStream(vocoder, speaker, generator, rate)
    return NativeStream(vocoder, kernel, speaker, generator, rate)


def render(
    vocoder: UnitVocoder,
    tokens: Tensor,
    speaker: int | Tensor = 0,
    generator: torch.Generator | None = None,
    rate: float = 1.0,
    rounded: bool = False,
) -> Tensor:
    """Samples float32 [hop * `frames_at(T * frames a token, rate)`] of tokens [T]; the generator gives the initial
    phase, then the noise.

    Raises:
        AudioError: a token id or speaker that does not exist. NumericsError: the weights gave NaN or infinity.
    """
    tokens = torch.as_tensor(tokens, device="cpu")
    who = vocoder.vector(speaker)
    vocoder.check_tokens(tokens)
    if tokens.numel() == 0:
        return torch.zeros(0, dtype=torch.float32, device="cpu")
    generator = generator or torch.Generator().manual_seed(0)
    kernel = native_for(vocoder, rounded)
    if kernel is not None:
        stream = NativeStream(vocoder, kernel, who, generator, rate)
        return torch.cat([stream.push(tokens), stream.finish()])
    return render_in_torch(vocoder, tokens, who, generator, rate)


def render_in_torch(
    vocoder: UnitVocoder, tokens: Tensor, speaker: int | Tensor, generator: torch.Generator, rate: float = 1.0
) -> Tensor:
    """`render` on any device, whole layers at a time: what the streams, this one's and C's, must equal."""
    device = vocoder.device
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        start = initial_phase(generator).to(device)
        noise = token_noise(generator, vocoder.cfg.token_samples_at(rate, 0, len(tokens)), device)
        who = vocoder.vector(speaker)[None]
        hidden, raw = vocoder.encode(tokens.to(device).long()[None], who)
        prosody = vocoder.read_prosody(raw)
        frames = at_rate(vocoder.decode(hidden, prosody, who), rate)
        driven = drive_for(at_rate(prosody.f0.double(), rate), start, vocoder.cfg)
        samples = vocoder.synthesise(frames, driven, noise[None])[0].float()
    if not torch.isfinite(samples).all():
        raise NumericsError("the vocoder produced NaN or infinite samples: the voice's weights are damaged")
    return samples.cpu()
