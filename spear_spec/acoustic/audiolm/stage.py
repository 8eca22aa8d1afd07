"""Semantic tokens to sound by way of a codec's codes: audiolm-pytorch's coarse and fine transformer, each run by our
engine (so with a drafter and a rule of ours), and a codec.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from spear_spec.acoustic.contract import Heard
from spear_spec.audio import resample
from spear_spec.config import SamplingConfig, SpecConfig, shown
from spear_spec.decoding import Parts
from spear_spec.decoding.request import Request
from spear_spec.engine import Decoder, Engine
from spear_spec.errors import AudioError, ConfigError, NumericsError
from spear_spec.models.audiolm.coarse import CoarseTransformer
from spear_spec.models.audiolm.fine import FineTransformer

KIND = "audiolm"
_SLACK = 1.5  # times as many frames as the semantic tokens last, after which a stage that does not end is cut
_PLAIN = SpecConfig(drafter="none")

Tokenizer = Callable[[Any, int], Tensor]  # mono samples and their rate to semantic tokens int64 [T]


class Codec(Protocol):
    """What makes sound of codes; `models.soundstream.SoundStream` does, and hears too."""

    def decode(self, codes: Tensor) -> Tensor:
        """Codes int64 [1, frames, quantizers], each from 0, to samples [..., frames * frame_samples]."""
        ...


@dataclass(frozen=True)
class Prompt:
    """Whose voice it is: semantic tokens of a clip and its codes [frames, coarse and fine quantizers]."""

    semantic: tuple[int, ...]
    codes: tuple[tuple[int, ...], ...]


@dataclass(eq=False)
class AudioLMStage:
    """See `AcousticStage`; it needs all tokens of an utterance before the first sample.

    frame_samples: of the codec's frame; token_samples: of a semantic token, both at sample_rate. parts: what drafts for
    the coarse transformer and by which rule; by default nothing does, one token a call. sampling: of both transformers.
    prompts: by name; the name "" prompts with nothing, and so do those of `speakers` that have no prompt. tokenizer:
    makes semantic tokens of a prompt's sound (`prompt`). module: what a bundle's weights go into.

    Raises:
        ConfigError: transformers that do not belong together, or a prompt that is not theirs.
    """

    coarse: CoarseTransformer
    fine: FineTransformer
    codec: Codec
    sample_rate: int
    frame_samples: int
    token_samples: int
    parts: Parts = field(default_factory=lambda: Parts(_PLAIN))
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=0.9, top_p=0.95))
    prompts: Mapping[str, Prompt] = field(default_factory=dict)
    speakers: Sequence[str] = ()
    tokenizer: Tokenizer | None = None
    module: nn.Module | None = None

    lookahead = None
    rates = 1.0, 1.0  # a time-stretch does the rest
    prompt_s = 3.0  # of speech that a prompt is cut to, as AudioLM's

    def __post_init__(self) -> None:
        one, two = self.coarse.cfg, self.fine.cfg
        if (one.codebook, one.quantizers) != (two.codebook, two.coarse):
            raise ConfigError(
                f"the coarse transformer writes {one.quantizers} quantizers of {one.codebook} codes, "
                f"the fine one reads {two.coarse} of {two.codebook}"
            )
        for name, prompt in self.prompts.items():
            self._check_prompt(f"prompt {shown(name)}", prompt)

    def _check_prompt(self, what: str, prompt: Prompt) -> None:
        one, width = self.coarse.cfg, self.coarse.cfg.quantizers + self.fine.cfg.quantizers
        codes = [code for frame in prompt.codes for code in frame]
        if any(len(frame) != width for frame in prompt.codes) or not all(0 <= c < one.codebook for c in codes):
            raise ConfigError(f"{what}: {width} codes below {one.codebook} a frame are wanted")
        if not all(0 <= token < one.semantic for token in prompt.semantic):
            raise ConfigError(f"{what}: semantic tokens lie below {one.semantic}")

    # made when first used: a bundle's weights come after the stage
    @cached_property
    def _coarse(self) -> Engine:
        rate = self.sample_rate / self.frame_samples * self.coarse.cfg.quantizers
        return Decoder(self.coarse, self.parts, self.sampling, max(rate, 1.0)).engine()

    @cached_property
    def _fine(self) -> Engine:
        rate = self.sample_rate / self.frame_samples * self.fine.cfg.quantizers
        return Decoder(self.fine, Parts(_PLAIN), self.sampling, max(rate, 1.0)).engine()

    def open(self, voice: str | Heard, rate: float = 1.0, generator: torch.Generator | None = None) -> AudioLMStream:
        """A new utterance; voice: what `prompt` heard, the name of a prompt or a speaker, or "".

        Raises:
            ConfigError: no such prompt, one that another stage heard, or a rate other than 1.
        """
        if rate != 1:
            raise ConfigError("this stage has one speed")
        if isinstance(voice, Heard):
            if voice.stage != KIND or not isinstance(voice.value, Prompt):
                raise ConfigError(f"this prompt was heard by a stage {shown(voice.stage)}: let this one hear it again")
            self._check_prompt("prompt", voice.value)
            prompt = voice.value
        elif voice and voice not in self.prompts and voice not in self.speakers:
            known = ", ".join((*self.prompts, *self.speakers)) or "none"
            raise ConfigError(f"there is no prompt {shown(voice)}; available: {known}")
        else:
            prompt = self.prompts.get(voice, Prompt((), ()))
        seed = torch.randint(0, 2**62, (2,), generator=generator).tolist()
        return AudioLMStream(self, prompt, seed)

    def prompt(self, samples: Tensor, sample_rate: int) -> Heard:
        """The voice of a clip float32 [T], mono: its semantic tokens and its codes, as many of each as last as long.

        Raises:
            AudioError: shorter than a token, not mono, not finite. ConfigError: a stage without a tokenizer or with a
                codec that cannot hear. MissingExtraError: the tokenizer's encoder is not installed.
        """
        hear = getattr(self.codec, "encode", None)
        if hear is None or self.tokenizer is None:
            raise ConfigError("this stage cannot hear a prompt: it has no tokenizer, or its codec only makes sound")
        wave = torch.as_tensor(samples, dtype=torch.float32).detach().cpu()
        if wave.ndim != 1 or not bool(wave.isfinite().all()):
            raise AudioError("a prompt must be a mono signal of finite samples")
        if len(wave) < sample_rate * self.token_samples / self.sample_rate:
            raise AudioError(f"a prompt must last {1000 * self.token_samples / self.sample_rate:g} ms at least")
        semantic = self.tokenizer(wave.numpy(), sample_rate)
        heard = torch.from_numpy(resample(wave.numpy(), sample_rate, self.sample_rate))
        with torch.inference_mode():
            codes = hear(heard[None])[0]
        count = min(len(semantic), len(codes) * self.frame_samples // self.token_samples)
        frames = count * self.token_samples // self.frame_samples
        value = Prompt(tuple(semantic[:count].tolist()), tuple(tuple(frame) for frame in codes[:frames].tolist()))
        self._check_prompt("prompt", value)
        return Heard(value, KIND)

    def codes(self, tokens: list[int], prompt: Prompt, seeds: list[int]) -> Tensor:
        """Codes int64 [frames, quantizers] of these semantic tokens, those of the prompt before them."""
        one, two = self.coarse.cfg, self.fine.cfg
        count, width = one.quantizers, one.quantizers + two.quantizers
        known = torch.tensor(prompt.codes, dtype=torch.int64).view(len(prompt.codes), width)
        more = int(_SLACK * len(tokens) * self.token_samples / self.frame_samples) + 2
        request = Request(
            [*prompt.semantic, *tokens],
            prefix=_tokens(known[:, :count], one.codebook),
            seed=seeds[0],
            sampling=self.sampling,
            cap=(len(known) + more) * count,
        )
        said = self._said(self._coarse, request)
        frames = len(said) // count
        said = said[: frames * count]  # a cap or a guard may cut a frame
        if frames == len(known):
            return known
        request = Request(
            said,
            prefix=_tokens(known[:, count:], one.codebook),
            seed=seeds[1],
            sampling=self.sampling,
            cap=frames * two.quantizers,
        )
        rest = self._said(self._fine, request)
        frames = len(rest) // two.quantizers  # as many, unless the guard has cut it
        both = (said[: frames * count], count), (rest[: frames * two.quantizers], two.quantizers)
        return torch.cat([torch.tensor(part).view(frames, each) % one.codebook for part, each in both], 1)

    @staticmethod
    def _said(engine: Engine, request: Request) -> list[int]:
        (utterance,) = engine.run([request])
        return utterance.speech


class AudioLMStream:
    """One utterance under way; see `AcousticStream`."""

    def __init__(self, stage: AudioLMStage, prompt: Prompt, seeds: list[int]) -> None:
        self.stage, self.prompt, self.seeds = stage, prompt, seeds
        self.tokens: list[int] = []
        self.open = True

    def push(self, tokens: Tensor) -> Tensor:
        """Take tokens int64 [t]; nothing is final before `finish`.

        Raises:
            AudioError: tokens that the stage does not know, or a stream that is finished.
        """
        if not self.open:
            raise AudioError("this stream is finished")
        new = tokens.tolist()
        if not all(0 <= token < self.stage.coarse.cfg.semantic for token in new):
            raise AudioError(f"semantic tokens must lie in 0 to {self.stage.coarse.cfg.semantic - 1}")
        self.tokens += new
        return torch.zeros(0)

    def finish(self) -> Tensor:
        """All samples, float32 [T].

        Raises:
            AudioError: the stream is finished. NumericsError: NaN or infinity.
        """
        if not self.open:
            raise AudioError("this stream is finished")
        self.open = False
        if not self.tokens:
            return torch.zeros(0)
        with torch.inference_mode():
            codes = self.stage.codes(self.tokens, self.prompt, self.seeds)
            skipped = len(self.prompt.codes) * self.stage.frame_samples
            if len(codes) <= len(self.prompt.codes):
                return torch.zeros(0)
            samples = self.stage.codec.decode(codes[None]).float().cpu().flatten()[skipped:]
        if not bool(torch.isfinite(samples).all()):
            raise NumericsError
        return samples.clone()


def _tokens(codes: Tensor, codebook: int) -> list[int]:
    """Codes [frames, quantizers] as a target's tokens, interleaved."""
    return (codes + torch.arange(codes.shape[1]) * codebook).flatten().tolist()  # type: ignore[no-any-return]
