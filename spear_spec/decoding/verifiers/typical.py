"""Typical acceptance (Medusa, Cai et al., arXiv 2401.10774, section 2.3.1). LOSSY."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.gather import drafted_probs, draw_each
from spear_spec.decoding.verifiers.options import checked
from spear_spec.decoding.verifiers.tensors import Settled, at, categorical, close, drafted, leading
from spear_spec.decoding.verifiers.walk import path_to, verdict


class TypicalVerifier:
    """LOSSY. A token is accepted if p(x) > min(eps, delta exp(-H(p))), without chance; the longest accepted path
    wins, the first of equal ones; then a bonus token from p.

    What it does to the law: a drafted token that is plausible to the target is taken for certain, so it comes as
    often as the draft offers it, not as often as the target would; implausible tokens come from the bonus draw alone.
    The token before the draft is the target's own sample, which is Medusa's first token that is always taken. At
    temperature 0 the criterion is equality with the target's choice.
    """

    name = "typical"
    lossless = False
    forms = frozenset({"chain", "iid", "wor", "points"})

    def __init__(self, *, eps: float = 0.09, delta: float = 0.3) -> None:
        self.eps = checked(self.name, "eps", eps, 0.0, 1.0, above_low=True)
        self.delta = checked(self.name, "delta", delta, 0.0, 1.0, above_low=True)

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        p_at, _ = drafted_probs(proposal, target_probs)
        ends = []
        kept = []
        for place, draft in enumerate(proposal.tokens):
            parents: Sequence[int] = range(-1, len(draft) - 1) if proposal.parents is None else proposal.parents[place]
            depth, bound = {-1: 0}, dict[int, float]()  # of the accepted nodes
            end = -1
            for node, (parent, p_x) in enumerate(zip(parents, p_at[place])):
                if parent not in depth:
                    continue
                if p_x <= self.eps:  # above eps the entropy does not matter
                    if parent not in bound:
                        bound[parent] = self.thresholds(target_probs[place, parent + 1]).item()
                    if p_x <= bound[parent]:
                        continue
                depth[node] = depth[parent] + 1
                if depth[node] > depth[end]:
                    end = node
            ends.append(end)
            kept.append([draft[node] for node in path_to(parents, end)])
        weights = [target_probs[place, end + 1] for place, end in enumerate(ends)]
        last = draw_each(weights, chance, rows)
        return verdict(proposal, rows, [[*accepted, token] for accepted, token in zip(kept, last)], ends)

    def settle(self, tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, uniforms: Tensor) -> Settled:
        valid, p_at, _ = drafted(tokens, counts, None, p)
        bounds = self.thresholds(p[:, : tokens.shape[1]])
        accepted = leading((p_at.double() > bounds) & valid)
        last = categorical(at(p, accepted), uniforms[:, 0])
        return close(tokens, accepted, last, torch.ones_like(accepted))

    def thresholds(self, p: Tensor) -> Tensor:
        """min(eps, delta exp(-H(p))) of laws p [..., V], H in nats; float64 [...]."""
        entropy = torch.special.entr(p).sum(-1).double()
        return (self.delta * torch.exp(-entropy)).clamp(max=self.eps)


KIND = VerifierKind(TypicalVerifier, "chains and trees: what is plausible is taken", usual={"tree": "dynamic"})
