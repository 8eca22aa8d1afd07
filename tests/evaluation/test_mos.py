"""Predicted MOS of clips, noise and silence; the stub of torchaudio leaves no trace."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest

from spear_spec.evaluation.judge import Samples
from spear_spec.evaluation.mos import MosJudge, _torchaudio_stub

from .conftest import Clip

# distillmos 0.9.1 on the clips, recorded here (2026-11-23)
RECORDED = [4.63, 4.54, 4.43, 4.41]


def test_clips_noise_and_silence(clips: list[Clip], noise: Samples) -> None:
    judge = MosJudge()
    assert [judge.score(clip.samples).value for clip in clips] == pytest.approx(RECORDED, abs=0.03)
    # half-volume noise under speech must cost more than one point
    mixed = clips[0].samples + np.resize(noise, clips[0].samples.shape)
    assert judge.score(mixed).value < RECORDED[0] - 1
    assert judge.score(noise).value < 2.0
    assert judge.score(np.zeros(24_000, dtype=np.float32)).value == 1.0
    assert judge.score(np.zeros(0, dtype=np.float32)).value == 1.0
    assert "torchaudio" not in sys.modules


def test_a_real_torchaudio_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ModuleType("torchaudio")
    monkeypatch.setitem(sys.modules, "torchaudio", real)
    with _torchaudio_stub():
        assert sys.modules["torchaudio"] is real
    assert sys.modules["torchaudio"] is real


def test_the_stub_goes_even_after_an_error() -> None:
    seen = []

    def fail() -> None:
        with _torchaudio_stub():
            seen.append("torchaudio" in sys.modules)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert seen == [True]
    assert "torchaudio" not in sys.modules
    assert "torchaudio.transforms" not in sys.modules
