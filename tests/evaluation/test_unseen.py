"""Readers that were not trained on: each text with its own prompt, similarity to that prompt, nearest to whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_spec.audio import Audio
from spear_spec.errors import AudioError, ConfigError, MissingExtraError
from spear_spec.evaluation import judges as table
from spear_spec.evaluation import unseen
from spear_spec.evaluation.evaluate import Prompt, evaluate
from spear_spec.evaluation.judge import Measurement, Reference, Samples
from spear_spec.evaluation.unseen import Case, evaluate_unseen, nearest_own
from spear_spec.training.data.corpus import Clip
from spear_spec.training.recipe.stages.evaluate import cases
from tests.evaluation.test_evaluate import StubVoice
from tests.stubs.schemas import check


@dataclass
class Echo(StubVoice):
    """It says a constant: the level of its prompt, but for one text, where it takes another's voice."""

    given: list[tuple[str, str, float]] = field(default_factory=list)

    def hear(self, prompt: tuple[Samples, int]) -> float:
        assert prompt[1] == 24_000
        if not prompt[0].any():
            raise AudioError("silence")
        return float(prompt[0][0])

    def synthesize(self, text: str, *, voice: float, seed: int, **said: Any) -> Audio:  # type: ignore[override]
        self.given.append((self.drafter, text, voice))
        level = 1.0 if text == "odd" else voice
        stats = {"audio_s": 2.0, "rtf": 0.1, "ttfa_s": 0.1, "ended": "eos"}
        return Audio(np.full(48_000, level, dtype=np.float32), 24_000, stats)


class ByLevel:
    """A judge of speakers that knows them by their level: 1 at 0 degrees, 0 at 90."""

    metric, name, version = "speaker_similarity", "stub", "1"

    def embed(self, samples: Samples, sample_rate: int = 24_000) -> Samples:
        angle = (1 - float(samples[0])) * np.pi / 2
        return np.array([np.cos(angle), np.sin(angle)], np.float32)

    def score(self, samples: Samples, reference: Reference, sample_rate: int) -> Measurement | None:
        assert reference.speaker is not None
        return Measurement(float(self.embed(samples) @ reference.speaker), 1.0)


def case(reader: str, text: str, level: float) -> Case:
    return Case(reader, text, np.full(24_000, level, dtype=np.float32), 24_000)


CASES = [case("a", "one", 0.9), case("b", "two", 0.2), case("a", "three", 0.8), case("b", "odd", 0.1)]


@pytest.fixture(autouse=True)
def _stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "JUDGES", {"speaker_similarity": ByLevel})
    monkeypatch.setattr(unseen, "SpeakerJudge", ByLevel)


def test_each_text_has_its_own_prompt(tmp_path: Path) -> None:
    voice = Echo(tmp_path)
    found = evaluate_unseen(voice, CASES, judges=["speaker_similarity"])
    said = [(arm, text, round(level, 3)) for arm, text, level in voice.given[2:]]  # the first two warm up
    assert said == [(arm, c.text, round(float(c.samples[0]), 3)) for c in CASES for arm in ("small", "none")]
    result = found.to_dict()
    check({key: value for key, value in result.items() if key not in ("readers", "nearest_own", "left_out")}, "eval/1")
    # "odd" is said with level 1 in place of .1: cos(81 degrees)
    own = result["arms"]["speculative"]["metrics"]["speaker_similarity"]["value"]
    assert own == pytest.approx((3 + np.cos(np.radians(81))) / 4, abs=1e-5)
    assert result["readers"] == ["a", "b"]
    assert result["nearest_own"] == {"speculative": 0.75, "autoregressive": 0.75}


def test_a_prompt_that_cannot_be_used_is_left_out(tmp_path: Path) -> None:
    found = evaluate_unseen(
        Echo(tmp_path), [case("c", "zero", 0.0), *CASES[:2]], judges=["speaker_similarity"]
    ).to_dict()
    assert found["left_out"] == [{"reader": "c", "why": "silence"}] and found["readers"] == ["a", "b"]
    assert [item["text"] for item in found["items"]] == ["one", "one", "two", "two"]
    with pytest.raises(AudioError, match="no prompt can be used; the first reason is: silence"):
        evaluate_unseen(Echo(tmp_path), [case("c", "zero", 0.0)], judges=[])


def test_one_reader_has_nobody_else_to_be_near(tmp_path: Path) -> None:
    found = evaluate_unseen(Echo(tmp_path), CASES[:1], judges=["speaker_similarity"])
    assert found.nearest_own is None


def test_without_the_judge_of_speakers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluate_unseen(Echo(tmp_path), CASES, judges=[])
    assert found.nearest_own is None and found.to_dict()["arms"]["speculative"]["metrics"]["speaker_similarity"] is None

    def missing(self: ByLevel) -> str:
        raise MissingExtraError("none")

    monkeypatch.setattr(ByLevel, "version", property(missing))
    with pytest.raises(MissingExtraError):
        evaluate_unseen(Echo(tmp_path), CASES, judges=["speaker_similarity"])


def test_a_reader_is_the_mean_of_their_prompts() -> None:
    def at(degrees: float) -> Samples:
        return np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], np.float32)

    prompts = [at(0), at(40), at(60), at(60)]  # a in the middle at 20, b at 60
    spoken = [(0, "x", at(39)), (0, "x", at(41)), (2, "x", at(41)), (2, "y", at(39))]
    assert nearest_own(["a", "a", "b", "b"], prompts, spoken) == {"x": pytest.approx(2 / 3), "y": 0.0}


def test_a_prompt_for_each_text_or_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 prompts for 2 texts"):
        evaluate(Echo(tmp_path), ["one", "two"], judges=[], prompts=[Prompt(0.5)])


def test_cases_take_readers_in_turn_and_another_clip_for_a_prompt(tmp_path: Path) -> None:
    """Readers with one clip have no prompt for it; short clips are texts, and no prompts."""
    clips = []
    for number, (reader, seconds) in enumerate(
        [("a", 2.0), ("a", 4.0), ("b", 5.0), ("b", 6.0), ("b", 1.5), ("c", 9.0)]
    ):
        path = tmp_path / f"{number}.wav"
        Audio(np.full(round(seconds * 16_000), 0.1 * (number + 1), dtype=np.float32), 16_000, {}).save(path)
        clips.append(Clip(f"c{number}", reader, f"text {number}", str(path), seconds=seconds))
    found = cases(clips, 10, 3.0)
    assert [(c.reader, c.text) for c in found] == [("a", "text 0"), ("b", "text 2"), ("b", "text 3"), ("b", "text 4")]
    assert all(len(c.samples) == 48_000 and c.rate == 16_000 for c in found)
    levels = [round(float(c.samples[0]), 1) for c in found]
    assert levels == [0.2, 0.4, 0.3, 0.3]  # clip 1 for 0, 3 for 2, 2 for 3, one of the long ones for 4
    assert [c.text for c in cases(clips, 2, 3.0)] == ["text 0", "text 2"]
