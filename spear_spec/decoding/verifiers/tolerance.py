"""Speculative sampling with a tolerance (SSD, arXiv 2505.15380). LOSSY."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.options import checked
from spear_spec.decoding.verifiers.rejection import _ratios, keep_while_accepted, quotients
from spear_spec.decoding.verifiers.tensors import Settled, drafted, from_the_front


class ToleranceVerifier:
    """LOSSY for b > 0. x ~ q is accepted with probability min(1, p(x)/q(x)) + b; the residual is rejection's.

    What it does to the law: tokens that the draft wants more than the target does come too often, by up to b q(x) at a
    position, even where p(x) = 0; all others too seldom. b = 0 is rejection, exactly; b = 1 is the draft's own law.
    """

    name = "tolerance"
    lossless = False
    forms = frozenset({"chain"})

    def __init__(self, *, b: float = 0.1) -> None:
        self.b = checked(self.name, "b", b, 0.0, 1.0)

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        chances = [[accept + self.b for accept in row] for row in _ratios(proposal, target_probs)]
        return keep_while_accepted(proposal, target_probs, chance, rows, chances)

    def settle(self, tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, uniforms: Tensor) -> Settled:
        valid, p_at, q_at = drafted(tokens, counts, q, p)
        return from_the_front(tokens, counts, q, p, uniforms, quotients(p_at, q_at).double() + self.b, valid)


KIND = VerifierKind(ToleranceVerifier, "chain: accepts a little more often than it may")
