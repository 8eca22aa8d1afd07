"""The target's own draw, guessed with the same numbers: whatever drafts, the tokens are the autoregressive loop's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.matching import MatchingVerifier
from spear_spec.decoding.verifiers.native import judged


class CoupledVerifier(MatchingVerifier):
    """Token n of a row is drawn from p with number n of the row's stream, as the autoregressive loop draws it; the
    draft's token n was drawn from q with that very number, and stays while both are the same.

    So the tokens do not depend on the drafter, gamma or batch: a seed is one take (drafter-invariant, Daliri et al.,
    arXiv 2408.07978, who couple by Gumbel noise; here one uniform and the inverse of the running sum). Two laws meet in
    the overlap of their steps on [0, 1), at most sum min(p, q), and in it but for what the order of the tokens costs.
    """

    name = "coupled"
    forms = frozenset({"chain"})
    shares = True

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        found = judged("coupled", proposal, target_probs, chance, rows)
        return super().verify(proposal, target_probs, chance, rows) if found is None else found


KIND = VerifierKind(
    CoupledVerifier, "chain drawn with the target's own numbers: one take a seed, whoever drafts", raced=()
)
