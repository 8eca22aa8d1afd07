"""What the target left of whole utterances: what every draft learns from.

Computed once, shared by all that are trained.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.data.utterances import Utterance, group_by_length, round_up


@dataclass
class Seen:
    """What the target left of one utterance, in half precision.

    tokens [T] (start first), features [T, F x D] of `layers`, hidden [T, D] after the last norm, memory [S, D]; all on
    the CPU, whatever the target ran on.
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

    def to(self, device: torch.device) -> DraftBatch:
        """The same batch on a device."""
        tensors: list[Tensor] = [self.tokens, self.features, self.hidden, self.memory, self.memory_mask, self.valid]
        tokens, features, hidden, memory, memory_mask, valid = (tensor.to(device) for tensor in tensors)
        return DraftBatch(tokens, features, hidden, memory, memory_mask, valid, self.layers)

    def layer(self, number: int) -> Tensor:
        """The output [B, T, D] of this layer of the target (1 is the first)."""
        dim, at = self.hidden.shape[-1], self.layers.index(number)
        return self.features[..., at * dim : (at + 1) * dim]


@torch.no_grad()
def observe(
    model: TextToSemantic, utterances: Sequence[Utterance], layers: tuple[int, ...], *, progress: bool = True
) -> list[Seen]:
    """Run the target over whole utterances, one at a time (no padding), and keep what drafts learn from."""
    from tqdm import tqdm

    out = []
    for u in tqdm(utterances, desc="features", mininterval=5, disable=not progress):
        memory = model.encode(torch.tensor([u.text], device=model.device))
        tokens = torch.cat((torch.tensor([model.start_id]), torch.from_numpy(u.tokens)))
        seen = model(tokens[None].to(model.device), memory, features=layers)
        features = torch.cat([*seen.features, seen.hidden[..., :0]], -1)
        inner, last, text = (x[0].half().cpu() for x in (features, seen.hidden, memory.hidden))
        out.append(Seen(tokens, inner, last, text, layers))
    return out


def pad(items: Sequence[Tensor], length: int) -> Tensor:
    """Rows [n, ...] of different lengths as one tensor [B, length, ...], zeros behind them."""
    out = items[0].new_zeros((len(items), length, *items[0].shape[1:]))
    for row, item in enumerate(items):
        out[row, : len(item)] = item
    return out


def collate(items: Sequence[Seen]) -> DraftBatch:
    """These utterances as one batch, on the CPU."""
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


def groups(data: Sequence[Seen], batch_tokens: int, rng: random.Random) -> list[list[Seen]]:
    """One epoch: groups of similar lengths."""
    pool = sorted(data, key=lambda s: len(s.tokens) + rng.uniform(0, 24))
    out = group_by_length(pool, lambda s: len(s.tokens), batch_tokens)
    rng.shuffle(out)
    return out
