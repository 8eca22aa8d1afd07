"""Semantic tokens to sound by way of a codec's codes: audiolm-pytorch's coarse and fine transformer, each run by our
engine (so with a drafter and a rule of ours), and a decoder of codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from spear_spec.config import SamplingConfig, shown
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.request import Request
from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.engine import Engine
from spear_spec.errors import AudioError, ConfigError, NumericsError
from spear_spec.models.audiolm.coarse import CoarseTransformer
from spear_spec.models.audiolm.fine import FineTransformer

# Codes int64 [1, frames, quantizers], each from 0, to samples [..., frames * frame_samples].
Codec = Callable[[Tensor], Tensor]

_SLACK = 1.5  # times as many frames as the semantic tokens last, after which a stage that does not end is cut


@dataclass(frozen=True)
class Prompt:
    """Whose voice it is: semantic tokens of a clip and its codes [frames, coarse and fine quantizers]."""

    semantic: tuple[int, ...]
    codes: tuple[tuple[int, ...], ...]


@dataclass(eq=False)
class AudioLMStage:
    """See `AcousticStage`; it needs all tokens of an utterance before the first sample.

    frame_samples: of the codec's frame; token_samples: of a semantic token, both at sample_rate. drafter, verifier,
    gamma: for the coarse transformer, made of it; None: one token a call. sampling: of both transformers. prompts: by
    name; the name "" is always there and prompts with nothing.

    Raises:
        ConfigError: transformers that do not belong together, or a prompt that is not theirs.
    """

    coarse: CoarseTransformer
    fine: FineTransformer
    codec: Codec
    sample_rate: int
    frame_samples: int
    token_samples: int
    drafter: Drafter | None = None
    verifier: Verifier | None = None
    gamma: int = 4
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(temperature=0.9, top_p=0.95))
    prompts: Mapping[str, Prompt] = field(default_factory=dict)

    lookahead = None
    module: nn.Module | None = None

    def __post_init__(self) -> None:
        one, two = self.coarse.cfg, self.fine.cfg
        if (one.codebook, one.quantizers) != (two.codebook, two.coarse):
            raise ConfigError(
                f"the coarse transformer writes {one.quantizers} quantizers of {one.codebook} codes, "
                f"the fine one reads {two.coarse} of {two.codebook}"
            )
        width = one.quantizers + two.quantizers
        for name, prompt in self.prompts.items():
            codes = [code for frame in prompt.codes for code in frame]
            if any(len(frame) != width for frame in prompt.codes) or not all(0 <= c < one.codebook for c in codes):
                raise ConfigError(f"prompt {shown(name)}: {width} codes below {one.codebook} a frame are wanted")
            if not all(0 <= token < one.semantic for token in prompt.semantic):
                raise ConfigError(f"prompt {shown(name)}: semantic tokens lie below {one.semantic}")
        rate = self.sample_rate / self.frame_samples
        self._coarse = Engine(
            self.coarse, self.drafter, self.verifier, self.gamma, frame_rate=max(rate * one.quantizers, 1.0)
        )
        self._fine = Engine(self.fine, frame_rate=max(rate * two.quantizers, 1.0))

    def open(self, voice: str, rate: float = 1.0, generator: torch.Generator | None = None) -> AudioLMStream:
        """A new utterance; voice: name of a prompt, or "".

        Raises:
            ConfigError: no such prompt, or a rate other than 1.
        """
        if rate != 1:
            raise ConfigError("this stage has one speed")
        if voice and voice not in self.prompts:
            raise ConfigError(f"there is no prompt {shown(voice)}; available: {', '.join(self.prompts) or 'none'}")
        seed = torch.randint(0, 2**62, (2,), generator=generator).tolist()
        return AudioLMStream(self, self.prompts.get(voice, Prompt((), ())), seed)

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
            samples = self.stage.codec(codes[None]).float().cpu().flatten()[skipped:]
        if not bool(torch.isfinite(samples).all()):
            raise NumericsError
        return samples.clone()


def _tokens(codes: Tensor, codebook: int) -> list[int]:
    """Codes [frames, quantizers] as a target's tokens, interleaved."""
    return (codes + torch.arange(codes.shape[1]) * codebook).flatten().tolist()  # type: ignore[no-any-return]
