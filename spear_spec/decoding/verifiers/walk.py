"""The walk down a draft, from place to place, that the rules for several siblings share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.proposal import Branches, Proposal, Verdict
from spear_spec.decoding.verifiers.gather import drafted_probs, draw_each


@dataclass(slots=True)
class Siblings:
    """The draft tokens that are offered for one position, in the order in which they were drawn, and the laws there.

    p [V]: the target's law; q [V]: the law that the first sibling was drawn from, None: tokens chosen without chance;
    p_at, q_at: p(x) and q(x) of each token.
    """

    tokens: list[int]
    p: Tensor
    q: Tensor | None
    p_at: list[float]
    q_at: list[float]


# accept(probability): whether the draw succeeded. The outcome: the accepted token, or the recovered one's weights [V]
Choose = Callable[[Siblings, Callable[[float], bool]], int | Tensor]


def descend(proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int], choose: Choose) -> Verdict:
    """Let `choose` decide at each place; go on behind the accepted token, until all siblings are rejected (a recovered
    token) or a place has none (a bonus token from p)."""
    p_at, q_at = drafted_probs(proposal, target_probs)
    kept: list[list[int]] = []
    ends: list[int] = []
    weights: list[Tensor] = []
    for place, row in enumerate(rows):
        draft, ps, qs, laws = proposal.tokens[place], p_at[place], q_at[place], target_probs[place]
        branches = proposal.branches(place)
        accept = partial(chance.bernoulli, row=row)
        accepted: list[int] = []
        here: Sequence[int] = Branches.ROOT
        while True:
            p = laws[here[0] + 1]
            nodes = branches.after(here)
            if not nodes:
                weights.append(p)
                break
            q = None if proposal.probs is None else proposal.probs[place, nodes[0]]
            offer = Siblings([draft[n] for n in nodes], p, q, [ps[n] for n in nodes], [qs[n] for n in nodes])
            outcome = choose(offer, accept)
            if isinstance(outcome, Tensor):
                weights.append(outcome)
                break
            accepted.append(outcome)
            here = branches.same(nodes, outcome)
        kept.append(accepted)
        ends.append(here[0])
    last = draw_each(weights, chance, rows)
    return verdict(proposal, rows, [[*accepted, token] for accepted, token in zip(kept, last)], ends)


def verdict(proposal: Proposal, rows: Sequence[int], tokens: list[list[int]], ends: list[int]) -> Verdict:
    """The verdict on rows whose accepted tokens end at the nodes `ends` (-1: none accepted)."""
    paths = None
    if proposal.parents is not None:
        paths = [path_to(parents, end) for parents, end in zip(proposal.parents, ends)]
    return Verdict(
        list(rows), tokens, [len(row) - 1 for row in tokens], [len(draft) for draft in proposal.tokens], paths
    )


def path_to(parents: Sequence[int], node: int) -> list[int]:
    """The nodes from the root's child down to `node`."""
    path = []
    while node >= 0:
        path.append(node)
        node = parents[node]
    return path[::-1]
