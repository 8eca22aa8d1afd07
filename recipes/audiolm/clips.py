"""The clips of a corpus and their semantic tokens, as `prepare.py` lists them."""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor
from torch.utils.data import Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from spear_spec.audio import load_audio

KEPT_S = 3600.0  # of sound that is kept in memory
TOKENS, INDEX = "tokens.safetensors", "clips.tsv"


@dataclass
class Clips:
    """Samples at `rate` and semantic tokens, `span` samples each, of every clip of a prepared folder."""

    folder: Path
    rate: int
    span: int
    paths: dict[str, Path] = field(init=False)
    tokens: dict[str, Tensor] = field(init=False)
    _kept: dict[str, Tensor] = field(default_factory=dict, init=False)
    _seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        lines = (self.folder / INDEX).read_text(encoding="utf-8").splitlines()
        self.paths = {key: Path(path) for key, path in (line.split("\t") for line in lines)}
        with safe_open(self.folder / TOKENS, "pt") as file:
            self.tokens = {key: file.get_tensor(key).long() for key in self.paths}

    def samples(self, key: str) -> Tensor:
        """Whole tokens of a clip: [len(tokens) * span]; zeros where the file ends earlier."""
        if (known := self._kept.get(key)) is not None:
            return known
        samples = torch.from_numpy(np.array(load_audio(self.paths[key], self.rate).samples))
        wanted = len(self.tokens[key]) * self.span
        samples = torch.nn.functional.pad(samples, (0, max(0, wanted - len(samples))))[:wanted]
        if self._seconds < KEPT_S:
            self._kept[key] = samples
            self._seconds += len(samples) / self.rate
        return samples

    @property
    def seconds(self) -> float:
        """Of all clips."""
        return sum(map(len, self.tokens.values())) * self.span / self.rate


class Crops(Dataset[tuple[Tensor, ...]]):
    """Cuts of clips for a trainer that pads with silence and token 0: all cuts of a batch have one length.

    batch: how many follow each other with one length. lengths: the fewest and most tokens of a cut. with_tokens: give
    (tokens, samples), else samples. Half of the cuts begin where the clip does.
    """

    def __init__(
        self, clips: Clips, keys: Sequence[str], batch: int, lengths: tuple[int, int], with_tokens: bool
    ) -> None:
        self.clips, self.batch, self.with_tokens = clips, batch, with_tokens
        self.keys = [key for key in keys if len(clips.tokens[key]) >= lengths[1]]
        self.lengths, self.asked, self.length = lengths, 0, lengths[1]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, at: int) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
        if self.asked % self.batch == 0:
            self.length = random.randint(*self.lengths)
        self.asked += 1
        key = self.keys[at]
        samples, tokens, span = self.clips.samples(key), self.clips.tokens[key], self.clips.span
        first = random.choice((0, random.randint(0, len(tokens) - self.length)))
        cut = samples[first * span : (first + self.length) * span]
        return (tokens[first : first + self.length], cut) if self.with_tokens else cut
