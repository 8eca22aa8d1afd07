"""What the target left of whole utterances: what every draft learns from.

Computed once, shared by all that are trained.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.t2s.trainer import Utterance, group_by_length, round_up


@dataclass
class Seen:
    """What the target left of one utterance, in half precision.

    tokens [T] (start first), features [T, F x D] of `layers`, hidden [T, D] after the last norm, memory [S, D].
    """

    tokens: Tensor
    features: Tensor
    hidden: Tensor
    memory: Tensor
    layers: tuple[int, ...] = ()


@dataclass
class DraftBatch:
    """The same of several utterances, padded, in float32."""

    tokens: Tensor  # [B, T]
    features: Tensor  # [B, T, F x D]
    hidden: Tensor  # [B, T, D]
    memory: Tensor  # [B, S, D]
    memory_mask: Tensor  # [B, S]
    valid: Tensor  # [B, T]
    layers: tuple[int, ...] = ()

    def layer(self, number: int) -> Tensor:
        """The output [B, T, D] of this layer of the target (1 is the first)."""
        dim, at = self.hidden.shape[-1], self.layers.index(number)
        return self.features[..., at * dim : (at + 1) * dim]


@torch.no_grad()
def observe(model: TextToSemantic, utterances: list[Utterance], layers: tuple[int, ...]) -> list[Seen]:
    """Run the target over whole utterances, one at a time (no padding), and keep what drafts learn from."""
    from tqdm import tqdm

    out = []
    for u in tqdm(utterances, desc="features", mininterval=5):
        memory = model.encode(torch.tensor([u.text]))
        tokens = torch.cat((torch.tensor([model.start_id]), torch.from_numpy(u.tokens)))
        seen = model(tokens[None], memory, features=layers)
        out.append(
            Seen(
                tokens,
                torch.cat([*seen.features, seen.hidden[..., :0]], -1)[0].half(),
                seen.hidden[0].half(),
                memory.hidden[0].half(),
                layers,
            )
        )
    return out


def pad(items: list[Tensor], length: int) -> Tensor:
    out = items[0].new_zeros((len(items), length, *items[0].shape[1:]))
    for row, item in enumerate(items):
        out[row, : len(item)] = item
    return out


def collate(items: list[Seen]) -> DraftBatch:
    t = round_up(max(len(s.tokens) for s in items))
    size = round_up(max(len(s.memory) for s in items))
    ones = [torch.ones(len(s.tokens), dtype=torch.bool) for s in items]
    memory_ones = [torch.ones(len(s.memory), dtype=torch.bool) for s in items]
    return DraftBatch(
        pad([s.tokens for s in items], t),
        pad([s.features for s in items], t).float(),
        pad([s.hidden for s in items], t).float(),
        pad([s.memory for s in items], size).float(),
        pad(memory_ones, size),
        pad(ones, t),
        items[0].layers,
    )


def batches(data: list[Seen], batch_tokens: int, rng: random.Random) -> Iterator[DraftBatch]:
    """Endless batches of similar lengths."""
    while True:
        pool = sorted(data, key=lambda s: len(s.tokens) + rng.uniform(0, 24))
        groups = group_by_length(pool, lambda s: len(s.tokens), batch_tokens)
        rng.shuffle(groups)
        for group in groups:
            yield collate(group)


def shift(x: Tensor, by: int = 1) -> Tensor:
    """Move along time [B, T, ...]: position i gets what stood at i - by; zeros come in."""
    return F.pad(x, (0,) * (2 * (x.ndim - 2)) + (by, -by))
