"""`voice=`: whose sound it is. With a stage from outside that hears the pitch of a prompt."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from spear_spec import TTS
from spear_spec.acoustic.contract import Heard
from spear_spec.acoustic.unit.prompt import PromptConfig, PromptEncoder
from spear_spec.acoustic.unit.stage import HearingStage as UnitHearing
from spear_spec.acoustic.unit.stage import UnitStage
from spear_spec.errors import AudioError, ConfigError
from tests.stubs.hearing import KIND, PITCHES, HearingStage, hearing_voice
from tests.stubs.speech import RATE, chords, speech
from tests.stubs.voice import make_voice

TEXT = "The quick brown fox jumps over the lazy dog."


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voice(tmp_path_factory.mktemp("voices") / "tiny").path


@pytest.fixture(scope="module")
def tts(tiny: Path) -> TTS:
    return TTS.load(str(hearing_voice(tiny, tiny.with_name("hearing"))), device="cpu")


@pytest.fixture
def stage(tts: TTS) -> HearingStage:
    assert isinstance(tts.stage, HearingStage)
    tts.stage.heard.clear()
    return tts.stage


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompt.wav"
    soundfile.write(path, np.stack([speech(), np.zeros_like(speech())], axis=1), RATE)
    return path


def test_a_prompt_gives_the_sound(tts: TTS, stage: HearingStage, prompt: Path) -> None:
    heard = tts.hear(prompt)
    assert heard.stage == KIND and heard.sha256 == hashlib.sha256(prompt.read_bytes()).hexdigest()
    [(samples, rate)] = stage.heard
    assert rate == RATE and samples.ndim == 1 and 1 < len(samples) / rate < len(speech()) / RATE
    ours = tts.synthesize(TEXT, voice=heard)
    assert len(stage.heard) == 1  # it is not heard again
    for source in (prompt, str(prompt), prompt.read_bytes()):
        assert np.array_equal(tts.synthesize(TEXT, voice=source).samples, ours.samples)
    plain = tts.synthesize(TEXT)
    assert len(plain.samples) == len(ours.samples)  # the same tokens
    assert not np.array_equal(plain.samples, ours.samples)
    pieces = [chunk.samples for chunk in tts.stream(TEXT, voice=heard)]
    assert np.array_equal(np.concatenate(pieces), ours.samples)


def test_reader_and_sound_are_two_things(tts: TTS, stage: HearingStage) -> None:
    """speaker= chooses the tokens, voice= their sound."""
    by_michael = tts.synthesize(TEXT, speaker="am_michael")
    assert np.array_equal(tts.synthesize(TEXT, speaker="am_michael", voice="am_michael").samples, by_michael.samples)
    lent = tts.synthesize(TEXT, speaker="am_michael", voice="af_heart")
    assert lent.stats["tokens"] == by_michael.stats["tokens"]
    assert not np.array_equal(lent.samples, by_michael.samples)
    heard = Heard(PITCHES["af_heart"], KIND)
    assert np.array_equal(tts.synthesize(TEXT, speaker="am_michael", voice=heard).samples, lent.samples)
    assert not stage.heard


def test_what_cannot_be_heard(tts: TTS, stage: HearingStage, tmp_path: Path) -> None:
    for voice, what in (
        ("nobody.wav", "cannot read the prompt nobody.wav"),
        (tmp_path, "it is a folder"),
        (7, "a prompt is"),
    ):
        with pytest.raises(AudioError, match=what):
            tts.stream(TEXT, voice=voice)  # when it is asked for, not when it is spoken
    with pytest.raises(AudioError, match="music"):
        tts.hear((chords(), RATE))
    assert not stage.heard


def test_a_poor_prompt_is_told(tts: TTS, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "spear_spec"):
        tts.hear((np.clip(speech() * 20, -0.5, 0.5), RATE))
    assert "clipped" in caplog.text


def test_a_stage_says_how_much_it_takes(tts: TTS, stage: HearingStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "prompt_s", 3.0, raising=False)
    tts.hear((speech(), RATE))
    [(samples, rate)] = stage.heard
    assert 2.5 < len(samples) / rate < 3.5


def test_a_voice_that_takes_none(tts: TTS, prompt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HearingStage, "prompt", None)
    for voice in (prompt, Heard(1.0, KIND)):
        with pytest.raises(ConfigError, match="takes no prompts: its sound is that of its own speakers"):
            tts.synthesize(TEXT, voice=voice)
    assert len(tts.synthesize(TEXT, voice="af_heart").samples)


def test_the_unit_vocoder_with_a_prompt_encoder(tiny: Path, prompt: Path) -> None:
    """Real parts, weights that nobody trained: the vocoder is opened with what the encoder makes of the clip."""
    plain = TTS.load(str(tiny), device="cpu")
    with pytest.raises(ConfigError, match="takes no prompts"):
        plain.hear(prompt)
    assert isinstance(plain.stage, UnitStage)
    encoder = PromptEncoder(PromptConfig(vector=2 * plain.stage.module.cfg.dim, dim=16, embedding=16)).eval()
    tts = replace(plain, stage=UnitHearing(plain.stage.module, plain.speakers, encoder))
    heard = tts.hear(prompt)
    assert isinstance(heard.value, torch.Tensor) and heard.value.shape == (2 * plain.stage.module.cfg.dim,)
    quiet = tts.hear((0.1 * speech(), RATE))  # one channel, ten times as quiet
    torch.testing.assert_close(quiet.value, heard.value, atol=1e-3, rtol=1e-3)
    ours = tts.synthesize(TEXT, voice=heard)
    name = tts.synthesize(TEXT)
    assert ours.stats["tokens"] == name.stats["tokens"] and not np.array_equal(ours.samples, name.samples)
    stranger = tts.synthesize(TEXT, voice=(speech()[::-1].copy(), RATE))
    assert not np.array_equal(ours.samples, stranger.samples)
    assert np.array_equal(np.concatenate([c.samples for c in tts.stream(TEXT, voice=heard)]), ours.samples)
    best = tts.synthesize(TEXT, voice=heard, best_of=2, judge="likelihood")
    [told] = best.stats["best_of"]["sentences"]
    assert np.array_equal(best.samples, tts.synthesize(TEXT, voice=heard, seed=told["seed"]).samples)
