"""The supervised encoder: the layout of its input, its file, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from spear_spec.errors import BundleError, ConfigError
from spear_spec.semantic import SpeechEncoder, SupervisedConfig, SupervisedEncoder, SupervisedTokenizer
from spear_spec.semantic.supervised import frame_pairs

SMALL = SupervisedConfig(inputs=2 * 2 * 32, dim=16, expansion=3, blocks=2)


def noise(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(int(16000 * seconds)).astype(np.float32) * 0.1


def encoder(cfg: SupervisedConfig = SMALL) -> SupervisedEncoder:
    torch.manual_seed(1)
    model = SupervisedEncoder(cfg)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().requires_grad_(False)


def test_several_hidden_states_stand_behind_one_another(whisper: Path) -> None:
    wave = noise(1.0)
    both = SpeechEncoder(str(whisper), (1, 3))
    assert both.dim == 64 and both.layers == (1, 3)
    parts = [SpeechEncoder(str(whisper), layer).hidden(wave, 16000) for layer in (1, 3)]
    torch.testing.assert_close(both.hidden(wave, 16000), torch.cat(parts, -1), atol=0, rtol=0)


def test_pairs_hold_the_first_frame_and_then_the_second() -> None:
    states = torch.arange(10.0).view(5, 2)
    assert frame_pairs(states).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_the_computation_written_out() -> None:
    model, pairs = encoder(), torch.randn(9, SMALL.inputs)
    w = dict(model.state_dict())
    x = pairs @ w["enter.weight"].T + w["enter.bias"]
    for i in range(SMALL.blocks):
        p = {name.removeprefix(f"blocks.{i}."): tensor for name, tensor in w.items()}
        padded = F.pad(x, (0, 0, 3, 3))
        mixed = (
            torch.stack([(padded[t : t + 7] * p["depthwise.weight"][:, 0].T).sum(0) for t in range(9)])
            + p["depthwise.bias"]
        )
        normed = F.layer_norm(mixed, (16,), p["norm.weight"], p["norm.bias"])
        x = x + p["scale"] * (F.gelu(normed @ p["up.weight"].T + p["up.bias"]) @ p["down.weight"].T + p["down.bias"])
    torch.testing.assert_close(model(pairs[None])[0], F.layer_norm(x, (16,)), atol=1e-5, rtol=1e-5)


def test_file_round_trip_keeps_the_sizes(tmp_path: Path) -> None:
    model = encoder()
    model.save(tmp_path / "e.safetensors")
    again = SupervisedEncoder.load(tmp_path / "e.safetensors")
    assert again.cfg == SMALL
    pairs = torch.randn(2, 5, SMALL.inputs)
    assert torch.equal(model(pairs), again(pairs))


def test_tokens_are_the_nearest_centroids_at_25_hz(whisper: Path) -> None:
    model = encoder()
    tokenizer = SupervisedTokenizer(SpeechEncoder(str(whisper), (1, 3)), model, torch.randn(12, 16))
    wave = noise(2.03)
    tokens, features = tokenizer.encode(wave, 16000), tokenizer.features(wave, 16000)
    assert tokens.shape == (50,) and tokenizer.vocab_size == 12
    assert torch.equal(tokens, torch.cdist(features, tokenizer.centroids).argmin(-1))


def test_files_make_a_tokenizer(whisper: Path, tmp_path: Path) -> None:
    encoder().save(tmp_path / "e.safetensors")
    save_file({"centroids": torch.randn(12, 16)}, tmp_path / "c.safetensors")
    speech = SpeechEncoder(str(whisper), (1, 3))
    assert SupervisedTokenizer.load(speech, tmp_path / "e.safetensors", tmp_path / "c.safetensors").vocab_size == 12


def test_parts_that_do_not_fit_are_refused(whisper: Path, tmp_path: Path) -> None:
    speech = SpeechEncoder(str(whisper), (1, 3))
    with pytest.raises(ConfigError, match="centroids of shape"):
        SupervisedTokenizer(speech, encoder(), torch.randn(12, 15))
    with pytest.raises(ConfigError, match="reads 64 values"):
        SupervisedTokenizer(speech, encoder(SupervisedConfig(inputs=64, dim=16, blocks=1)), torch.randn(12, 16))
    with pytest.raises(BundleError, match="cannot read"):
        SupervisedEncoder.load(tmp_path / "nothing.safetensors")
    with pytest.raises(BundleError, match="no weights of a supervised encoder"):
        SupervisedEncoder.from_tensors({"a": torch.zeros(2)})
    broken = {**encoder().state_dict(), "enter.bias": torch.full((16,), torch.nan)}
    with pytest.raises(BundleError, match="NaN"):
        SupervisedEncoder.from_tensors(broken)
    with pytest.raises(ConfigError, match="hidden states 0 to 3, not 1, 4"):
        SpeechEncoder(str(whisper), (1, 4))
