"""The bare-clip path of the encoder against the official forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor, WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from spear_spec.errors import AudioError, BundleError, ConfigError, MissingExtraError
from spear_spec.semantic import SpeechEncoder, families


@pytest.fixture(scope="module")
def whisper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper encoder of three narrow blocks."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whisper")
    config = WhisperConfig(
        d_model=32,
        encoder_layers=3,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        vocab_size=64,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    WhisperEncoder(config).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def hubert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("hubert")
    config = HubertConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    HubertModel(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32) * 0.1


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_thirty_seconds_equal_the_official_forward(whisper: Path, layer: int) -> None:
    ours = SpeechEncoder(str(whisper), (layer, 3))  # with the last one, so that all blocks are there
    wave = noise(30 * 16000)
    features = ours.family.extract(wave, sampling_rate=16000, return_tensors="pt")["input_features"]
    assert features.shape == (1, 80, 3000)
    official = ours.family.model(features, output_hidden_states=True)
    wanted = official.last_hidden_state if layer == 3 else official.hidden_states[layer]
    got = ours.hidden(wave, 16000)[:, :32]
    if layer == 3:  # the official output is normalised at the end; a hidden state is not
        got = ours.family.model.layer_norm(got)[None]
    torch.testing.assert_close(got.squeeze(0), wanted.squeeze(0), atol=1e-4, rtol=1e-4)


def test_bare_clip_is_not_padded(whisper: Path) -> None:
    ours = SpeechEncoder(str(whisper), 2)
    clip = noise(16000 * 2 + 639)
    states = ours.hidden(clip, 16000)
    assert states.shape == (100, 32)
    padded = np.concatenate([clip[:32000], np.zeros(16000, np.float32)])
    assert not torch.allclose(ours.hidden(padded, 16000)[:100], states, atol=1e-3)


def test_other_rates_are_resampled(whisper: Path) -> None:
    ours = SpeechEncoder(str(whisper), 2)
    time = np.arange(48000) / 24000
    at_24k = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    at_16k = np.sin(2 * np.pi * 440 * np.arange(32000) / 16000).astype(np.float32)
    a, b = ours.hidden(at_24k, 24000), ours.hidden(at_16k, 16000)
    assert a.shape == b.shape == (100, 32)
    assert (a - b)[5:-5].abs().mean() < 0.1 * (b[5:-5] - b.mean(0)).abs().mean() + 0.02


def test_long_clips_are_windowed(whisper: Path) -> None:
    ours = SpeechEncoder(str(whisper), 2)
    wave = noise(16000 * 61)
    states = ours.hidden(wave, 16000)
    assert states.shape == (61 * 50, 32)
    inside = ours.family.of_mels(ours.family.log_mel(wave[21 * 16000 : 51 * 16000]), [2])[0][0, 3 * 50 : 27 * 50]
    torch.testing.assert_close(states[24 * 50 : 48 * 50], inside, atol=1e-4, rtol=1e-4)


def test_hubert_has_a_frame_for_every_320_samples(hubert: Path) -> None:
    ours = SpeechEncoder(str(hubert), 1)
    assert ours.hidden(noise(16000), 16000).shape == (50, 32)
    wave = torch.from_numpy(noise(6400))
    values = ours.family.extract(wave.numpy(), sampling_rate=16000, return_tensors="pt")["input_values"]
    wanted = ours.family.model(torch.nn.functional.pad(values, (40, 40)), output_hidden_states=True).hidden_states[1][0]
    torch.testing.assert_close(ours.hidden(wave.numpy(), 16000), wanted)


def test_bad_audio(whisper: Path) -> None:
    ours = SpeechEncoder(str(whisper), 1)
    for wave in (np.zeros((2, 16000)), np.full(16000, np.nan), np.zeros(639)):
        with pytest.raises(AudioError):
            ours.hidden(wave, 16000)


def test_bad_models(whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="0 to 3"):
        SpeechEncoder(str(whisper), 4)
    with pytest.raises(BundleError, match="speech encoder"):
        SpeechEncoder(str(tmp_path), 1)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="bert"):
        SpeechEncoder(str(tmp_path), 1)

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(families.importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"\[train\]"):
        SpeechEncoder(str(whisper), 1)
