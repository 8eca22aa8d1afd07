"""The golden files of WhisperSpeech (see tests/golden/make_whisperspeech.py), as checkpoints and as requests."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from spear_spec.interop.whisperspeech import load_whisperspeech
from spear_spec.models.whisperspeech import WhisperSpeechT2S
from spear_spec.text.bytes import ByteFrontEnd

GOLDEN = Path(__file__).parent
CASES = ("micro", "projected")


@dataclass
class Case:
    """What the real package was given and what it computed."""

    checkpoint: dict[str, Any]
    requests: list[tuple[str, str, float]]
    found: dict[str, Tensor]

    @classmethod
    def read(cls, name: str) -> Case:
        with safe_open(GOLDEN / f"whisperspeech_{name}.safetensors", "pt") as file:
            meta = file.metadata()
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        weights = {key[8:]: found.pop(key) for key in list(found) if key.startswith("weights/")}
        parts = {part: json.loads(meta[part]) for part in ("config", "tunables")}
        requests = [(text, language, rate) for text, language, rate in json.loads(meta["requests"])]
        return cls({**parts, "state_dict": weights}, requests, found)

    def model(self, dtype: torch.dtype | None = None) -> WhisperSpeechT2S:
        return load_whisperspeech(self.checkpoint, dtype=dtype)


def front_end(model: WhisperSpeechT2S) -> ByteFrontEnd:
    """The front end of this model's sizes."""
    cfg = model.cfg
    return ByteFrontEnd(text_length=cfg.text_length, languages=cfg.languages, rate_bins=cfg.rate_bins)


def ragged(rows: list[list[int]]) -> Tensor:
    """Text ids padded with 0."""
    width = max(len(row) for row in rows)
    return torch.tensor([row + [0] * (width - len(row)) for row in rows])


def text_ids(model: WhisperSpeechT2S, requests: list[tuple[str, str, float]]) -> Tensor:
    """Ids of the requests, made by our front end."""
    front = front_end(model)
    codes = {"polish": "pl"}
    return ragged([front.encode(text, codes.get(language, language), rate) for text, language, rate in requests])
