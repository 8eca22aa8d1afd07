"""The golden files of audiolm-pytorch (see tests/golden/make_audiolm.py)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from spear_spec.interop.audiolm import load_audiolm_coarse, load_audiolm_fine
from spear_spec.interop.soundstream import load_soundstream
from spear_spec.models.audiolm.coarse import CoarseTransformer
from spear_spec.models.audiolm.fine import FineTransformer
from spear_spec.models.soundstream import SoundStream

GOLDEN = Path(__file__).parent
COARSE = ("coarse", "coarse_bare")
FINE = ("fine", "fine_bare")
CODECS = ("soundstream", "soundstream_grouped")


@dataclass
class Case:
    """What the real package was given and what it computed."""

    weights: dict[str, Tensor]
    options: dict[str, Any]
    found: dict[str, Tensor]

    @classmethod
    def read(cls, name: str) -> Case:
        with safe_open(GOLDEN / f"audiolm_{name}.safetensors", "pt") as file:
            options = json.loads(file.metadata()["options"])
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        weights = {key[8:]: found.pop(key) for key in list(found) if key.startswith("weights/")}
        return cls(weights, options, found)

    def coarse(self, dtype: torch.dtype | None = None) -> CoarseTransformer:
        return load_audiolm_coarse(self.weights, **self.options, dtype=dtype)

    def fine(self, dtype: torch.dtype | None = None) -> FineTransformer:
        return load_audiolm_fine(self.weights, **self.options, dtype=dtype)

    def soundstream(self) -> SoundStream:
        told = {name: tuple(value) if isinstance(value, list) else value for name, value in self.options.items()}
        return load_soundstream(self.weights, **told)

    @property
    def prefixes(self) -> list[list[int]]:
        """What each row reads, as the package counts it."""
        lengths = self.found["lengths"].tolist()
        return [row[:length] for row, length in zip(self.found["prefix"].tolist(), lengths)]


def tokens_of(codes: Tensor, codebook: int, quantizers: int) -> Tensor:
    """Codes [B, T] of the package, interleaved from quantizer 0 on, as our tokens."""
    return codes + torch.arange(codes.shape[1]) % quantizers * codebook


def places(logits: Tensor, codebook: int, quantizers: int) -> Tensor:
    """Our logits [B, T, V] as the package lays them out: the codes of each place's quantizer, then the end."""
    first = torch.arange(logits.shape[1]) % quantizers * codebook
    index = first[:, None] + torch.arange(codebook)
    own = logits.gather(2, index.expand(len(logits), -1, -1))
    return torch.cat((own, logits[..., -1:]), -1)
