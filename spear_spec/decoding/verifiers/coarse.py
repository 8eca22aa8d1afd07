"""Coarse-grained acceptance by groups of similar tokens (PCG, arXiv 2511.13732). LOSSY."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.gather import ratio
from spear_spec.decoding.verifiers.options import checked
from spear_spec.decoding.verifiers.rejection import close_chains


class CoarseVerifier:
    """LOSSY. What is verified is the group of a token, not the token.

    Group g holds the tokens whose vectors have a cosine above theta with token g's; the end token, which has no
    vector, is a group of its own. A token x belongs to every group that holds it, with equal weights w(g given x), so
    a law p gives the groups P(g) = sum_x p(x) w(g given x). Draft x ~ q, draw g ~ w(. given x), accept x with
    probability min(1, P(g)/Q(g)); at a rejection draw g ~ norm(max(0, P - Q)), then x from p(x) w(g given x),
    normalised.

    What it does to the law: the drawn group's law is the target's, exactly; inside an accepted group the token is the
    draft's choice, so near-synonyms are exchanged. theta > 1 makes every token a group: rejection, exactly.
    """

    name = "coarse"
    lossless = False
    forms = frozenset({"chain"})

    def __init__(self, embedding: Tensor, *, theta: float = 0.9) -> None:
        """embedding [V - 1, D]: the vectors of the tokens, without the end token's."""
        self.theta = checked(self.name, "theta", theta, 0.0, float("inf"), above_low=True)
        vectors = torch.nn.functional.normalize(embedding.detach().double(), dim=-1)
        size = len(vectors) + 1
        holds = torch.eye(size, dtype=torch.bool, device=vectors.device)  # [G, V]; its own group holds a token anyway
        holds[:-1, :-1] |= vectors @ vectors.T > self.theta
        self._groups: list[list[int]] = [[] for _ in range(size)]  # by token: the groups that hold it
        for group, token in holds.nonzero().tolist():
            self._groups[token].append(group)
        self._weights = holds.double() / holds.sum(0)  # w(g given x) [G, V]; columns sum to 1

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        drafts = proposal.tokens
        kept = []
        weights = []
        for place, row in enumerate(rows):
            draft = drafts[place]
            accepted = 0
            while True:
                p = target_probs[place, accepted]
                if accepted == len(draft):
                    weights.append(p)
                    break
                q = None if proposal.probs is None else proposal.probs[place, accepted]
                taken, group = self.decide(p, q, draft[accepted], chance, row)
                if not taken:
                    weights.append(p if group is None else p * self._matrix(p)[group])
                    break
                accepted += 1
            kept.append(accepted)
        return close_chains(drafts, kept, weights, chance, rows)

    def decide(self, p: Tensor, q: Tensor | None, token: int, chance: Chance, row: int) -> tuple[bool, int | None]:
        """Whether the draft token is accepted, and the drawn group: its own, or the recovered one (None where rounding
        left none). p, q [V]; q None is a point mass."""
        groups = self._groups[token]
        group = groups[0]
        if len(groups) > 1:
            group = groups[chance.categorical(p.new_ones(1, len(groups)), [row])[0]]
        matrix = self._matrix(p)
        line = matrix[group]
        mine = line.dot(p).item()
        drafts = line[token].item() if q is None else line.dot(q).item()
        if chance.bernoulli(ratio(mine, drafts), row):
            return True, group
        if q is None:
            q = torch.zeros_like(p)
            q[token] = 1.0
        rest = (matrix @ (p - q)).clamp_(min=0.0)  # max(0, P - Q)
        if rest.sum().item() <= 0:
            return False, None
        return False, chance.categorical(rest[None], [row])[0]

    def group_law(self, p: Tensor) -> Tensor:
        """P(g) [G] of a law p [V]."""
        return self._matrix(p) @ p

    def _matrix(self, like: Tensor) -> Tensor:
        """w(g given x) [G, V], in the dtype and on the device of the laws; kept."""
        if self._weights.dtype != like.dtype or self._weights.device != like.device:
            self._weights = self._weights.to(like)
        return self._weights


KIND = VerifierKind(CoarseVerifier, "chain: groups of like tokens instead of tokens", needs="embedding")
