"""Coarse-grained acceptance by groups of similar tokens (PCG, arXiv 2511.13732). LOSSY."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.kinds import VerifierKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.gather import ratio
from spear_spec.decoding.verifiers.options import checked
from spear_spec.decoding.verifiers.rejection import close_chains
from spear_spec.decoding.verifiers.tensors import Settled, at, categorical, close, leading, ratios


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
        """embedding [V - 1, D]: the vectors of the tokens, without the end token's; they must not be changed later."""
        self.theta = checked(self.name, "theta", theta, 0.0, float("inf"), above_low=True)
        self._groups = groups_of(embedding, self.theta)

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
                    weights.append(p if group is None else p * self._groups.on(p).weights[group].to(p.dtype))
                    break
                accepted += 1
            kept.append(accepted)
        return close_chains(drafts, kept, weights, chance, rows)

    def decide(self, p: Tensor, q: Tensor | None, token: int, chance: Chance, row: int) -> tuple[bool, int | None]:
        """Whether the draft token is accepted, and the drawn group: its own, or the recovered one (None where rounding
        left none). p, q [V]; q None is a point mass."""
        found = self._groups.on(p)
        groups = found.lists[token]
        group = groups[0]
        if len(groups) > 1:
            group = groups[chance.categorical(p.new_ones(1, len(groups)), [row])[0]]
        p = p.double()
        q = torch.zeros_like(p).index_fill(0, torch.tensor(token, device=p.device), 1.0) if q is None else q.double()
        line = found.weights[group]
        if chance.bernoulli(ratio((line * p).sum().item(), (line * q).sum().item()), row):
            return True, group
        rest = (found.weights @ (p - q)).clamp_(min=0.0)  # max(0, P - Q)
        if rest.sum().item() <= 0:
            return False, None
        return False, chance.categorical(rest[None], [row])[0]

    def settle(self, tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, uniforms: Tensor) -> Settled:
        found, width = self._groups.on(p), tokens.shape[1]
        if width == 0:
            return close(tokens, counts, categorical(p[:, 0], uniforms[:, 0]), torch.ones_like(counts))
        valid = torch.arange(width, device=tokens.device) < counts[:, None]
        drafts = tokens.masked_fill(~valid, 0)
        choices = found.counts[drafts]  # groups that hold each draft token; with several, one more uniform is used
        draws = (1 + (choices > 1).long()).masked_fill(~valid, 0)
        first = draws.cumsum(1) - draws
        pick = torch.minimum((uniforms.gather(1, first) * choices).long(), choices - 1)
        group = found.table[drafts].gather(-1, pick[..., None])[..., 0]
        lines, laws = found.weights[group], p[:, :width].double()
        if q is None:
            points = torch.zeros_like(laws).scatter(-1, drafts[..., None], 1.0)
        else:
            points = q.double()
        chances = ratios((lines * laws).sum(-1), (lines * points).sum(-1))
        trial = uniforms.gather(1, (first + draws - 1).clamp(min=0))
        accepted = leading((trial < chances) & valid)
        place = accepted.clamp(max=width - 1)
        whole = accepted == counts
        used = torch.where(whole, draws.sum(1), at(first + draws, place))
        rest = ((at(laws, place) - at(points, place)) @ found.weights.T).clamp(min=0.0)
        regrouped = (rest.sum(-1) > 0) & ~whole
        law = at(p, accepted)
        other = law * found.weights[categorical(rest.nan_to_num(nan=0.0), at(uniforms, used))].to(p.dtype)
        used = used + regrouped.long()
        last = categorical(torch.where(regrouped[:, None], other, law), at(uniforms, used))
        return close(tokens, accepted, last, used + 1)

    def group_law(self, p: Tensor) -> Tensor:
        """P(g) [G] of a law p [V], float64."""
        return self._groups.on(p).weights @ p.double()


@dataclass(frozen=True)
class Groups:
    """By token x: lists[x] the groups that hold it, counts [V] how many, table [V, most] the same padded with 0;
    weights [G, V] float64: w(g given x), whose columns sum to 1.
    """

    lists: list[list[int]]
    counts: Tensor
    table: Tensor
    weights: Tensor
    _elsewhere: dict[torch.device, Groups] = field(default_factory=dict)

    def on(self, like: Tensor) -> Groups:
        """The same on the device of a tensor; kept."""
        device = like.device
        if device == self.weights.device:
            return self
        if device not in self._elsewhere:
            counts, table, weights = (tensor.to(device) for tensor in (self.counts, self.table, self.weights))
            self._elsewhere[device] = Groups(self.lists, counts, table, weights)
        return self._elsewhere[device]


_KNOWN = WeakTensorKeyDictionary()  # vectors, as long as somebody holds them: theta: groups


def groups_of(embedding: Tensor, theta: float) -> Groups:
    """The groups of these vectors [V - 1, D]; made once for each tensor and theta."""
    made: dict[float, Groups] = _KNOWN.setdefault(embedding, {})
    if theta not in made:
        made[theta] = _make_groups(embedding, theta)
    return made[theta]


def _make_groups(embedding: Tensor, theta: float) -> Groups:
    vectors = torch.nn.functional.normalize(embedding.detach().double(), dim=-1)
    size = len(vectors) + 1
    holds = torch.eye(size, dtype=torch.bool, device=vectors.device)  # [G, V]; its own group holds a token anyway
    holds[:-1, :-1] |= vectors @ vectors.T > theta
    lists: list[list[int]] = [[] for _ in range(size)]
    for group, token in holds.nonzero().tolist():
        lists[token].append(group)
    most = max(len(groups) for groups in lists)
    table = torch.tensor([[*groups, *[0] * (most - len(groups))] for groups in lists], device=vectors.device)
    return Groups(lists, holds.sum(0), table, holds.double() / holds.sum(0))


KIND = VerifierKind(CoarseVerifier, "chain: groups of like tokens instead of tokens", needs="embedding")
