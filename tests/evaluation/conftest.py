"""Clips of the teacher, and judges that are loaded once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from spear_spec.audio import load_audio
from spear_spec.evaluation.judge import Samples
from spear_spec.evaluation.speaker import SpeakerJudge
from spear_spec.evaluation.wer import WordErrorJudge

FOLDER = Path(__file__).parent / "clips"


@dataclass(frozen=True)
class Clip:
    speaker: str
    text: str
    phonemes: str
    samples: Samples
    embedding: Samples  # by the real resemblyzer


@pytest.fixture(scope="session")
def clips() -> list[Clip]:
    found = []
    for entry in json.loads((FOLDER / "clips.json").read_text("utf-8")):
        samples = load_audio(FOLDER / entry["file"], 24_000).samples
        embedding = np.array(entry["resemblyzer"], dtype=np.float32)
        found.append(Clip(entry["speaker"], entry["text"], entry["phonemes"], samples, embedding))
    return found


@pytest.fixture(scope="session")
def noise() -> Samples:
    return (0.1 * np.random.default_rng(0).standard_normal(48_000)).astype(np.float32)


@pytest.fixture(scope="session")
def word_judge() -> WordErrorJudge:
    return WordErrorJudge()


@pytest.fixture(scope="session")
def speaker_judge() -> SpeakerJudge:
    return SpeakerJudge()
