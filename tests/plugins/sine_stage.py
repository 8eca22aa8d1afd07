"""An acoustic stage from outside: each token is a sine of its own pitch. It has no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spear_spec.errors import AudioError, ConfigError
from spear_spec.voice.config import VoiceConfig


class SineStream:
    def __init__(self, sample_rate: int, samples: int) -> None:
        self.turns = torch.arange(samples, dtype=torch.float32, device="cpu") / sample_rate * 2 * torch.pi
        self.open = True

    def push(self, tokens: Tensor) -> Tensor:
        if not self.open:
            raise AudioError("this utterance is finished")
        return (0.3 * torch.sin(self.turns * (200 + 50 * tokens[:, None]).to(torch.float32))).flatten()

    def finish(self) -> Tensor:
        self.open = False
        return torch.zeros(0, dtype=torch.float32, device="cpu")


class SineStage:
    module, lookahead = None, 0

    def __init__(self, sample_rate: int, token_rate: float) -> None:
        self.sample_rate, self.token_rate = sample_rate, token_rate

    def open(self, voice: str, rate: float = 1.0, generator: torch.Generator | None = None) -> SineStream:
        return SineStream(self.sample_rate, round(self.sample_rate / self.token_rate / rate))


def build(shape: Mapping[str, Any], voice: VoiceConfig) -> SineStage:
    """The entry point: nothing is stored for it, so its object in config.json is empty."""
    if shape:
        raise ConfigError("sines have no settings")
    return SineStage(voice.sample_rate, voice.clock.token_rate)
