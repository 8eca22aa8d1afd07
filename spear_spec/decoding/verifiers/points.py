"""Siblings that were chosen without chance: recursive rejection with point masses for laws."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from spear_spec.decoding.verifiers.gather import ratio
from spear_spec.decoding.verifiers.walk import Siblings


def choose_point(offer: Siblings, accept: Callable[[float], bool]) -> int | Tensor:
    """Each token in turn is accepted with the probability that the running residual gives it; rejected, it loses all
    mass.

    The residual is p without the rejected tokens, so its mass is one number and the next token needs no tensor
    operation.
    """
    mass = 1.0
    rejected: list[int] = []
    for token, p_x in zip(offer.tokens, offer.p_at):
        if token in rejected:  # an equal sibling: nothing is left of it
            continue
        if accept(ratio(p_x, mass)):
            return token
        rejected.append(token)
        mass = max(0.0, mass - p_x)
    rest = offer.p.clone()
    rest[rejected] = 0.0
    return rest if rest.sum().item() > 0 else offer.p
