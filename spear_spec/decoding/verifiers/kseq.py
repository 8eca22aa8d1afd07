"""K-SEQ of SpecTr (Sun et al., arXiv 2310.15141): k independent drafts of one law for each position."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from math import expm1, log1p

import torch
from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.gather import ratio
from spear_spec.decoding.verifiers.rejection import residual
from spear_spec.decoding.verifiers.walk import Siblings, descend
from spear_spec.errors import ConfigError

_HALVINGS = 44  # of the bracket [1, k]


class KSeqVerifier:
    """Siblings in turn: x is accepted with probability min(1, p(x) / (gamma* q(x))), by a fresh draw each.

    beta(g) = sum_x min(q(x), p(x)/g) is the chance that one draft is accepted, alpha(g) = 1 - (1 - beta(g))^k that
    one of k is. Every g with alpha(g) <= g beta(g) leaves a residual p - min(q, p/g) alpha/beta without negative
    weights, so is exact; the smallest such g, gamma* in [1, k], accepts most. k at a place counts the siblings there,
    equal ones too: the paths that survived so far. k = 1 is rejection.
    """

    name = "kseq"
    lossless = True
    forms = frozenset({"chain", "iid"})

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        return descend(proposal, target_probs, chance, rows, _choose)


def _choose(offer: Siblings, accept: Callable[[float], bool]) -> int | Tensor:
    p, q, k = offer.p, offer.q, len(offer.tokens)
    if k == 1:
        token = offer.tokens[0]
        return token if accept(ratio(offer.p_at[0], offer.q_at[0])) else residual(p, q, token)
    if q is None:
        raise ConfigError("verifier kseq needs siblings drawn from one law; for tokens chosen freely use recursive")
    gamma, beta = threshold(p, q, k)
    for token, p_x, q_x in zip(offer.tokens, offer.p_at, offer.q_at):
        if accept(ratio(p_x, gamma * q_x)):
            return token
    return _residual(p, q, k, gamma, beta)


def acceptance(beta: float, k: int) -> float:
    """alpha = 1 - (1 - beta)^k, without cancellation where beta is small."""
    return 1.0 if beta >= 1 else -expm1(k * log1p(-beta))


def threshold(p: Tensor, q: Tensor, k: int) -> tuple[float, float]:
    """gamma* in [1, k] and beta(gamma*), by bisection of alpha(g) - g beta(g), which falls in g. p, q [V].

    The upper end of the last bracket: there the residual has no negative weights.
    """
    # Only tokens of q < p < k q pass from min = q to min = p/g inside [1, k]. Sorted by p/q they become a table of
    # sums, and a step of the bisection costs no tensor operation.
    above = p > q
    beyond = p >= q * k
    turning = above & ~beyond
    fixed = torch.stack([p.masked_fill(above, 0.0), q * beyond]).sum(-1).tolist()
    points = sorted((p_x / q_x, p_x, q_x) for p_x, q_x in torch.stack([p[turning], q[turning]], -1).tolist())
    ratios = [point[0] for point in points]
    low = list(accumulate((point[1] for point in points), initial=fixed[0]))  # sum of p where min = p/g
    high = list(accumulate((point[2] for point in reversed(points)), initial=fixed[1]))[::-1]  # sum of q where min = q

    def beta(g: float) -> float:
        at = bisect_right(ratios, g)
        return min(1.0, low[at] / g + high[at])

    lower, upper = 1.0, float(k)
    for _ in range(_HALVINGS):
        middle = 0.5 * (lower + upper)
        b = beta(middle)
        if acceptance(b, k) > middle * b:
            lower = middle
        else:
            upper = middle
    return upper, beta(upper)


def _residual(p: Tensor, q: Tensor, k: int, gamma: float, beta: float) -> Tensor:
    """Weights p - min(q, p/gamma) alpha/beta [V] of the recovered token; p itself where no draft can be accepted, or
    where rounding left nothing."""
    if beta <= 0:
        return p
    rest = torch.sub(p, torch.minimum(q, p / gamma), alpha=acceptance(beta, k) / beta).clamp_(min=0.0)
    return rest if rest.sum().item() > 0 else p


KIND = VerifierKind(
    KSeqVerifier,
    "k independent paths",
    siblings="iid",
    usual={"drafter": "kpath", "num_drafts": 4},
    raced=(),
)
