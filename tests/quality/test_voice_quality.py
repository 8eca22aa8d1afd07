"""The shipped voice speaks a few fixed sentences and must stay as good as recorded in thresholds.json.

The thresholds are what was measured when the voice was packed, less a margin; `measured` in the same file says what.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from spear_spec.audio import Audio
from spear_spec.evaluation.judge import Measurement, Reference
from spear_spec.evaluation.mos import MosJudge
from spear_spec.evaluation.phonemes import PhonemeErrorJudge
from spear_spec.evaluation.reference import load_reference
from spear_spec.evaluation.speaker import SpeakerJudge
from spear_spec.evaluation.wer import WordErrorJudge
from spear_spec.pipeline import TTS

LIMITS = json.loads((Path(__file__).parent / "thresholds.json").read_text("utf-8"))
SENTENCES = [
    ("af_heart", "The train to the coast leaves at half past seven every morning."),
    ("af_heart", "Please put the blue bottle back on the kitchen table."),
    ("af_heart", "She laughed when she heard how much the old piano had cost."),
    ("af_heart", "Nobody knows why the lights went out during the storm."),
    ("am_michael", "My brother has worked in the same small office for twenty years."),
    ("am_michael", "After dinner we walked along the river until it was dark."),
    ("am_michael", "The doctor asked him to come back on Thursday afternoon."),
]
WORDS = ["Yesterday.", "Elephant.", "Chocolate.", "Hospital."]


@dataclass(frozen=True)
class Spoken:
    speaker: str
    text: str
    phonemes: str
    audio: Audio


@pytest.fixture(scope="module")
def tts() -> TTS:
    return TTS.load(device="cpu", threads=1)


@pytest.fixture(scope="module", name="spoken")
def spoken_fixture(tts: TTS) -> list[Spoken]:
    return speak(tts)


def speak(tts: TTS) -> list[Spoken]:
    return [
        Spoken(speaker, text, tts.front_end.phonemes(text), tts.synthesize(text, speaker=speaker, seed=i))
        for i, (speaker, text) in enumerate(SENTENCES)
    ]


def share(found: list[Measurement]) -> float:
    return sum(m.numerator for m in found) / sum(m.denominator for m in found)


def test_every_sentence_ends_by_itself_and_is_heard(spoken: list[Spoken]) -> None:
    for item in spoken:
        assert item.audio.stats["ended"] == "eos", item.text
        assert 0.1 < np.abs(item.audio.samples).max() <= 1.0, item.text


def test_pace(spoken: list[Spoken]) -> None:
    """Seconds against the pace of the teacher's clips, which hold 9 to 15 phoneme letters a second, stress marks
    counted and silences included.
    """
    for item in spoken:
        letters = sum(letter.isalpha() for letter in item.phonemes)
        assert LIMITS["pace_least"] < letters / item.audio.seconds < LIMITS["pace_most"], item.text


def test_words_are_understood(spoken: list[Spoken]) -> None:
    judge = WordErrorJudge()
    found = [judge.score(item.audio.samples, Reference(item.text)) for item in spoken]
    assert share(found) <= LIMITS["wer"], [m.detail for m in found]


def test_phonemes_are_heard(spoken: list[Spoken]) -> None:
    judge = PhonemeErrorJudge()
    found = [judge.score(item.audio.samples, Reference(item.text, item.phonemes)) for item in spoken]
    assert share([m for m in found if m is not None]) <= LIMITS["per"]


@pytest.mark.parametrize("speaker", ["af_heart", "am_michael"])
def test_predicted_mos(speaker: str, spoken: list[Spoken]) -> None:
    judge = MosJudge()
    found = [judge.score(item.audio.samples) for item in spoken if item.speaker == speaker]
    assert share(found) >= LIMITS["mos"][speaker], [m.value for m in found]


def test_each_speaker_sounds_like_itself(tts: TTS, spoken: list[Spoken]) -> None:
    judge = SpeakerJudge()
    references = {speaker: load_reference(tts.bundle.path, speaker) for speaker in tts.speakers}
    for item in spoken:
        embedding = judge.embed(item.audio.samples)
        near = {name: float(embedding @ reference) for name, reference in references.items() if reference is not None}
        assert len(near) == 2
        assert near[item.speaker] >= LIMITS["speaker_similarity"], item.text
        assert max(near, key=near.__getitem__) == item.speaker, item.text


def test_single_words(tts: TTS) -> None:
    """Short texts are where such models babble: most of these must be word-exact."""
    judge = WordErrorJudge()
    found = [judge.score(tts.synthesize(word, seed=i).samples, Reference(word)) for i, word in enumerate(WORDS)]
    assert sum(m.numerator == 0 for m in found) >= LIMITS["single_words_exact"], [m.detail for m in found]
