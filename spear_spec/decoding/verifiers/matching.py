"""Sample and compare: the target's own draw, looked up in the draft."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Branches, Proposal, Verdict
from spear_spec.decoding.verifiers.gather import draw_each
from spear_spec.decoding.verifiers.tensors import Settled, at, categorical, close, drafted, leading
from spear_spec.decoding.verifiers.walk import verdict


class MatchingVerifier:
    """Draw y ~ p at the place; follow the child that equals y; where there is none, y is the new token.

    The tokens are the target's own draws, so the law is exact for any tree, however it was made. Accepts no more than
    rejection does: sum p q against sum min(p, q).
    """

    name = "matching"
    lossless = True
    forms = frozenset({"chain", "iid", "wor", "points"})

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        branches = [proposal.branches(place) for place in range(len(rows))]
        here: list[Sequence[int]] = [Branches.ROOT] * len(rows)
        tokens: list[list[int]] = [[] for _ in rows]
        walking = list(range(len(rows)))
        while walking:
            laws = [target_probs[place, here[place][0] + 1] for place in walking]
            drawn = draw_each(laws, chance, [rows[place] for place in walking])
            still = []
            for place, token in zip(walking, drawn):
                tokens[place].append(token)
                matches = branches[place].same(branches[place].after(here[place]), token)
                if matches:
                    here[place] = matches
                    still.append(place)
            walking = still
        return verdict(proposal, rows, tokens, [nodes[0] for nodes in here])

    def settle(self, tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, uniforms: Tensor) -> Settled:
        valid, _, _ = drafted(tokens, counts, None, p)
        width = tokens.shape[1]
        drawn = categorical(p, uniforms[:, : width + 1])  # what the target would draw at every position
        accepted = leading((drawn[:, :width] == tokens) & valid)
        return close(tokens, accepted, at(drawn, accepted), accepted + 1)


KIND = VerifierKind(MatchingVerifier, "any tree", usual={"tree": "dynamic"}, raced=())
