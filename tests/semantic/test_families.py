"""Every family of encoders, small and random: frame rate, normalisation, layers, and a clip that is heard alone."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from spear_spec.errors import BundleError, ConfigError, MissingExtraError
from spear_spec.semantic import SpeechEncoder, families
from spear_spec.semantic.families import HOP

BLOCKS = 3
WIDTH = 32
SMALL: dict[str, Any] = {
    "hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 2, "intermediate_size": 64,
}  # fmt: skip
CONVOLUTIONS: dict[str, Any] = {
    "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer"}


def make(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    normalise = kind.endswith("large")
    extract: Any = hf.Wav2Vec2FeatureExtractor(do_normalize=normalise, return_attention_mask=normalise)
    if kind.startswith("hubert"):
        model: Any = hf.HubertModel(hf.HubertConfig(**SMALL, **CONVOLUTIONS, **(LARGE if normalise else {})))
    elif kind.startswith("wavlm"):
        model = hf.WavLMModel(hf.WavLMConfig(**SMALL, **CONVOLUTIONS, **(LARGE if normalise else {})))
    elif kind == "wav2vec2":
        model = hf.Wav2Vec2Model(hf.Wav2Vec2Config(**SMALL, **CONVOLUTIONS))
    elif kind == "w2v-bert":
        model, extract = hf.Wav2Vec2BertModel(hf.Wav2Vec2BertConfig(**SMALL)), hf.SeamlessM4TFeatureExtractor()
    else:
        sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (
            ("layers", BLOCKS), ("attention_heads", 2), ("ffn_dim", 64))}  # fmt: skip
        ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
        config = hf.WhisperConfig(d_model=WIDTH, vocab_size=64, **sizes, **ids)
        model, extract = hf.WhisperModel(config).encoder, hf.WhisperFeatureExtractor()
    model.save_pretrained(folder)
    extract.save_pretrained(folder)
    return folder


KINDS = ("whisper", "hubert", "hubert-large", "wavlm", "wavlm-large", "wav2vec2", "w2v-bert")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: make(kind, tmp_path_factory.mktemp(kind)) for kind in KINDS}


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(int(seconds * 16000)) * np.linspace(0.02, 0.2, int(seconds * 16000))).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_for_every_320_samples(kind: str, folders: dict[str, Path]) -> None:
    ours = SpeechEncoder(str(folders[kind]), BLOCKS)
    assert (ours.family.depth, ours.dim) == (BLOCKS, WIDTH)
    for samples in (640, 1279, 16000, 24000 + 319):
        assert ours.hidden(noise(2.0)[:samples], 16000).shape == (samples // 640 * 2, WIDTH)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_is_of_its_own_time(kind: str, folders: dict[str, Path]) -> None:
    """A click in otherwise equal noise moves the embedding most at the frame in which it lies."""
    ours = SpeechEncoder(str(folders[kind]), 0)
    wave = noise(2.0)
    for frame in (10, 50, 90):
        clicked = wave.copy()
        clicked[frame * HOP + 100 : frame * HOP + 220] += 0.5
        moved = (ours.hidden(clicked, 16000) - ours.hidden(wave, 16000)).norm(dim=-1)
        moved[[0, 1, -2, -1]] = 0  # where silence meets a window that is normalised by its loudness
        assert abs(int(moved.argmax()) - frame) <= 1, (frame, int(moved.argmax()))


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_the_blocks_of_the_model(kind: str, folders: dict[str, Path]) -> None:
    """State n is what block n leaves: the model's own account, and for the last one, that its final norm is to come."""
    ours = SpeechEncoder(str(folders[kind]), tuple(range(BLOCKS + 1)))
    states = ours.hidden(noise(1.0), 16000).split(WIDTH, -1)
    assert not any(torch.allclose(one, other) for one, other in zip(states, states[1:]))
    for number, wanted in enumerate(states):
        alone = SpeechEncoder(str(folders[kind]), number)
        torch.testing.assert_close(alone.hidden(noise(1.0), 16000), wanted, atol=1e-6, rtol=1e-6)
        assert number == 0 or len(blocks(alone, kind)) == number  # what comes behind is not computed
    if kind == "whisper":
        return  # it takes 30 s only, see test_encoder.py
    seen: list[Tensor] = []
    model = ours.family.model
    model.register_forward_pre_hook(lambda _m, given: seen.append(given[0]))
    ours.hidden(noise(1.0), 16000)
    told = model(seen[0], output_hidden_states=True)
    for number in range(BLOCKS):
        torch.testing.assert_close(told.hidden_states[number][0], states[number])
    last = model.encoder.layer_norm(states[-1]) if kind.endswith("large") else states[-1]
    torch.testing.assert_close(told.last_hidden_state[0], last)


def blocks(encoder: SpeechEncoder, kind: str) -> Any:
    model = encoder.family.model
    return model.layers if kind == "whisper" else model.encoder.layers


@pytest.mark.parametrize("kind", KINDS)
def test_loudness_counts_only_where_the_model_was_trained_so(kind: str, folders: dict[str, Path]) -> None:
    ours = SpeechEncoder(str(folders[kind]), 1)
    soft, loud = ours.hidden(noise(1.0) / 8, 16000), ours.hidden(noise(1.0), 16000)
    moved = float((soft - loud).norm() / loud.norm())
    # Whisper takes log-mels from their largest one on, w2v-BERT takes away their mean; the last-level floor remains
    assert moved < (0.01 if kind.endswith("large") else 0.05) or kind in ("hubert", "wavlm", "wav2vec2"), moved
    assert moved > 0.01 or kind.endswith("large") or kind in ("whisper", "w2v-bert"), moved


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_heard_before_leaves_no_trace(kind: str, folders: dict[str, Path]) -> None:
    ours = SpeechEncoder(str(folders[kind]), 2)
    first = ours.hidden(noise(1.3), 16000)
    ours.hidden(noise(2.1, seed=1), 16000)
    assert torch.equal(ours.hidden(noise(1.3), 16000), first)
    assert torch.equal(SpeechEncoder(str(folders[kind]), 2).hidden(noise(1.3), 16000), first)


def test_bert_hears_what_its_extractor_makes_of_the_clip(folders: dict[str, Path]) -> None:
    """Frames far from the margins are the extractor's own, moved by the margin of 120 samples."""
    ours = SpeechEncoder(str(folders["w2v-bert"]), 0)
    wave = noise(1.0)
    heard = ours.family.extract(np.pad(wave, 120), sampling_rate=16000, return_tensors="pt")["input_features"]
    assert heard.shape == (1, 50, 160)
    wanted = ours.family.model(heard, output_hidden_states=True).hidden_states[0][0]
    torch.testing.assert_close(ours.hidden(wave, 16000), wanted)


class Tiny(nn.Module):
    """What torchaudio's models have of an interface."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, WIDTH, 400, 320)
        self.blocks = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(BLOCKS))

    def extract_features(self, waves: Tensor, num_layers: int | None = None) -> tuple[list[Tensor], None]:
        x, out = self.conv(waves[:, None]).transpose(1, 2), []
        for block in self.blocks[:num_layers]:
            x = block(x).tanh()
            out.append(x)
        return out, None


@pytest.fixture
def torchaudio(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A stand-in; the real one is heard in tests/peer."""
    torch.manual_seed(0)
    model = Tiny()
    found = ModuleType("torchaudio.pipelines")
    found.HUBERT_BASE = SimpleNamespace(sample_rate=16000, get_model=lambda: model)  # type: ignore[attr-defined]
    found.SLOW = SimpleNamespace(sample_rate=8000, get_model=lambda: model)  # type: ignore[attr-defined]
    found.GONE = SimpleNamespace(sample_rate=16000, get_model=lambda: Path("/none").read_bytes())  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchaudio", ModuleType("torchaudio"))
    monkeypatch.setitem(sys.modules, "torchaudio.pipelines", found)
    return found


def test_torchaudios_pipeline(torchaudio: ModuleType) -> None:
    ours = SpeechEncoder("torchaudio:HUBERT_BASE", 2)
    assert (ours.family.depth, ours.dim) == (BLOCKS, WIDTH)
    wave = noise(1.0)
    wanted = torchaudio.HUBERT_BASE.get_model().extract_features(torch.from_numpy(np.pad(wave, 40))[None])[0][1][0]
    torch.testing.assert_close(ours.hidden(wave, 16000), wanted)
    assert wanted.shape == (50, WIDTH)
    with pytest.raises(ConfigError, match="no hidden state 0"):
        SpeechEncoder("torchaudio:HUBERT_BASE", 0).hidden(wave, 16000)
    for name, words in (("NONE", "no pipeline"), ("SLOW", "8000 Hz")):
        with pytest.raises(ConfigError, match=words):
            SpeechEncoder(f"torchaudio:{name}", 1)
    with pytest.raises(BundleError, match="cannot load"):
        SpeechEncoder("torchaudio:GONE", 1)


def test_without_torchaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio.pipelines", None)
    with pytest.raises(MissingExtraError, match=r"\[torchaudio\]"):
        SpeechEncoder("torchaudio:HUBERT_BASE", 1)

    def broken(name: str) -> None:
        raise OSError("libc10_cuda.so: cannot open shared object file")

    monkeypatch.setattr(families.importlib, "import_module", broken)
    with pytest.raises(MissingExtraError, match="does not load here: libc10_cuda"):
        SpeechEncoder("torchaudio:HUBERT_BASE", 1)


def test_other_hops_are_refused(tmp_path: Path) -> None:
    fast = {**CONVOLUTIONS, "conv_stride": (5, 2, 2, 2, 2, 2, 1)}
    hf.HubertModel(hf.HubertConfig(**SMALL, **fast)).save_pretrained(tmp_path)
    hf.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="every 160 samples"):
        SpeechEncoder(str(tmp_path), 1)
