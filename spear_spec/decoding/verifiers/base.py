"""What a verifier is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.proposal import Proposal, Verdict


class Verifier(Protocol):
    """Decides how much of a draft is kept. `lossless`: the output law is the target's, whatever the draft."""

    name: str
    lossless: bool

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        """target_probs [B, N + 1, V]: the target's law after the prefix, then after each draft token (already filtered)."""
        ...
