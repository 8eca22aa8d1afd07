"""Small corpora in the shapes that the recipe reads, and a tiny random Whisper encoder. Nothing here is speech."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from tests.stubs.libritts import SENTENCES, make_libritts, tone

SIZES = {"layers": 2, "attention_heads": 2, "ffn_dim": 64}


def make_ljspeech(folder: Path) -> Path:
    """metadata.csv and wavs/, 22.05 kHz, one speaker."""
    (folder / "wavs").mkdir(parents=True)
    rows = []
    for i, text in enumerate(SENTENCES):
        soundfile.write(folder / "wavs" / f"LJ001-{i:04d}.wav", tone(text, 190, 22050), 22050)
        rows.append(f"LJ001-{i:04d}|raw text {i}|{text}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Whisper encoder of two narrow blocks."""
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("whisper")
    sizes = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in SIZES.items()}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    WhisperEncoder(WhisperConfig(d_model=32, vocab_size=64, **sizes, **ids)).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def ljspeech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ljspeech(tmp_path_factory.mktemp("corpora") / "LJSpeech-tiny")


@pytest.fixture(scope="session")
def libritts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder LibriTTS, with readers of their own in train-clean-100, dev-clean and test-clean."""
    return make_libritts(tmp_path_factory.mktemp("corpora") / "LibriTTS")


# who reads, and with which of the shipped voice's speakers, how fast
READERS = {"84": ("af_heart", 1.0), "1034": ("am_michael", 1.0), "103": ("af_heart", 1.25), "251": ("am_michael", 1.2),
           "61": ("am_michael", 0.85), "908": ("af_heart", 0.85)}  # fmt: skip
LONGER = (
    "The ferry leaves the harbour at half past seven, whatever the weather.",
    "Nobody could explain why the lights had stayed on all night.",
    "She folded the letter twice, put it back into the drawer, and said nothing.",
    "Three hundred and twelve people signed the petition.",
    "A narrow path leads from the village up to the old observatory.",
    "Please remember to water the plants while we are away.",
)


@pytest.fixture(scope="session")
def spoken_libritts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LibriTTS's shape, read aloud by the shipped voice: a minute and a half."""
    from spear_spec import TTS

    root, tts = make_libritts(tmp_path_factory.mktemp("spoken") / "LibriTTS"), TTS.load(threads=1)
    for number, file in enumerate(sorted(root.rglob("*.normalized.txt"))):
        stem = file.name.removesuffix(".normalized.txt")
        speaker, speed = READERS[stem.split("_")[0]]
        short = file.read_text(encoding="utf-8")
        text = short if "train" in str(file) and number % 2 else LONGER[number % len(LONGER)]
        for ending in ("normalized", "original"):
            file.with_name(f"{stem}.{ending}.txt").write_text(text, encoding="utf-8")
        for table in (file.parent / f"{'_'.join(stem.split('_')[:2])}.{kind}.tsv" for kind in ("trans", "book")):
            table.write_text(table.read_text().replace(f"{stem}\t{short.upper()}\t{short}", f"{stem}\t{text}\t{text}"))
        tts.synthesize(text, speaker=speaker, speed=speed, seed=number).save(file.with_name(f"{stem}.wav"))
    return root


@pytest.fixture(scope="session")
def few_steps(encoder: Path) -> dict[str, Any]:
    """A recipe of a few steps with models of a few thousand weights; out and prepare.corpora are left to the test."""
    drafts = {"steps": 2, "batch_tokens": 200, "warmup": 1, "ema": 0.5}
    small = {"dim": 16, "prosody_dim": 16, "token_right": [1, 1], "prosody_right": [1], "frame_right": [1]}
    gan = {"gan_start": 1, "gan_batch": 1, "gan_tokens": 8, "judges_a_step": 1}
    return {
        "progress": False,
        "prepare": {"held_out_every": 7},
        "tokenize": {"encoder": str(encoder), "layer": 1, "clusters": 16, "fit_hours": 0.005},
        "align": {"steps": 6, "dim": 16, "blocks": 1},
        "t2s": {
            "dim": 32,
            "heads": 2,
            "dim_head": 16,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "every": 2,
            "training": {"steps": 3, "batch_tokens": 200, "warmup": 1, "ema": 0.5},
        },
        "vocoder": {"shape": small, "training": {"steps": 2, "tail": 1, "warmup": 1, "batch": 2, "tokens": 8, **gan}},
        "sampling": {"candidates": [[0.7, 0.95], [1.0, 0.95]], "judges": [], "sentences": 2},
        "draft": {"layers": [1, 2], "samples": 6, "batch": 3, "every": 2, "training": drafts},
        "drafters": {
            "tree_nodes": 6,
            "skip_trials": 3,
            "every": 2,
            "training": drafts,
            "own": {"medusa": {"lr": 2e-3}},
        },
        "pack": {"name": "tiny", "licence": "CC0-1.0", "origin": "tests", "gamma": 3},
        "evaluate": {"judges": [], "sentences": 2, "max_tokens": 40, "verified": 100},
        "benchmark": {"runs": 1, "sentences": 2, "max_tokens": 20},
    }
