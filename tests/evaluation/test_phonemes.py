"""The coarse alphabet and the phoneme error of clips."""

from __future__ import annotations

import numpy as np

from spear_spec.evaluation.judge import Reference
from spear_spec.evaluation.phonemes import PhonemeErrorJudge, fold
from spear_spec.text.symbols import CONSONANTS, PUNCTUATION, STRESS, VOWELS

from .conftest import Clip


def test_both_notations_fold_to_the_same() -> None:
    misaki = list("ðə bˈʌTəɹ ʧˈAnʤɪz, nˈW ənd ˈɔlsO.")
    hama = [
        "ð",
        "i",
        "b",
        "ə",
        "ɾ",
        "ɝ",
        "t͡ʃ",
        "eɪ",
        "n",
        "d͡ʒ",
        "ə",
        "z",
        "n",
        "aʊ",
        "ə",
        "n",
        "d",
        "ɑ",
        "l",
        "s",
        "oʊ",
    ]
    assert (
        fold(misaki)
        == fold(hama)
        == [
            "ð",
            "ə",
            "b",
            "ə",
            "t",
            "ə",
            "ɹ",
            "tʃ",
            "e",
            "n",
            "dʒ",
            "ə",
            "z",
            "n",
            "aʊ",
            "ə",
            "n",
            "d",
            "ɑ",
            "l",
            "s",
            "o",
        ]
    )


def test_every_letter_that_a_voice_can_be_asked_for_counts() -> None:
    assert [letter for letter in (*VOWELS, *CONSONANTS) if not fold([letter])] == []
    assert fold([*STRESS, *PUNCTUATION]) == []


def test_marks_are_dropped_and_letters_kept() -> None:
    assert fold(["ẽ", "̪", "d", "ĩ"]) == ["e", "d", "i"]


def test_error_of_clips(clips: list[Clip]) -> None:
    judge = PhonemeErrorJudge()
    right = [judge.score(clip.samples, Reference(clip.text, clip.phonemes)) for clip in clips]
    wrong = [judge.score(clip.samples, Reference("", clips[i - 1].phonemes)) for i, clip in enumerate(clips)]
    assert sum(m.numerator for m in right) / sum(m.denominator for m in right) < 0.2
    assert min(m.value for m in wrong) > 0.5
    silence = judge.score(np.zeros(100, dtype=np.float32), Reference("", clips[0].phonemes))
    assert silence.value == 1.0
    assert judge.score(clips[0].samples, Reference(clips[0].text)) is None
