"""The probabilities of the draft tokens themselves, for all rows at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.proposal import Proposal


def drafted_probs(proposal: Proposal, target_probs: Tensor) -> tuple[list[list[float]], list[list[float]]]:
    """p(x) and q(x) of every draft token x, per row, where x stands; q(x) is 1 for point masses.

    target_probs [B, N + 1, V]. Lists are padded to the longest row; what stands behind a row's own tokens means
    nothing.
    """
    drafts = proposal.tokens
    longest = proposal.longest
    if longest == 0:
        return [[] for _ in drafts], [[] for _ in drafts]
    vocab = target_probs.shape[-1]
    device = target_probs.device
    if proposal.parents is None:
        at = [[i * vocab + token for i, token in enumerate(row)] for row in drafts]
    else:  # the law after node n is at n + 1
        at = [
            [(parent + 1) * vocab + token for parent, token in zip(parents, row)]
            for parents, row in zip(proposal.parents, drafts)
        ]
    p = target_probs.flatten(1).gather(1, torch.tensor(_padded(at, longest), device=device)).tolist()
    if proposal.probs is None:
        return p, [[1.0] * longest for _ in drafts]
    if proposal.parents is not None:
        at = [[i * vocab + token for i, token in enumerate(row)] for row in drafts]
    q = proposal.probs.flatten(1).gather(1, torch.tensor(_padded(at, longest), device=device)).tolist()
    return p, q


def draw_each(weights: list[Tensor], chance: Chance, rows: Sequence[int]) -> list[int]:
    """One token for each row from its weights [V]."""
    return chance.categorical(weights[0][None] if len(weights) == 1 else torch.stack(weights), rows)


def ratio(p: float, q: float) -> float:
    """min(1, p/q). A token of q = 0 cannot have been drawn: 1 if the target may draw it, else 0."""
    if q > 0:
        return min(1.0, p / q)
    return 1.0 if p > 0 else 0.0


def _padded(rows: list[list[int]], longest: int) -> list[list[int]]:
    return rows if len(rows) == 1 else [row + [0] * (longest - len(row)) for row in rows]
