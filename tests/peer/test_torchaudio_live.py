"""The real torchaudio: its LibriTTS reads the folder that ours reads, and its HuBERT is the one behind our tokens."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from spear_spec.interop.shims import shim_torchaudio
from spear_spec.semantic import SpeechEncoder
from tests.stubs.libritts import GENDERS, READERS, SENTENCES, make_libritts

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def torchaudio() -> Any:
    shim_torchaudio()
    return importlib.import_module("torchaudio")


@pytest.mark.parametrize("part", READERS)
def test_its_libritts_reads_our_folder(
    part: str, torchaudio: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the decoding is soundfile's: torchaudio leaves that to torchcodec."""

    def load(path: str) -> tuple[torch.Tensor, int]:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        return torch.from_numpy(samples.T), rate

    monkeypatch.setattr(torchaudio, "load", load)
    make_libritts(tmp_path / "LibriTTS")
    there = torchaudio.datasets.LIBRITTS(tmp_path, url=part)
    wanted = SENTENCES if part.startswith("train") else SENTENCES[:6]
    assert len(there) == len(wanted)
    found = [there[n] for n in range(len(there))]
    for samples, rate, original, normalised, reader, chapter, name in found:
        assert rate == 24000 and samples.ndim == 2 and samples.shape[1] > 6000
        assert original == normalised.upper()
        assert str(reader) in READERS[part] and name.startswith(f"{reader}_{chapter}_")
        assert str(reader) in GENDERS
    assert sorted(item[3] for item in found) == sorted(wanted)


@pytest.mark.parametrize("large", [False, True])
def test_its_hubert_is_heard_frame_by_frame(large: bool, torchaudio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = torchaudio.models.wav2vec2_model(
        extractor_mode="layer_norm" if large else "group_norm",
        extractor_conv_layer_config=[(16, 10, 5), *4 * [(16, 3, 2)], *2 * [(16, 2, 2)]],
        extractor_conv_bias=False,
        encoder_embed_dim=32,
        encoder_projection_dropout=0.1,
        encoder_pos_conv_kernel=16,
        encoder_pos_conv_groups=2,
        encoder_num_layers=3,
        encoder_num_heads=2,
        encoder_attention_dropout=0.1,
        encoder_ff_interm_features=64,
        encoder_ff_interm_dropout=0.1,
        encoder_dropout=0.1,
        encoder_layer_norm_first=large,
        encoder_layer_drop=0.1,
        aux_num_out=None,
    )
    bundle = torchaudio.pipelines.HUBERT_BASE
    assert bundle.sample_rate == 16000
    monkeypatch.setattr(type(bundle), "get_model", lambda self: model)
    ours = SpeechEncoder("torchaudio:HUBERT_BASE", 2)
    assert ours.dim == 32 and ours.family.depth == 3
    wave = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.1
    wanted = model.extract_features(torch.from_numpy(np.pad(wave, 40))[None])[0][1][0]
    torch.testing.assert_close(ours.hidden(wave, 16000), wanted)
    assert wanted.shape == (50, 32)
