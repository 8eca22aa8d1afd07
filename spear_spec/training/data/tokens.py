"""The shards of tokenization: features to fit the quantiser on, and the tokens of clips."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from spear_spec.audio import load_audio
from spear_spec.errors import AudioError
from spear_spec.semantic import SemanticTokenizer, SpeechEncoder, SupervisedEncoder, SupervisedTokenizer
from spear_spec.semantic.tokenizer import read_centroids
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.spread import Do, Hands, forget, spread

Tokenizer = SemanticTokenizer | SupervisedTokenizer


@dataclass(frozen=True)
class Listener:
    """What hears the clips: the encoder and its hidden state, or with `supervised` the weights of the small encoder
    behind it, which reads the states `layers`."""

    encoder: str
    layer: int
    layers: tuple[int, ...]
    supervised: str | Path | None
    device: str

    def tokenizer(self, centroids: Tensor | None) -> Tokenizer:
        """The tokenizer with these centroids [K, D]; without any it has features alone.

        Raises:
            SpearSpecError: an encoder cannot be loaded, or a part does not fit another.
        """
        if self.supervised is None:
            speech = SpeechEncoder(self.encoder, self.layer, self.device)
            return SemanticTokenizer(speech, self.layer, torch.zeros(1, speech.dim) if centroids is None else centroids)
        speech = SpeechEncoder(self.encoder, self.layers, self.device)
        small = SupervisedEncoder.load(self.supervised)
        return SupervisedTokenizer(speech, small, torch.zeros(1, small.cfg.dim) if centroids is None else centroids)


@dataclass(frozen=True)
class Features:
    """A `spread.Task`: what the quantiser divides, float32 [N, D] of all clips, under the name "features"."""

    listener: Listener

    def open(self) -> Do:
        probe = self.listener.tokenizer(None)

        def do(clips: list[Clip]) -> bytes:
            rows = [torch.empty(0, probe.centroids.shape[1])]
            for clip in clips:
                try:
                    audio = load_audio(clip.audio)
                    rows.append(probe.features(audio.samples, audio.sample_rate).cpu())
                except AudioError:  # told by the shard of its tokens
                    continue
            return save({"features": torch.cat(rows)})

        return do


@dataclass(frozen=True)
class Tokens:
    """A `spread.Task`: semantic tokens, int16 by id; in the metadata, as "failed", the clips that have none and why.

    centroids: their file.
    """

    listener: Listener
    centroids: str

    def open(self) -> Do:
        tokenizer = self.listener.tokenizer(read_centroids(self.centroids)[0])

        def do(clips: list[Clip]) -> bytes:
            rows, failed = {}, {}
            for clip in clips:
                try:
                    audio = load_audio(clip.audio)
                    rows[clip.id] = tokenizer.encode(audio.samples, audio.sample_rate).to(torch.int16)
                except AudioError as error:
                    failed[clip.id] = str(error)
            return save(rows, metadata={"failed": json.dumps(failed)})

        return do


def find_features(
    listener: Listener, clips: Sequence[Clip], hours: float, seed: int, folder: Path, hands: Hands
) -> Tensor:
    """Features [N, D] of randomly chosen clips, about `hours` of speech in all."""
    chosen, seconds = [], 0.0
    for clip in random.Random(seed).sample(list(clips), len(clips)):
        if seconds >= hours * 3600:
            break
        chosen.append(clip)
        seconds += clip.seconds
    paths = spread(Features(listener), chosen, folder, hands, name="features", shard=20)
    return torch.cat([load_file(path)["features"] for path in paths])


def find_tokens(
    listener: Listener, centroids: Path, clips: Sequence[Clip], folder: Path, hands: Hands
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tokens of the clips by id, and of those that have none the reason.

    folder: where the shards are until all are done; a run that was killed goes on with them.
    """
    rows: dict[str, Tensor] = {}
    failed: dict[str, str] = {}
    for path in spread(Tokens(listener, str(centroids)), clips, folder, hands, name=f"tokens {folder.name}"):
        rows |= load_file(path)
        with safe_open(path, "pt") as file:
            failed |= json.loads((file.metadata() or {})["failed"])
    forget(folder)
    return rows, failed
