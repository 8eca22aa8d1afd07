"""What the forms of chain rules on tensors alone share: fixed shapes, no decision on the host, nothing read back.

Only operations that a CUDA graph can capture. Arithmetic is that of the list forms, number for number, so that the same
uniforms settle the same tokens; `tests/decoding/test_verifiers_settle.py` holds both.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Settled(NamedTuple):
    """tokens [B, G + 1] int64: accepted draft tokens, then one more, then -1. accepted [B] int64: draft tokens among
    them. used [B] int64: how many of the row's uniforms were consumed, from its first on.
    """

    tokens: Tensor
    accepted: Tensor
    used: Tensor


def uniforms_for(gamma: int) -> int:
    """Uniforms that `settle` must be given for each row of at most gamma draft tokens; no rule consumes more."""
    return 2 * (gamma + 1)


def drafted(tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(valid, p_at, q_at), each [B, G]: which tokens were drafted, and their p(x) and q(x), in the laws' own dtype.

    A point mass has q(x) = 1. What stands behind a row's tokens is 1 in both, whatever the padding holds.
    """
    width = tokens.shape[1]
    valid = torch.arange(width, device=tokens.device) < counts[:, None]
    index = tokens.clamp(min=0)[..., None]
    p_at = p[:, :width].gather(-1, index)[..., 0].masked_fill(~valid, 1.0)
    q_at = torch.ones_like(p_at) if q is None else q.gather(-1, index)[..., 0].masked_fill(~valid, 1.0)
    return valid, p_at, q_at


def ratios(p: Tensor, q: Tensor) -> Tensor:
    """min(1, p/q) in float64; where q = 0, 1 if p > 0 else 0: `gather.ratio`."""
    p, q = p.double(), q.double()
    return torch.where(q > 0, (p / q).clamp(max=1.0), (p > 0).double())


def leading(success: Tensor) -> Tensor:
    """How many of [B, G] are true before the first that is not, [B] int64."""
    return success.long().cumprod(1).sum(1)


def at(values: Tensor, index: Tensor) -> Tensor:
    """values [B, N, ...] at index [B]: [B, ...]."""
    shape = (-1, 1, *values.shape[2:])
    places = index.view(-1, *[1] * (values.ndim - 1)).expand(shape) if values.ndim > 2 else index[:, None]
    return values.gather(1, places)[:, 0]


def categorical(weights: Tensor, u: Tensor) -> Tensor:
    """The first token whose running sum, in float64, exceeds u times the whole: `Chance.categorical`.

    weights [..., V], u [...] float64; [...] int64. A token of weight 0 is never drawn.
    """
    table = weights.cumsum(-1, dtype=torch.float64)
    return torch.searchsorted(table, u[..., None] * table[..., -1:], right=True)[..., 0].clamp(max=table.shape[-1] - 1)


def residual(p: Tensor, q: Tensor | None, tokens: Tensor) -> Tensor:
    """Weights max(0, p - q) [B, V] of recovered tokens; q None: point masses on tokens [B]. `rejection.residual`."""
    rest = p.scatter(-1, tokens[:, None], 0.0) if q is None else (p - q).clamp(min=0.0)
    return torch.where(rest.sum(-1, keepdim=True) > 0, rest, p)


def recovered(
    tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, accepted: Tensor, scale: Tensor | None = None
) -> Tensor:
    """Weights [B, V] of the token behind the accepted ones: the residual, or p behind a whole draft.

    scale [B]: of p in the residual.
    """
    law, width = at(p, accepted), tokens.shape[1]
    if width == 0:
        return law
    place = accepted.clamp(max=width - 1)
    scaled = law if scale is None else law * scale[:, None]
    rest = residual(scaled, None if q is None else at(q, place), at(tokens, place).clamp(min=0))
    return torch.where((accepted < counts)[:, None], rest, law)


def close(tokens: Tensor, accepted: Tensor, last: Tensor, used: Tensor) -> Settled:
    """The first accepted[b] draft tokens of each row, then last[b]."""
    batch, width = tokens.shape
    place = torch.arange(width + 1, device=tokens.device)
    kept = torch.cat([tokens, last[:, None]], 1).masked_fill(place >= accepted[:, None], -1)
    return Settled(torch.where(place == accepted[:, None], last[:, None], kept), accepted, used)


def from_the_front(
    tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, uniforms: Tensor, chances: Tensor, valid: Tensor
) -> Settled:
    """Token i is accepted with probability chances[b, i] [B, G] float64, until the first that is not; then the residual
    or a bonus token: `rejection.keep_while_accepted`. valid [B, G]: see `drafted`.
    """
    accepted = leading((uniforms[:, : tokens.shape[1]] < chances) & valid)
    trials = torch.minimum(accepted + 1, counts)
    last = categorical(recovered(tokens, counts, q, p, accepted), at(uniforms, trials))
    return close(tokens, accepted, last, trials + 1)
