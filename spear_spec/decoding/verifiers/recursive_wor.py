"""Recursive rejection of siblings drawn without replacement (Yang et al., arXiv 2401.06706; Jeon et al.,
2402.14160)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.gather import ratio
from spear_spec.decoding.verifiers.points import choose_point
from spear_spec.decoding.verifiers.walk import Siblings, descend


class RecursiveWorVerifier:
    """As `recursive`, but each sibling has a law of its own: q without the siblings before it, renormalised.

    x_i ~ q_i is accepted with probability min(1, r(x_i)/q_i(x_i)); rejected, r becomes norm(max(0, r - q_i)).
    """

    name = "recursive_wor"
    lossless = True
    forms = frozenset({"chain", "wor", "points"})

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        return descend(proposal, target_probs, chance, rows, choose_point if proposal.probs is None else _choose)


def _choose(offer: Siblings, accept: Callable[[float], bool]) -> int | Tensor:
    assert offer.q is not None
    r, q = offer.p, offer.q
    r_x, q_x = offer.p_at[0], offer.q_at[0]
    last = len(offer.tokens) - 1
    for nth, token in enumerate(offer.tokens):
        if nth:
            r_x, q_x = r[token].item(), q[token].item()
        if accept(ratio(r_x, q_x)):
            return token
        r = (r - q).clamp_(min=0.0)
        mass = r.sum().item()
        if mass <= 0:  # rounding rejected a token of r = q
            return offer.p
        r.div_(mass)
        if nth < last:
            q = q.clone()
            q[token] = 0.0
            q.div_(q.sum())
    return r


KIND = VerifierKind(
    RecursiveWorVerifier,
    "trees: siblings drawn without replacement",
    siblings="wor",
    usual={"tree": "4-2-2-1-1-1"},
    raced=(),
)
