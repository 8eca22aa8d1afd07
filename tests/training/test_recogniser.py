"""What the vocoder learns from a recogniser: the same log-mels and states as the official extractor and encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from spear_spec.acoustic.unit.vocoder import VocoderConfig
from spear_spec.errors import ConfigError
from spear_spec.semantic.encoder import SpeechEncoder
from spear_spec.semantic.supervised import SupervisedConfig, SupervisedEncoder, SupervisedTokenizer
from spear_spec.training.vocoder.recogniser import Recogniser
from spear_spec.training.vocoder.settings import VocoderTraining
from spear_spec.training.vocoder.trainer import VocoderLearner
from tests.stubs.whisper import make_whisper


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper"))


def tones(rate: int) -> np.ndarray:
    """A second of harmonics up to 3 kHz, the same at every rate."""
    t = np.arange(rate) / rate
    wave = sum(np.cos(2 * np.pi * f * t + f) / (1 + f / 500) for f in range(150, 3000, 150))
    return (0.05 * wave * (1 + np.sin(2 * np.pi * 3 * t))).astype(np.float32)


def levelled(recogniser: Recogniser, wave: np.ndarray) -> torch.Tensor:
    power = recogniser.power(torch.from_numpy(wave)[None])
    return (torch.maximum(power, power.amax() - 8) + 4) / 4


def test_its_mels_are_whispers(whisper: Path) -> None:
    own = Recogniser(str(whisper), 16000)
    assert own.layers == (1, 2, 3)
    official = own.whisper.log_mel(tones(16000))
    torch.testing.assert_close(levelled(own, tones(16000)), official, atol=2e-4, rtol=0)
    # The same sound at another rate has the same bins, and no resampling lies between. The edges are padded.
    other = levelled(Recogniser(str(whisper), 24000), tones(24000))
    torch.testing.assert_close(other[..., 2:-2], official[..., 2:-2], atol=2e-2, rtol=0)


def test_its_states_are_the_encoders(whisper: Path) -> None:
    recogniser = Recogniser(str(whisper), 16000, layers=(2,))
    mel = torch.nn.functional.pad(recogniser.whisper.log_mel(np.tile(tones(16000), 30)), (0, 0))
    power = mel * 4 - 4
    official = WhisperEncoder.from_pretrained(whisper)(mel, output_hidden_states=True).hidden_states[2]
    got = recogniser.states(power.repeat(2, 1, 1), power.amax((1, 2), keepdim=True))[2]
    assert got.shape == (2, 1500, 32)
    torch.testing.assert_close(got[1:], official, atol=1e-4, rtol=1e-4)


def test_the_loss_is_zero_for_the_same_and_falls_by_its_gradient(whisper: Path) -> None:
    recogniser = Recogniser(str(whisper), 24000)
    real = torch.from_numpy(np.stack([tones(24000)[:9600], tones(24000)[6000:15600]]))
    assert float(recogniser(real, real).states) == 0.0
    torch.manual_seed(0)
    fake = (real + 0.05 * torch.randn_like(real)).requires_grad_(True)
    before = recogniser(fake, real).states
    (slope,) = torch.autograd.grad(before, fake)
    after = recogniser(fake - 0.02 * slope / slope.norm(), real)
    assert float(after.states) < float(before) and not any(p.requires_grad for p in recogniser.parameters())
    with torch.autocast("cpu", torch.bfloat16):  # quiet parts survive half precision
        torch.testing.assert_close(recogniser.power(real), recogniser.power(real.double().float()))


@pytest.fixture(scope="module")
def supervised() -> tuple[SupervisedEncoder, tuple[int, int]]:
    torch.manual_seed(1)
    return SupervisedEncoder(SupervisedConfig(inputs=2 * 2 * 32, dim=12, expansion=2, blocks=1)).eval(), (1, 3)


def test_it_reads_what_the_tokens_are_divided_from(whisper: Path, supervised: Any) -> None:
    """The features of a clip are the tokenizer's own, and the loss is their distance."""
    recogniser = Recogniser(str(whisper), 16000, layers=(2,), supervised=supervised)
    tokenizer = SupervisedTokenizer(SpeechEncoder(str(whisper), supervised[1]), supervised[0], torch.randn(4, 12))
    waves = [tones(16000), tones(16000)[::-1].copy()]
    waves[0][9600:] = 0.0  # where it is silent, the level is counted from the loudest part
    power = recogniser.power(torch.from_numpy(np.stack(waves)))
    got = recogniser.features(recogniser.states(power, power.amax((1, 2), keepdim=True)))
    want = torch.stack([tokenizer.features(wave, 16000) for wave in waves])
    torch.testing.assert_close(got, want, atol=2e-3, rtol=1e-3)
    quieter = 0.5 * torch.from_numpy(waves[0])[None]  # heard against the loudest of the recording, not against its own
    levels = recogniser.power(quieter)
    moved = recogniser.features(recogniser.states(levels, power[:1].amax((1, 2), keepdim=True)))
    heard = recogniser(quieter, torch.from_numpy(waves[0])[None])
    torch.testing.assert_close(heard.features, (moved - got[:1]).square().mean())
    assert float(heard.features) > 0 and float(recogniser(quieter, quieter).features) == 0
    assert Recogniser(str(whisper), 16000)(quieter, quieter).features is None


@pytest.mark.parametrize("layers", [(1, 4), (1,), (1, 2, 3)])
def test_states_that_it_has_not(whisper: Path, supervised: Any, layers: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="is not what the supervised encoder reads"):
        Recogniser(str(whisper), 16000, supervised=(supervised[0], layers))


@pytest.mark.parametrize("rate", [8000, 22050])
def test_rates_that_it_cannot_hear(whisper: Path, rate: int) -> None:
    with pytest.raises(ConfigError, match="recogniser needs"):
        Recogniser(str(whisper), rate)


def test_the_trainer_weighs_it(whisper: Path, supervised: Any) -> None:
    """One update with and without each part: another gradient, and a number in the log."""
    voc = VocoderConfig(8, 1, dim=32, prosody_dim=32, token_right=(1,), prosody_right=(0,), frame_right=(1,))
    cfg = VocoderTraining(steps=4, tail=1, warmup=1, gan_start=9, batch=2, tokens=6, left=6, right=4)

    class Clips:
        def draw(
            self, rng: np.random.Generator, size: int, tokens: int, left: int, right: int
        ) -> dict[str, np.ndarray]:
            length, frames = left + tokens + right, 4 * (left + tokens + right)
            sound = np.stack([tones(24000)[: tokens * 960]] * size)
            ones = np.ones((size, frames), np.float32)
            return {
                "tokens": rng.integers(0, 8, (size, length)), "speaker": np.zeros(size, np.int64),
                "valid": np.ones((size, length), bool), "voiced": ones, "f0": 150 * ones, "energy": -3 * ones,
                "phase": np.zeros((size, frames)), "audio": sound,
            }  # fmt: skip

    norms = {}
    for hearing, reading in [(0.0, 0.0), (10.0, 0.0), (0.0, 10.0), (10.0, 10.0)]:
        hears = Recogniser(str(whisper), 24000, supervised=supervised if reading else None)
        weights = replace(cfg, hearing=hearing, reading=reading)
        learner = VocoderLearner(voc, weights, Clips(), recogniser=hears)  # type: ignore[arg-type]
        log = learner.learn(0, 0.0, None)
        assert ("hearing" in log, "reading" in log) == (hearing + reading > 0, reading > 0)
        norms[hearing, reading] = round(float(log["norm"]), 4)
    assert len(set(norms.values())) == 4
