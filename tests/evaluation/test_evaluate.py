"""The whole of `eval` over a voice that plays recorded clips: arms, seeds, eval/1, paired difference."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spear_spec import TTS
from spear_spec.audio import Audio
from spear_spec.decoding import Proposal, Session, Verdict
from spear_spec.decoding.verifiers.recursive import RecursiveVerifier
from spear_spec.errors import ConfigError, TextError
from spear_spec.evaluation import judges as table
from spear_spec.evaluation.evaluate import evaluate
from spear_spec.evaluation.judge import Measurement, Reference, Samples
from spear_spec.evaluation.reference import save_reference
from spear_spec.evaluation.report import METRICS
from tests.stubs.schemas import check
from tests.stubs.voice import make_voice

CFG = {
    "drafter": "small",
    "verifier": "rejection",
    "lossless": True,
    "gamma": 5,
    "gammas": {},
    "runtime": "eager",
    "num_drafts": 1,
    "tree": None,
    "options": {},
    "batch": 1,
    "seed": 0,
    "device": "cpu",
    "threads": 1,
    "dtype": "float32",
    "sampling": {"temperature": 0.7, "top_k": 0, "top_p": 0.9, "guidance": 1.0},
}
TEXTS = ["one", "two two", "three three three", "four"]


@dataclass
class StubVoice:
    """Speaks a constant whose level tells the arm: speculative .5, autoregressive .25. Calls are kept in `log`."""

    path: Path
    drafter: str = "small"
    log: list[tuple[str, str, int]] = field(default_factory=list)
    name: str = "stub"
    speakers: tuple[str, ...] = ("a", "b")

    @property
    def bundle(self) -> SimpleNamespace:
        return SimpleNamespace(path=self.path)

    @property
    def decoder(self) -> SimpleNamespace:
        return SimpleNamespace(parts=SimpleNamespace(plain=self.drafter == "none"))

    @property
    def front_end(self) -> SimpleNamespace:
        return SimpleNamespace(phonemes=str.upper)

    def using(self, drafter: str, **ignored: Any) -> StubVoice:
        return replace(self, drafter=drafter)

    def describe(self, **given: Any) -> dict[str, Any]:
        return {**CFG, "drafter": self.drafter, "batch": given["batch"], "seed": given["seed"]}

    def synthesize(
        self, text: str, *, seed: int, speaker: str | None, max_tokens: int | None, batch: int, speed: float
    ) -> Audio:
        self.log.append((self.drafter, text, seed))
        level = 0.25 if self.drafter == "none" else 0.5
        stats = {"audio_s": 2.0, "rtf": level / 10, "ttfa_s": level, "ended": "eos"}
        return Audio(np.full(48_000, level, dtype=np.float32), 24_000, stats)


@dataclass
class StubJudge:
    """Hears one error a text from the speculative arm, none from the other; needs the speaker for similarity."""

    metric: str
    name: str = "stub"
    version: str = "1"

    def score(self, samples: Samples, reference: Reference, sample_rate: int) -> Measurement | None:
        assert sample_rate == 24_000
        if self.metric == "per":
            assert reference.phonemes == reference.text.upper()
        if self.metric == "speaker_similarity":
            return None if reference.speaker is None else Measurement(float(reference.speaker[0]), 1.0)
        errors = float(samples[0] == 0.5)
        return Measurement(errors, len(reference.text.split()), f"heard {reference.text}")


@pytest.fixture(autouse=True)
def _stub_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "JUDGES", {metric: (lambda m=metric: StubJudge(m)) for metric in METRICS[:5]})


def test_schema_and_values(tmp_path: Path) -> None:
    save_reference(tmp_path, {"a": np.array([0.6, 0.8], np.float32), "b": np.array([1, 0], np.float32)}, "stub")
    kept: list[tuple[int, str]] = []
    seen: list[tuple[int, int]] = []
    voice = StubVoice(tmp_path)
    result = evaluate(
        voice, TEXTS, seed=7, keep=lambda i, arm, _: kept.append((i, arm)), progress=lambda *p: seen.append(p)
    ).to_dict()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    check(result, "eval/1")
    assert result["voice"] == "stub"
    assert result["judges"] == [{"name": "stub", "version": "1"}] * 5
    assert list(result["arms"]) == ["speculative", "autoregressive"]
    for name, arm in result["arms"].items():
        assert arm["drafter"] == ("none" if name == "autoregressive" else "small")
        assert None not in arm["metrics"].values()
    fast, slow = (result["arms"][name]["metrics"] for name in ("speculative", "autoregressive"))
    assert fast["wer"]["value"] == pytest.approx(4 / 7)
    assert slow["wer"] == {"value": 0, "lo": 0, "hi": 0}
    assert fast["speaker_similarity"]["value"] == pytest.approx(0.6)
    assert (fast["rtf"]["value"], fast["ttfa_s"]["value"]) == pytest.approx((0.05, 0.5))
    assert len(result["items"]) == 8
    assert result["items"][2] == {
        "id": 1,
        "arm": "speculative",
        "text": "two two",
        "hypothesis": "heard two two",
        "wer": 0.5,
        "seconds": 2.0,
        "ended": "eos",
    }
    # the same seed for both arms of a sentence, another for each sentence; one warm-up an arm
    assert sorted(voice.log[2:]) == sorted((arm, t, 7 + i) for i, t in enumerate(TEXTS) for arm in ("small", "none"))
    assert kept == [(i, arm) for i in range(4) for arm in ("speculative", "autoregressive")]
    assert seen[-1] == (8, 8)


def test_difference_is_paired(tmp_path: Path) -> None:
    found = evaluate(StubVoice(tmp_path), TEXTS, judges=["wer", "mos"])
    difference = found.difference("wer")
    assert difference is not None
    assert difference.value == pytest.approx(4 / 7)
    assert found.difference("speaker_similarity") is None
    table_text = found.table()
    assert "| wer | 57.14 %" in table_text
    assert "| per | not judged | not judged | not judged |" in table_text


def test_without_a_reference_similarity_is_null(tmp_path: Path) -> None:
    result = evaluate(StubVoice(tmp_path), TEXTS[:1]).to_dict()
    check(result, "eval/1")
    assert result["arms"]["speculative"]["metrics"]["speaker_similarity"] is None


def test_a_voice_without_a_draft_has_one_arm(tmp_path: Path) -> None:
    result = evaluate(StubVoice(tmp_path, drafter="none"), TEXTS).to_dict()
    assert list(result["arms"]) == ["autoregressive"]


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="sentence"):
        evaluate(StubVoice(tmp_path), [])
    with pytest.raises(ConfigError, match="no judge for beauty"):
        evaluate(StubVoice(tmp_path), TEXTS, judges=["beauty"])


class Again:
    """Drafts the last token again: a drafter of a user's own."""

    name, form = "again", "chain"

    def start(self, session: Session) -> None:
        return None

    def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
        return Proposal([session.tokens[row][-1:] * limit for row, limit in zip(session.rows, limits)])

    def commit(self, session: Session, state: None, verdict: Verdict) -> None:
        return None


class OnlyTrees(RecursiveVerifier):
    """A rule of a user's own that the autoregressive loop has nothing for."""

    forms = frozenset({"points"})


def test_a_drafter_of_ones_own_over_none_is_judged_too(tmp_path: Path) -> None:
    """A voice that drafts nothing by itself, and a drafter that is only an object: still two arms."""
    plain = TTS.load(make_voice(tmp_path / "bare", draft=False), device="cpu")
    own = plain.using(drafter=Again(), gamma=2)
    assert own.spec.drafter == "none"
    found = evaluate(own, ["Yes.", "Two words."], judges=["wer"], max_tokens=8)
    assert list(found.arms) == ["speculative", "autoregressive"]
    assert [arm["drafter"] for arm in found.arms.values()] == ["again", "none"]
    assert {utterance.arm for utterance in found.utterances} == {"speculative", "autoregressive"}
    assert any(u.stats["drafted"] for u in found.utterances if u.arm == "speculative")
    assert not any(u.stats["drafted"] for u in found.utterances if u.arm == "autoregressive")


def test_a_rule_of_ones_own_stays_with_the_draft(tmp_path: Path) -> None:
    voice = TTS.load(make_voice(tmp_path / "tiny"), device="cpu")
    own = voice.using(tree="2-1", verifier=OnlyTrees(), options={"siblings": "top"})
    found = evaluate(own, ["Yes."], judges=["wer"], max_tokens=8)
    assert [arm["verifier"] for arm in found.arms.values()] == ["recursive", None]


def test_the_last_seed_has_a_next_one(tmp_path: Path) -> None:
    """Text i is spoken with seed + i, also behind 2^64 - 1."""
    voice = StubVoice(tmp_path)
    evaluate(voice, TEXTS[:2], judges=["wer"], seed=2**64 - 1)
    assert {seed for _, text, seed in voice.log if text == TEXTS[1]} == {0}
