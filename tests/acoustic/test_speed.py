"""`speed=` from `TTS` down to the stage, and the time-stretch beyond what the stage does."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spear_spec import TTS
from spear_spec.acoustic import speed as speeds
from spear_spec.acoustic.contract import AcousticStage
from spear_spec.acoustic.speed import TempoStream, check_speed, open_at
from spear_spec.acoustic.unit.rate import frames_at
from spear_spec.errors import ConfigError, MissingExtraError
from spear_spec.text.front_end import PAUSES_S
from spear_spec.text.sentences import Break
from tests.acoustic.test_rate import period
from tests.plugins.sine_stage import SineStage
from tests.stubs.voice import make_voice

TWO = "It rained for the whole day. Nobody in the town minded it."


class Given:
    """A stream whose tokens are its samples."""

    def push(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens

    def finish(self) -> torch.Tensor:
        return torch.zeros(0)


class OneSpeed(SineStage):
    rates = 1.0, 1.0


class Refusing(SineStage):
    def open(self, voice: str, rate: float = 1.0, generator: torch.Generator | None = None) -> object:  # type: ignore[override]
        if rate != 1:
            raise ConfigError("sines have one speed")
        return super().open(voice, rate, generator)


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> TTS:
    return TTS.load(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path, device="cpu")


def stretched(samples: torch.Tensor, tempo: float, cuts: list[int]) -> torch.Tensor:
    stream = TempoStream(Given(), 24000, tempo)
    return torch.cat([*(stream.push(piece) for piece in samples.split(cuts)), stream.finish()])


@pytest.mark.parametrize("tempo", [0.5, 0.8, 1.25, 2.0])
def test_a_stretch_has_its_exact_length_its_pitch_and_no_seams(tempo: float) -> None:
    tone = 0.3 * torch.sin(torch.arange(24_001) * (2 * torch.pi / 120)) + 0.01 * torch.randn(24_001)
    whole = stretched(tone, tempo, [24_001])
    assert len(whole) == int(24_001 / tempo + 0.5)
    for cuts in ([1000] * 24 + [1], [511, 1, 513, 0, 22_976]):
        assert torch.equal(stretched(tone, tempo, cuts), whole)
    middle = whole[len(whole) // 4 : -len(whole) // 4].numpy()
    assert period(middle) == pytest.approx(120, rel=0.02)
    assert np.abs(middle).max() < 0.4 and np.sqrt(np.mean(middle**2)) == pytest.approx(0.3 / 2**0.5, rel=0.05)
    for count in (0, 1, 100, 513):
        assert len(stretched(tone[:count], tempo, [count])) == int(count / tempo + 0.5)


def test_the_stage_goes_as_far_as_it_can(tts: TTS) -> None:
    ids = torch.arange(40) % 16
    for speed, rate in ((0.3, 0.5), (0.5, 0.5), (1.7, 1.7), (2.0, 2.0), (4.0, 2.0), (9.0, 2.0), (0.01, 0.5)):
        stream = open_at(tts.stage, "af_heart", speed, torch.Generator().manual_seed(1))
        speed = min(max(speed, 0.25), 4.0)
        samples = torch.cat([stream.push(ids), stream.finish()])
        by_stage = tts.stage.render(ids, "af_heart", torch.Generator().manual_seed(1), rate)  # type: ignore[attr-defined]
        if rate == speed:
            assert torch.equal(samples, by_stage)
        else:
            assert torch.equal(samples, stretched(by_stage, speed / rate, [len(by_stage)]))
        assert len(samples) == int(240 * frames_at(160, rate) / (speed / rate) + 0.5)


def test_stages_that_say_how_far_they_go_and_such_that_do_not() -> None:
    ids = torch.tensor([3] * 25)
    for stage in (SineStage(24000, 25), OneSpeed(24000, 25)):  # by its own rate; by the stretch
        assert isinstance(stage, AcousticStage)
        stream = open_at(stage, "one", 2.0)
        assert len(torch.cat([stream.push(ids), stream.finish()])) == 12_000
    open_at(Refusing(24000, 25), "one", 1.0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="one speed"):
        open_at(Refusing(24000, 25), "one", 1.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("speed", [0.6, 1.5, 3.0])
def test_a_text_at_a_speed(tts: TTS, speed: float) -> None:
    chunks = list(tts.stream(TWO, seed=3, speed=speed))
    whole = tts.synthesize(TWO, seed=3, speed=speed)
    assert np.array_equal(np.concatenate([chunk.samples for chunk in chunks]), whole.samples)
    own = tts.synthesize(TWO, seed=3)
    assert whole.stats["tokens"] == own.stats["tokens"]  # the same speech, at another speed
    pause = int(PAUSES_S[Break.SENTENCE] * 24000)
    spoken = (len(own.samples) - pause) / 960
    native = min(max(speed, 0.5), 2.0)
    expected = spoken * 960 / speed + int(pause / speed)
    assert len(whole.samples) == pytest.approx(expected, abs=2 * 240 / (speed / native))
    assert whole.stats["audio_s"] == pytest.approx(len(whole.samples) / 24000, abs=1e-4)


def test_speed_1_is_the_voice_as_ever(tts: TTS) -> None:
    assert np.array_equal(tts.synthesize(TWO, seed=3, speed=1).samples, tts.synthesize(TWO, seed=3).samples)


def test_a_segment_has_a_rate_of_its_own(tts: TTS) -> None:
    class Slow:
        def __getattr__(self, name: str) -> object:
            return getattr(tts.front_end, name)

        def segments(self, text: str, speaker: str) -> object:
            return (replace(segment, rate=0.5) for segment in tts.front_end.segments(text, speaker))

    slow = replace(tts, front_end=Slow())  # type: ignore[arg-type]
    for speed, same in ((1.0, 0.5), (2.0, 1.0), (3.0, 1.5), (0.25, 0.25)):
        found = slow.synthesize("It rained.", seed=3, speed=speed).samples
        assert np.array_equal(found, tts.synthesize("It rained.", seed=3, speed=same).samples)


@pytest.mark.parametrize("speed", [0.24, 4.01, 0, -1, float("nan"), float("inf"), "1", True, None])
def test_what_is_no_speed_is_refused_at_once(tts: TTS, speed: object) -> None:
    with pytest.raises(ConfigError, match=r"speed must be a number from 0\.25 to 4"):
        tts.stream(TWO, speed=speed)  # type: ignore[arg-type]


def test_without_the_library_the_vocoder_still_does_its_part(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[[str], object] = importlib.util.find_spec
    monkeypatch.setattr(speeds, "find_spec", lambda name: None if name == "av" else found(name))
    assert check_speed(2, tts.stage) == 2.0 and check_speed(0.5, tts.stage) == 0.5
    assert len(tts.synthesize("It rained.", speed=1.25).samples)
    for speed in (0.49, 2.5):
        with pytest.raises(MissingExtraError, match=r"pip install 'spear_spec\[speed\]'"):
            tts.stream(TWO, speed=speed)
        with pytest.raises(MissingExtraError):
            open_at(tts.stage, "af_heart", speed)


def test_say_at_a_speed(tts: TTS, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    from spear_spec.cli import main
    from tests.stubs.schemas import check

    spoken = {}
    for speed in ("1", "2"):
        out = str(tmp_path / f"{speed}.wav")
        command = ["say", "It rained.", "-o", out, "--voice", str(tts.bundle.path), "--speed", speed, "--json"]
        assert main([*command, "--device", "cpu"]) == 0
        spoken[speed] = json.loads(capsys.readouterr().out.splitlines()[-1])
        check(spoken[speed], "say/1")
    assert spoken["2"]["speed"] == 2.0
    assert spoken["2"]["items"][0]["audio_s"] == pytest.approx(spoken["1"]["items"][0]["audio_s"] / 2, abs=0.02)
