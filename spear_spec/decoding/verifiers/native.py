"""Chains judged in C, where laws are float32 on a CPU and chance is made of uniforms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.kernels import native
from spear_spec.kernels.judge import judge


def judged(rule: str, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict | None:
    """The verdict by one of `judge.RULES`; None where C cannot give it. Uses the same uniforms as the rule's own form,
    in the same order.
    """
    if target_probs.dtype is not torch.float32 or not target_probs.is_cpu or not native.available():
        return None
    drafts, longest = proposal.tokens, proposal.longest
    ahead: list[list[float]] = []
    for row in rows:
        line = chance.ahead(row, longest + 1)
        if line is None:
            return None
        ahead.append(line)
    found = judge(rule, drafts, proposal.probs, target_probs, ahead)
    for row, (_, _, used) in zip(rows, found):
        chance.passed(row, used)
    tokens = [[*draft[:kept], last] for draft, (kept, last, _) in zip(drafts, found)]
    return Verdict(list(rows), tokens, [kept for kept, _, _ in found], [len(draft) for draft in drafts])
