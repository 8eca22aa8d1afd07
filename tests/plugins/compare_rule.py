"""A rule from outside: the target draws, and the draft is kept as long as it said the same."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from spear_spec.decoding import Chance, Proposal, Verdict, VerifierKind


class CompareVerifier:
    name, lossless, forms = "compare", True, frozenset({"chain"})

    def __init__(self, *, at_most: int = 64) -> None:
        """at_most: draft tokens that are looked at."""
        self.at_most = at_most

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        kept: list[list[int]] = []
        for place, (row, draft) in enumerate(zip(rows, proposal.tokens)):
            tokens = chance.categorical(target_probs[place, :1], [row])
            while tokens[-1:] == draft[len(tokens) - 1 : len(tokens)] and len(tokens) <= self.at_most:
                tokens += chance.categorical(target_probs[place, len(tokens)][None], [row])
            kept.append(tokens)
        counts = [len(tokens) - 1 for tokens in kept]
        return Verdict(list(rows), kept, counts, [len(draft) for draft in proposal.tokens])


KIND = VerifierKind(CompareVerifier, "chain: the target's own draw, compared with the draft")
