"""Standard speculative sampling (Leviathan et al., arXiv 2211.17192; Chen et al., 2302.01318)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.gather import draw_each
from spear_spec.decoding.verifiers.native import judged
from spear_spec.decoding.verifiers.tensors import Settled, drafted, from_the_front


class RejectionVerifier:
    """Accept x ~ q with probability min(1, p(x)/q(x)); at the first rejection draw from norm(max(0, p - q)); a bonus
    token from p when all are accepted. Laws arrive filtered and are not filtered again."""

    name = "rejection"
    lossless = True
    forms = frozenset({"chain"})

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        found = judged("rejection", proposal, target_probs, chance, rows)
        if found is not None:
            return found
        return keep_while_accepted(proposal, target_probs, chance, rows, _ratios(proposal, target_probs))

    def settle(self, tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, uniforms: Tensor) -> Settled:
        valid, p_at, q_at = drafted(tokens, counts, q, p)
        return from_the_front(tokens, counts, q, p, uniforms, quotients(p_at, q_at).double(), valid)


def keep_while_accepted(
    proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int], chances: list[list[float]]
) -> Verdict:
    """A chain from its first token on: token i is accepted with probability chances[row][i]; one recovered token from
    the residual at the first rejection, else one bonus token."""
    drafts = proposal.tokens
    kept = []
    weights = []
    for place, row in enumerate(rows):
        draft = drafts[place]
        accepted = 0
        while accepted < len(draft) and chance.bernoulli(chances[place][accepted], row):
            accepted += 1
        kept.append(accepted)
        law = target_probs[place, accepted]
        if accepted < len(draft):
            q = proposal.probs[place, accepted] if proposal.probs is not None else None
            law = residual(law, q, draft[accepted])
        weights.append(law)
    return close_chains(drafts, kept, weights, chance, rows)


def close_chains(
    drafts: list[list[int]], kept: list[int], weights: list[Tensor], chance: Chance, rows: Sequence[int]
) -> Verdict:
    """The verdict on chains of which the first kept[b] tokens stay, with one token more from weights[b] [V] each."""
    last = draw_each(weights, chance, rows)
    tokens = [[*draft[:count], token] for draft, count, token in zip(drafts, kept, last)]
    return Verdict(list(rows), tokens, kept, [len(draft) for draft in drafts])


def _ratios(proposal: Proposal, target_probs: Tensor) -> list[list[float]]:
    """p(x)/q(x) of every draft token, at most 1; a token that q cannot have produced counts as q = 1 (never accepted
    more often than p allows)."""
    longest = proposal.longest
    if longest == 0:
        return [[] for _ in proposal.tokens]
    padded = [[*row, *[0] * (longest - len(row))] for row in proposal.tokens]
    ids = torch.tensor(padded, device=target_probs.device)[..., None]
    p = target_probs[:, :longest].gather(-1, ids)[..., 0]
    q = torch.ones_like(p) if proposal.probs is None else proposal.probs.gather(-1, ids)[..., 0]
    return quotients(p, q).tolist()


def quotients(p: Tensor, q: Tensor) -> Tensor:
    """p/q, at most 1, in the laws' own dtype; 0/0 is 0."""
    return (p / q).nan_to_num_(nan=0.0).clamp_(max=1.0)


def residual(p: Tensor, q: Tensor | None, token: int) -> Tensor:
    """Weights max(0, p - q) [V] of the recovered token; q None is a point mass on `token`.

    All zero only where rounding rejected a token of p = q: then p itself.
    """
    if q is None:
        rest = p.clone()
        rest[token] = 0.0
    else:
        rest = (p - q).clamp_(min=0.0)
    return rest if rest.sum().item() > 0 else p


KIND = VerifierKind(RejectionVerifier, "chain, token by token", raced=())
