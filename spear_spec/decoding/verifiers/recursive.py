"""Recursive rejection sampling (multi-step speculative sampling of SpecInfer, Miao et al., arXiv 2305.09781)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.gather import ratio
from spear_spec.decoding.verifiers.points import choose_point
from spear_spec.decoding.verifiers.walk import Siblings, descend


class RecursiveVerifier:
    """Siblings in turn against a running residual r, which starts as p: x ~ q is accepted with probability
    min(1, r(x)/q(x)); rejected, r becomes norm(max(0, r - q)). After the last, the recovered token is drawn from r."""

    name = "recursive"
    lossless = True
    forms = frozenset({"chain", "iid", "points"})

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        return descend(proposal, target_probs, chance, rows, choose_point if proposal.probs is None else _choose)


def _choose(offer: Siblings, accept: Callable[[float], bool]) -> int | Tensor:
    assert offer.q is not None
    r = offer.p
    for nth, (token, q_x) in enumerate(zip(offer.tokens, offer.q_at)):
        if accept(ratio(r[token].item() if nth else offer.p_at[0], q_x)):
            return token
        r = (r - offer.q).clamp_(min=0.0)
        mass = r.sum().item()
        if mass <= 0:  # rounding rejected a token of r = q
            return offer.p
        r.div_(mass)
    return r


KIND = VerifierKind(
    RecursiveVerifier,
    "trees: siblings independent or likeliest",
    siblings="iid",
    usual={"tree": "4-2-2-1-1-1"},
    raced=(),
)
