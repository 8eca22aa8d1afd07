"""Speech to semantic tokens at 25 Hz."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from spear_spec.audio import write_atomically
from spear_spec.errors import BundleError, ConfigError
from spear_spec.semantic.encoder import HOP, SAMPLE_RATE, SpeechEncoder
from spear_spec.semantic.kmeans import fit_kmeans, nearest

POOL = 2  # frames of the encoder that make a token
TOKEN_RATE = SAMPLE_RATE / HOP / POOL  # tokens a second


def pool(states: Tensor) -> Tensor:
    """Hidden states [2 T, D] at 50 Hz to their pair means [T, D] at 25 Hz."""
    return states[: len(states) // POOL * POOL].unflatten(0, (-1, POOL)).mean(1)


class SemanticTokenizer:
    """Encoder features, averaged to 25 Hz, to the index of the nearest centroid.

    Args:
        encoder: a `SpeechEncoder`, or the hub name or folder of one.
        layer: the hidden state (ignored when `encoder` is already built).
        centroids: float [K, D], D the encoder's width.

    Raises:
        ConfigError: the centroids are not of the encoder's width.
        MissingExtraError, BundleError: see `SpeechEncoder`.
    """

    def __init__(
        self, encoder: SpeechEncoder | str, layer: int, centroids: Tensor, device: str | torch.device = "cpu"
    ) -> None:
        self.encoder = encoder if isinstance(encoder, SpeechEncoder) else SpeechEncoder(encoder, layer, device)
        if centroids.ndim != 2 or centroids.shape[1] != self.encoder.dim:
            raise ConfigError(
                f"centroids of shape {tuple(centroids.shape)} do not fit an encoder of width {self.encoder.dim}"
            )
        self.centroids = centroids.float().to(self.encoder.device)

    @property
    def vocab_size(self) -> int:
        """Number of semantic tokens."""
        return self.centroids.shape[0]

    def features(self, samples: npt.ArrayLike, sample_rate: int) -> Tensor:
        """What is quantised: float32 [T, D] at 25 Hz."""
        return pool(self.encoder.hidden(samples, sample_rate))

    def encode(self, samples: npt.ArrayLike, sample_rate: int) -> Tensor:
        """Semantic tokens of a mono clip at any rate: int64 [T], T = seconds * 25 rounded down.

        Raises:
            AudioError: not mono, not finite, or shorter than 40 ms.
        """
        return nearest(self.features(samples, sample_rate), self.centroids).cpu()

    @classmethod
    def fit(cls, encoder: SpeechEncoder, features: Tensor, clusters: int, *, seed: int = 0) -> SemanticTokenizer:
        """A tokenizer with centroids fitted to features [N, D] (see `fit_kmeans`)."""
        return cls(encoder, encoder.layer, fit_kmeans(features, clusters, seed=seed))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Centroids, encoder name and layer to one safetensors file."""
        save_centroids(path, self.centroids, {"encoder": self.encoder.name, "layer": json.dumps(self.encoder.layer)})

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        encoder: str | None = None,
        layer: int | None = None,
        device: str | torch.device = "cpu",
    ) -> SemanticTokenizer:
        """Read what `save` wrote; `encoder` and `layer` replace the names in the file (or stand in for missing ones).

        Raises:
            BundleError: the file is missing, damaged or holds no centroids.
            ConfigError: neither the file nor the call names the encoder and the layer.
        """
        centroids, metadata = read_centroids(path)
        encoder = encoder or metadata.get("encoder")
        layer = layer if layer is not None else int(metadata["layer"]) if "layer" in metadata else None
        if encoder is None or layer is None:
            raise ConfigError(f"{path} does not say which encoder and layer its centroids belong to; name them")
        return cls(encoder, layer, centroids, device)


def save_centroids(path: str | os.PathLike[str], centroids: Tensor, about: Mapping[str, str]) -> None:
    """Write centroids [K, D] and metadata, whole or not at all, and the same bytes each time: safetensors itself puts
    the metadata into a random order.
    """
    data = save({"centroids": centroids.cpu().contiguous()}, metadata=dict(about))
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_atomically(Path(path), len(text).to_bytes(8, "little") + text + data[8 + size :])


def read_centroids(path: str | os.PathLike[str]) -> tuple[Tensor, dict[str, str]]:
    """Centroids [K, D] and the metadata of a safetensors file.

    Raises:
        BundleError: the file is missing, damaged or holds no centroids.
    """
    try:
        with safe_open(Path(path), "pt") as file:
            return file.get_tensor("centroids").float(), file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise BundleError(f"cannot read centroids from {path}: {error}") from None


def agreement(tokens: Tensor, reference: Tensor) -> tuple[int, int]:
    """How many of two token rows are equal, and of how many: rows of one clip may differ by a token in length, and
    what one row has too many counts as different."""
    shared = min(len(tokens), len(reference))
    equal = int((tokens[:shared].long() == reference[:shared].long()).sum())
    return equal, max(len(tokens), len(reference))
