"""What a verifier is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.proposal import Proposal, Verdict


class Verifier(Protocol):
    """Decides how much of a draft is kept.

    lossless: the output law is the target's, whatever the draft. forms: the kinds of draft (`Drafter.form`) that the
    rule is stated for: "chain", "iid" (a tree whose siblings are independent draws from one law), "wor" (siblings drawn
    without replacement), "points" (a tree of tokens chosen without chance).
    """

    name: str
    lossless: bool
    forms: frozenset[str]

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        """target_probs [B, N + 1, V]: the target's law after the prefix, then after each draft token (already
        filtered).

        For a tree the law after node n is at n + 1. Nodes of one place (same tokens all the way) have the same law.
        """
        ...
