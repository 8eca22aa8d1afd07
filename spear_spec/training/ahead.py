"""A draft that runs ahead of its target, from every position of whole utterances at once.

Only the attention over the past is its own here; the layers are those of `nn/transformer.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.models.drafts.decoder import DraftDecoder


def later(x: Tensor, by: int, value: float = 0) -> Tensor:
    """Move along time [B, T, ...]: position i gets what stood at i + by; `value` comes in."""
    return F.pad(x[:, by:], (0,) * (2 * (x.ndim - 2)) + (0, min(by, x.shape[1])), value=value)


def shift(x: Tensor, by: int = 1) -> Tensor:
    """Move along time [B, T, ...]: position i gets what stood at i - by; zeros come in."""
    by = min(by, x.shape[1])
    return F.pad(x, (0,) * (2 * (x.ndim - 2)) + (by, -by))


class RunAhead:
    """How self-attention looks in one layer, one call a step: an `Attend` over runs that began at every position.

    In step s (0 is the first) row i is the run that began at position i and now stands at i + s. It sees the first
    step's keys up to position i, those that the target's features gave, and the keys of its own steps 1 to s: they are
    at row i too. With `window` it sees of the first step's keys its own alone.
    """

    def __init__(self, window: bool) -> None:
        self.window = window
        self.history: tuple[Tensor, Tensor] | None = None
        self.own: list[tuple[Tensor, Tensor]] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q, k, v [B, H, T, D] of this step -> [B, H, T, D]."""
        if self.history is None and not self.window:
            self.history = (k, v)
        else:
            self.own.append((k, v))
        q = q * q.shape[-1] ** -0.5
        scores = []
        if self.history is not None:
            length = q.shape[2]
            future = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
            scores.append((q @ self.history[0].transpose(-1, -2)).masked_fill(future, -1e4))
        scores += [(q * key).sum(-1, keepdim=True) for key, _ in self.own]
        weights = torch.cat(scores, -1).softmax(-1).to(v.dtype)
        ours = weights[..., weights.shape[-1] - len(self.own) :]
        parts = [ours[..., step, None] * value for step, (_, value) in enumerate(self.own)]
        if self.history is not None:
            parts.insert(0, weights[..., : self.history[1].shape[2]] @ self.history[1])
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def run_ahead(
    draft: DraftDecoder, embedded: Tensor, feature: Tensor | None, memory: Tensor, cross_mask: Tensor, steps: int
) -> Iterator[Tensor]:
    """What leaves the draft's layers [B, T, D] in each step of the runs that begin at every position.

    Step s (0 is the first) of run i reads token i + s, zeros behind the last, and says what follows it. Its first step
    is fed with the target's `feature` [B, T, D] of position i (None: a draft that is fed with nothing), the later ones
    with its own last output.

    Args:
        embedded: the tokens' vectors [B, T, D]; memory: the encoder's output [B, S, D], cross_mask [B, 1, 1, S + 1].
    """
    length = embedded.shape[1]
    table = draft.rotary(length + steps)
    crosses = [layer.cross_attn.keys_values(memory) for layer in draft.layers]
    pasts = [RunAhead(draft.cfg.window) for _ in draft.layers]
    for step in range(steps):
        x = draft.enter_vectors(later(embedded, step), feature)
        for layer, cross, past in zip(draft.layers, crosses, pasts, strict=True):
            x = layer(x, table[step : step + length], None, cross, cross_mask, past=past)
        yield x
        feature = x
