"""Quantisation, fitting, and the files of the semantic tokenizer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from spear_spec.errors import BundleError, ConfigError
from spear_spec.semantic import SemanticTokenizer, SpeechEncoder, agreement, fit_kmeans, nearest
from spear_spec.semantic.tokenizer import pool, read_centroids


class Stub(SpeechEncoder):
    """Features without an encoder: the clip's samples in rows of 320."""

    def __init__(self) -> None:
        self.name, self.layer, self.device = "stub", 4, torch.device("cpu")

    @property
    def dim(self) -> int:
        return 320

    def hidden(self, samples: object, sample_rate: int) -> torch.Tensor:
        wave = torch.as_tensor(samples)
        return wave[: len(wave) // 640 * 640].view(-1, 320)


def test_nearest_is_brute_force() -> None:
    features, centroids = torch.randn(301, 7) * 3 + 5, torch.randn(40, 7) * 3 + 5
    wanted = torch.tensor(
        [min(range(40), key=lambda k: float(((row - centroids[k]) ** 2).sum())) for row in features.double()]
    )
    assert torch.equal(nearest(features, centroids), wanted)
    assert torch.equal(nearest(features, centroids, chunk=17), wanted)
    assert nearest(features[:0], centroids).shape == (0,)


def test_fit_finds_separated_clusters() -> None:
    centres = torch.randn(6, 5) * 20
    features = centres.repeat(50, 1) + torch.randn(300, 5) * 0.1
    found = fit_kmeans(features, 6, seed=1)
    assert found.shape == (6, 5)
    assert torch.cdist(found, centres).min(0).values.max() < 0.2
    assert torch.equal(found, fit_kmeans(features, 6, seed=1))
    with pytest.raises(ConfigError, match="clusters"):
        fit_kmeans(features[:5], 6)


def test_pairs_are_averaged() -> None:
    states = torch.arange(14.0).view(7, 2)
    assert torch.equal(pool(states), torch.tensor([[1.0, 2.0], [5.0, 6.0], [9.0, 10.0]]))


def test_encode_save_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wave = np.random.default_rng(0).standard_normal(640 * 30 + 100).astype(np.float32)
    tokenizer = SemanticTokenizer(Stub(), 4, torch.randn(16, 320))
    tokens = tokenizer.encode(wave, 16000)
    assert tokens.dtype == torch.int64
    rows = torch.from_numpy(wave[: 640 * 30]).view(30, 2, 320).mean(1)
    assert torch.equal(tokens, torch.cdist(rows, tokenizer.centroids).argmin(-1))
    tokenizer.save(tmp_path / "centroids.safetensors")
    monkeypatch.setattr("spear_spec.semantic.tokenizer.SpeechEncoder", lambda name, layer, device: Stub())
    again, metadata = read_centroids(tmp_path / "centroids.safetensors")
    assert torch.equal(again, tokenizer.centroids)
    assert metadata == {"encoder": "stub", "layer": "4"}


def test_bad_centroids(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="width"):
        SemanticTokenizer(Stub(), 4, torch.randn(16, 12))
    with pytest.raises(BundleError):
        SemanticTokenizer.load(tmp_path / "none.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 10)
    with pytest.raises(BundleError):
        SemanticTokenizer.load(tmp_path / "junk.safetensors")
    save_file({"centroids": torch.randn(4, 320)}, tmp_path / "bare.safetensors")
    with pytest.raises(ConfigError, match="which encoder"):
        SemanticTokenizer.load(tmp_path / "bare.safetensors")


def test_agreement_counts_missing_tokens() -> None:
    assert agreement(torch.tensor([1, 2, 3]), torch.tensor([1, 5, 3, 4], dtype=torch.int16)) == (2, 4)
