"""What a verifier is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.tensors import Settled


class Verifier(Protocol):
    """Decides how much of a draft is kept.

    lossless: the output law is the target's, whatever the draft. forms: the kinds of draft (`Drafter.form`) that the
    rule is stated for: "chain", "iid" (a tree whose siblings are independent draws from one law), "wor" (siblings drawn
    without replacement), "points" (a tree of tokens chosen without chance).

    A rule of chains may have `shares`, true where it draws token after token from the target's law: drafts are then
    drawn with the very numbers that it will use (`chance.Shared`).
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


class SettlingVerifier(Verifier, Protocol):
    """A rule for chains that has a form on tensors alone as well, for runtimes in which the host decides nothing."""

    def settle(self, tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, uniforms: Tensor) -> Settled:
        """The verdict on chains, from uniforms that were drawn before.

        Shapes are fixed, nothing is read back to the host and no shape depends on a value: a CUDA graph can capture it.
        Given a row's next uniforms, it is what `verify` settles with a `Chance` that hands out the same ones in turn
        (`bernoulli(p)` is u < p, `categorical` the first token whose running float64 sum exceeds u times the whole),
        token for token.

        Args:
            tokens: [B, G] int64, the draft; what stands behind a row's own tokens is ignored. counts: [B] int64.
            q: [B, G, V], the laws that the tokens were drawn from; None: point masses.
            p: [B, G + 1, V], the target's laws (see `verify`). Padding may hold anything, NaN included.
            uniforms: [B, at least `tensors.uniforms_for(G)`] float64 in [0, 1): the next draws of each row, in order.
        """
        ...
