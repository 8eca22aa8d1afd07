"""Lenience (Leviathan et al., arXiv 2211.17192, appendix A.5; also in spear-tts-pytorch). LOSSY."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.gather import drafted_probs, ratio
from spear_spec.decoding.verifiers.options import checked
from spear_spec.decoding.verifiers.rejection import keep_while_accepted
from spear_spec.decoding.verifiers.tensors import Settled, drafted, from_the_front, ratios


class LenienceVerifier:
    """LOSSY for l < 1. x ~ q is accepted with probability min(1, p(x) / (l q(x))); the residual is rejection's.

    What it does to the law: no token comes more often than p(x)/l at a position; those that the draft wants more than
    the target does come too often, the others too seldom. l = 1 is rejection, exactly.
    """

    name = "lenience"
    lossless = False
    forms = frozenset({"chain"})

    def __init__(self, *, l: float = 0.8) -> None:  # noqa: E741  the paper's letter
        self.l = checked(self.name, "l", l, 0.0, 1.0, above_low=True)

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        p_at, q_at = drafted_probs(proposal, target_probs)
        chances = [[ratio(p, self.l * q) for p, q in zip(ps, qs)] for ps, qs in zip(p_at, q_at)]
        return keep_while_accepted(proposal, target_probs, chance, rows, chances)

    def settle(self, tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, uniforms: Tensor) -> Settled:
        valid, p_at, q_at = drafted(tokens, counts, q, p)
        return from_the_front(tokens, counts, q, p, uniforms, ratios(p_at, self.l * q_at.double()), valid)


KIND = VerifierKind(LenienceVerifier, "chain: accepts as if the draft's law were smaller")
