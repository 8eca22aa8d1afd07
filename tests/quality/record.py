"""Measure the shipped voice on the sentences of test_voice_quality.py and write thresholds.json, margins included.

    python tests/quality/record.py     (from the repository's root, after a voice has been packed)

Seeds are fixed, but another processor may round another way and so draw another token: hence the margins.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import torch

from spear_spec.evaluation.judge import Reference
from spear_spec.evaluation.mos import MosJudge
from spear_spec.evaluation.phonemes import PhonemeErrorJudge
from spear_spec.evaluation.reference import load_reference
from spear_spec.evaluation.speaker import SpeakerJudge
from spear_spec.evaluation.wer import WordErrorJudge
from spear_spec.pipeline import TTS

HERE = Path(__file__).parent


def main() -> None:
    spec = importlib.util.spec_from_file_location("quality_test", HERE / "test_voice_quality.py")
    assert spec is not None and spec.loader is not None
    test = importlib.util.module_from_spec(spec)
    sys.modules["quality_test"] = test  # dataclasses look their module up
    spec.loader.exec_module(test)
    torch.set_num_threads(1)
    tts = TTS.load(device="cpu", threads=1)
    spoken = test.speak(tts)
    words, phones, mos, speaker = WordErrorJudge(), PhonemeErrorJudge(), MosJudge(), SpeakerJudge()
    rows = []
    for item in spoken:
        samples = item.audio.samples
        reference = Reference(item.text, item.phonemes, load_reference(tts.bundle.path, item.speaker))
        rows.append(
            (
                item.speaker,
                words.score(samples, reference),
                phones.score(samples, reference),
                mos.score(samples),
                speaker.score(samples, reference),
            )
        )
    exact = 0
    for i, word in enumerate(test.WORDS):
        exact += words.score(tts.synthesize(word, seed=i).samples, Reference(word)).numerator == 0
    measured = {
        "wer": round(test.share([row[1] for row in rows]), 4),
        "per": round(test.share([row[2] for row in rows]), 4),
        "mos": {name: round(test.share([row[3] for row in rows if row[0] == name]), 3) for name in tts.speakers},
        "speaker_similarity": round(min(row[4].value for row in rows if row[4] is not None), 3),
        "single_words_exact": exact,
    }
    limits = {
        "wer": round(measured["wer"] + 0.06, 3),
        "per": round(measured["per"] + 0.06, 3),
        "mos": {name: round(value - 0.25, 2) for name, value in measured["mos"].items()},
        "speaker_similarity": round(measured["speaker_similarity"] - 0.06, 2),
        "pace_least": 7.5,
        "pace_most": 18,
        "single_words_exact": max(0, exact - 1),
        "measured": measured,
    }
    (HERE / "thresholds.json").write_text(json.dumps(limits, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(limits, indent=1))


if __name__ == "__main__":
    main()
