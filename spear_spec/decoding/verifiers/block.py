"""Block verification (Sun et al., arXiv 2403.10444): a draft is judged as a whole, from its end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.gather import drafted_probs
from spear_spec.decoding.verifiers.native import judged
from spear_spec.decoding.verifiers.rejection import close_chains, residual
from spear_spec.decoding.verifiers.tensors import Settled, at, categorical, close, drafted, recovered


class BlockVerifier:
    """The longest prefix x_1..x_i whose own trial succeeds is kept, however the shorter ones would have fared.

    With r_0 = 1 and r_i = min(1, r_(i-1) p(x_i)/q(x_i)), and S_i = sum_x max(0, r_i p(x) - q(x)) with the laws after
    x_i, the trial of i succeeds with probability S_i / (S_i + 1 - r_i), that of the whole draft with r_gamma. Behind
    a prefix of i tokens the recovered token is drawn from norm(max(0, r_i p - q)). Keeps at least as many tokens as
    rejection does, in expectation.
    """

    name = "block"
    lossless = True
    forms = frozenset({"chain"})

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        found = judged("block", proposal, target_probs, chance, rows)
        if found is not None:
            return found
        drafts = proposal.tokens
        p_at, q_at = drafted_probs(proposal, target_probs)
        joint = [_joint_ratios(p, q, len(draft)) for p, q, draft in zip(p_at, q_at, drafts)]
        excess = _excess(proposal, target_probs, joint, p_at)
        kept = []
        weights = []
        for place, row in enumerate(rows):
            draft, r = drafts[place], joint[place]
            accepted = len(draft)
            # the trials are independent, so the largest success is found from the end
            while accepted and not chance.bernoulli(_success(excess[place], r, accepted), row):
                accepted -= 1
            kept.append(accepted)
            law = target_probs[place, accepted]
            if accepted < len(draft):
                q = proposal.probs[place, accepted] if proposal.probs is not None else None
                law = residual(law * r[accepted], q, draft[accepted])
            weights.append(law)
        return close_chains(drafts, kept, weights, chance, rows)

    def settle(self, tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, uniforms: Tensor) -> Settled:
        width = tokens.shape[1]
        _, p_at, q_at = (values.double() for values in drafted(tokens, counts, q, p))
        steps = torch.where(q_at > 0, p_at / q_at, (p_at > 0).double())
        joint = [torch.ones_like(uniforms[:, 0])]  # r_0 .. r_width, as in `_joint_ratios`
        for i in range(width):
            joint.append((joint[-1] * steps[:, i]).clamp(max=1.0))
        r = torch.stack(joint, 1)
        lengths = torch.arange(1, width + 1, device=tokens.device)
        success = r[
            :, 1:
        ]  # h_i at [b, i - 1]: that of the whole draft, then S_i / (S_i + 1 - r_i) for shorter prefixes
        if width > 1:
            inner = r[:, 1:width]
            if q is None:
                excess = inner * (1.0 - p_at[:, 1:]).clamp(min=0.0)
            else:
                excess = (p[:, 1:width] * inner.to(p.dtype)[..., None]).sub_(q[:, 1:width]).clamp_(min=0.0).sum(-1)
            total = excess.double() + (1.0 - inner)
            shorter = torch.where(total > 0, excess.double() / total, 1.0)
            success = torch.where(lengths == counts[:, None], success, torch.cat([shorter, success[:, -1:]], 1))
        trial = (counts[:, None] - lengths).clamp(min=0)  # the trial of i tokens comes after those of more
        kept = (uniforms.gather(1, trial) < success) & (lengths <= counts[:, None])
        accepted = torch.cat([torch.zeros_like(counts)[:, None], kept.long() * lengths], 1).amax(1)
        trials = counts - accepted + (accepted > 0)
        last = categorical(recovered(tokens, counts, q, p, accepted, at(r, accepted).to(p.dtype)), at(uniforms, trials))
        return close(tokens, accepted, last, trials + 1)


def _joint_ratios(p: list[float], q: list[float], length: int) -> list[float]:
    """r_0 .. r_length."""
    r = [1.0]
    for p_x, q_x in zip(p[:length], q[:length]):
        if q_x > 0:
            r.append(min(1.0, r[-1] * (p_x / q_x)))
        else:  # cannot have been drawn
            r.append(r[-1] if p_x > 0 else 0.0)
    return r


def _excess(
    proposal: Proposal, target_probs: Tensor, joint: list[list[float]], p_at: list[list[float]]
) -> list[list[float]]:
    """S_i at [row][i - 1] for 1 <= i < longest draft (what lies behind a shorter row's last token means nothing)."""
    longest = proposal.longest
    if longest < 2:
        return [[] for _ in joint]
    if proposal.probs is None:  # q is a point mass on x_(i+1): r_i (1 - p(x_(i+1)))
        return [[r[i] * max(0.0, 1.0 - p[i]) for i in range(1, len(r) - 1)] for r, p in zip(joint, p_at)]
    padded = [[*r[1:-1], *[0.0] * (longest - max(len(r) - 1, 1))] for r in joint]
    scale = torch.tensor(padded, dtype=target_probs.dtype, device=target_probs.device)[..., None]
    return (target_probs[:, 1:longest] * scale).sub_(proposal.probs[:, 1:longest]).clamp_(min=0.0).sum(-1).tolist()


def _success(excess: list[float], r: list[float], i: int) -> float:
    """h_i, the probability that the trial of the first i tokens succeeds; 0/0 counts as 1."""
    if i == len(r) - 1:
        return r[i]
    total = excess[i - 1] + (1.0 - r[i])
    return excess[i - 1] / total if total > 0 else 1.0


KIND = VerifierKind(BlockVerifier, "chain, judged as a whole: keeps more", raced=())
