"""A stage from outside that hears voices: a token is a sine around the pitch of a prompt, or of a speaker."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spear_spec.acoustic.contract import Heard
from spear_spec.acoustic.speech import listen
from spear_spec.audio import FloatArray
from spear_spec.errors import AudioError, ConfigError
from spear_spec.voice.config import VoiceConfig
from spear_spec.voice.registry import STAGES
from tests.plugins.sine_stage import SineStage, SineStream

KIND = "hearing-sines"
PITCHES = {"af_heart": 200.0, "am_michael": 120.0}


class HearingStream(SineStream):
    def __init__(self, sample_rate: int, samples: int, pitch: float, noise: Tensor) -> None:
        super().__init__(sample_rate, samples)
        self.pitch, self.noise = pitch, noise

    def push(self, tokens: Tensor) -> Tensor:
        if not self.open:
            raise AudioError("this utterance is finished")
        waves = torch.sin(self.turns * (self.pitch + 5 * tokens[:, None]).to(torch.float32))
        return ((0.3 + self.noise) * waves).flatten()


class HearingStage(SineStage):
    """`heard`: the clips that it was given."""

    def __init__(self, sample_rate: int, token_rate: float) -> None:
        super().__init__(sample_rate, token_rate)
        self.heard: list[tuple[Tensor, int]] = []

    def prompt(self, samples: Tensor, sample_rate: int) -> Heard:
        self.heard.append((samples, sample_rate))
        sounding = listen(samples.numpy(), sample_rate)
        return Heard(float(np.median(sounding.pitch[sounding.voiced])), KIND)

    def open(self, voice: str | Heard, rate: float = 1.0, generator: torch.Generator | None = None) -> HearingStream:
        if not isinstance(voice, Heard) and voice not in PITCHES:
            raise ConfigError(f"there is no speaker {voice!r}")
        pitch = voice.value if isinstance(voice, Heard) else PITCHES[voice]
        noise = 0.01 * torch.rand(1, generator=generator)
        return HearingStream(self.sample_rate, round(self.sample_rate / self.token_rate / rate), pitch, noise)


def build(shape: Mapping[str, Any], voice: VoiceConfig) -> HearingStage:
    if shape:
        raise ConfigError("sines have no settings")
    return HearingStage(voice.sample_rate, voice.clock.token_rate)


def hearing_voice(voice: Path, folder: Path) -> Path:
    """A copy of a voice whose stage is this one."""
    if KIND not in STAGES:
        STAGES.register(KIND, build)
    shutil.copytree(voice, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocoder": {"kind": KIND}}))
    return folder


def pitch_of(samples: FloatArray, rate: int) -> float:
    """The middle pitch of sines, in Hz."""
    bins = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 4 * len(samples)))
    return float(np.fft.rfftfreq(4 * len(samples), 1 / rate)[bins.argmax()])
