"""A rule from outside that calls itself exact and is not: draft tokens stay where the target finds them likely."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from spear_spec.decoding import Chance, Proposal, Verdict, VerifierKind


class LikelyVerifier:
    name, lossless, forms = "likely", True, frozenset({"chain"})

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        kept: list[list[int]] = []
        for place, (row, draft) in enumerate(zip(rows, proposal.tokens)):
            good = 0
            while good < len(draft) and float(target_probs[place, good, draft[good]]) > 0.05:
                good += 1
            kept.append(draft[:good] + chance.categorical(target_probs[place, good][None], [row]))
        counts = [len(tokens) - 1 for tokens in kept]
        return Verdict(list(rows), kept, counts, [len(draft) for draft in proposal.tokens])


KIND = VerifierKind(LikelyVerifier, "chain: what the target finds likely (not exact, whatever it says)")
