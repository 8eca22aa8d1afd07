"""Speaker embeddings against those of the real resemblyzer, and what the similarity tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spear_spec.errors import BundleError
from spear_spec.evaluation.judge import Reference
from spear_spec.evaluation.reference import FILE, load_reference, save_reference
from spear_spec.evaluation.speaker import SpeakerJudge

from .conftest import Clip


def test_embeddings_equal_the_real_package(clips: list[Clip], speaker_judge: SpeakerJudge) -> None:
    for clip in clips:
        np.testing.assert_allclose(speaker_judge.embed(clip.samples), clip.embedding, atol=1e-4)


def test_same_speaker_is_nearer_than_another(clips: list[Clip], speaker_judge: SpeakerJudge) -> None:
    for clip in clips:
        for other in clips:
            found = speaker_judge.score(clip.samples, Reference("", speaker=other.embedding))
            assert found is not None
            assert (found.value > 0.8) if clip.speaker == other.speaker else (found.value < 0.6)


def test_without_a_reference_there_is_nothing_to_say(clips: list[Clip], speaker_judge: SpeakerJudge) -> None:
    assert speaker_judge.score(clips[0].samples, Reference("")) is None


@pytest.mark.parametrize("size", [0, 10, 700, 24_000])
def test_silence_of_any_length_gives_a_finite_embedding(size: int, speaker_judge: SpeakerJudge) -> None:
    assert np.isfinite(speaker_judge.embed(np.zeros(size, dtype=np.float32))).all()


def test_reference_survives_the_file(tmp_path: Path, clips: list[Clip], speaker_judge: SpeakerJudge) -> None:
    mean = speaker_judge.embed_voice([clip.samples for clip in clips[:2]])
    assert np.linalg.norm(mean) == pytest.approx(1.0, abs=1e-5)
    save_reference(tmp_path, {"af_heart": mean}, "resemblyzer")
    found = load_reference(tmp_path, "af_heart")
    assert found is not None
    np.testing.assert_allclose(found, mean, atol=1e-4)
    assert load_reference(tmp_path, "nobody") is None
    assert load_reference(tmp_path / "elsewhere", "af_heart") is None


@pytest.mark.parametrize(
    "text", ["", "[]", '{"schema": "other"}', '{"schema":"speaker-reference/1","speakers":{"x":[null]}}']
)
def test_damaged_reference_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(BundleError, match="damaged"):
        load_reference(tmp_path, "x")
