"""Trees from a draft decoder: static ones with drawn or best siblings, and dynamic ones (EAGLE-2, arXiv 2406.16858)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from spear_spec.decoding.drafters.decoder import DecoderDrafter, DecoderState
from spear_spec.decoding.drafters.growth import Growth
from spear_spec.decoding.kinds import TreeKind
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.session import Session
from spear_spec.errors import ConfigError

if TYPE_CHECKING:
    from spear_spec.models.drafts.decoder import DraftDecoder

SIBLINGS = {"iid": "drawn independently, duplicates kept", "wor": "drawn without replacement", "top": "the likeliest"}
MOST_NODES = 512


@dataclass(frozen=True)
class Shape:
    """branching: children of every node at each depth (static), or None: grown where the draft is surest."""

    branching: tuple[int, ...] | None

    @classmethod
    def parse(cls, name: str) -> Shape:
        """`dynamic`, or children by depth such as `4-2-1-1`.

        Raises:
            ConfigError: neither, or more than 512 nodes.
        """
        if name == "dynamic":
            return cls(None)
        if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)*", name):
            raise ConfigError(f"unknown tree {name!r}: dynamic, or children by depth such as 4-2-1-1")
        branching = tuple(int(part) for part in name.split("-"))
        nodes, level = 0, 1
        for children in branching:
            level *= children
            nodes += level
        if nodes > MOST_NODES:
            raise ConfigError(f"the tree {name} has {nodes} nodes; at most {MOST_NODES}")
        return cls(branching)


class StaticTreeDrafter(DecoderDrafter):
    """Every node at depth d gets branching[d] children: drawn from the draft's law, or its likeliest tokens."""

    def __init__(
        self, draft: DraftDecoder, branching: tuple[int, ...], *, siblings: str = "wor", guided: bool = False
    ) -> None:
        super().__init__(draft, guided=guided)
        if siblings not in SIBLINGS:
            raise ConfigError(f"siblings must be {', '.join(SIBLINGS)}, not {siblings!r}")
        self.branching, self.siblings = branching, siblings
        self.form = {"iid": "iid", "wor": "wor", "top": "points"}[siblings]

    def propose(self, session: Session, state: DecoderState, limits: list[int]) -> Proposal:
        if max(limits) == 0:
            return self.rest(session, state)
        growth = Growth(session, state, self.catch_up(session, state))
        eos = session.model.eos_id
        frontier = [[-1] if limit > 0 else [] for limit in limits]
        for depth, children in enumerate(self.branching, 1):
            level = self._children(session, growth, frontier, children)
            if depth == len(self.branching):
                break
            frontier = [
                [node for node in nodes if growth.tokens[place][node] != eos] if depth < limits[place] else []
                for place, nodes in enumerate(level)
            ]
            if not any(frontier):
                break
            growth.expand(frontier)
        return growth.proposal(points=self.siblings == "top")

    def _children(self, session: Session, growth: Growth, frontier: list[list[int]], count: int) -> list[list[int]]:
        """Give every frontier node its children; returns them by row."""
        above = [(place, node) for place, nodes in enumerate(frontier) for node in nodes]
        level: list[list[int]] = [[] for _ in frontier]
        weights = growth.laws[[place for place, _ in above], [growth.law_index(place, node) for place, node in above]]
        if self.siblings == "top":
            values, tokens = weights.topk(min(count, weights.shape[-1]), -1)
            for (place, node), line, chosen in zip(above, values.tolist(), tokens.tolist()):
                level[place] += [growth.add(place, token, node) for p, token in zip(line, chosen) if p > 0]
            return level
        alive = list(range(len(above)))
        for _ in range(count):
            rows = [session.rows[above[i][0]] for i in alive]
            drawn = session.chance.categorical(weights if len(alive) == len(above) else weights[alive], rows)
            for i, token in zip(alive, drawn):
                level[above[i][0]].append(growth.add(above[i][0], token, above[i][1]))
            if self.siblings == "wor":
                weights[alive, drawn] = 0.0
                left = (weights.amax(-1) > 0).tolist()  # a law may have fewer tokens than children are wanted
                alive = [i for i in alive if left[i]]
                if not alive:
                    break
        return level


class DynamicTreeDrafter(DecoderDrafter):
    """Grows where the product of the draft's probabilities is largest, and keeps the best nodes.

    At each depth the `width` best nodes get their `width` likeliest children; of all, the `nodes` best are proposed.
    The shape follows from the draft's laws alone, without chance, so the nodes are point masses.
    """

    form = "points"

    def __init__(self, draft: DraftDecoder, *, nodes: int = 24, width: int = 4, guided: bool = False) -> None:
        super().__init__(draft, guided=guided)
        for name, value in (("nodes", nodes), ("width", width)):
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_NODES:
                raise ConfigError(f"{name} must be a whole number from 1 to {MOST_NODES}, not {value!r}")
        self.nodes, self.width = nodes, width

    def propose(self, session: Session, state: DecoderState, limits: list[int]) -> Proposal:
        if max(limits) == 0:
            return self.rest(session, state)
        growth = Growth(session, state, self.catch_up(session, state))
        eos = session.model.eos_id
        values: list[list[float]] = [[] for _ in limits]  # log of the product of probabilities down to each node
        frontier = [[-1] if limit > 0 else [] for limit in limits]
        for depth in range(1, max(limits) + 1):
            level = self._children(growth, frontier, values)
            frontier = []
            for place, nodes in enumerate(level):
                open_ = [node for node in nodes if growth.tokens[place][node] != eos] if depth < limits[place] else []
                best = sorted(open_, key=lambda node: -values[place][node])[: self.width]
                frontier.append(sorted(node for node in best if self._counts(values[place], node)))
            if not any(frontier):
                break
            growth.expand(frontier)
        return self._best(growth, values)

    def _counts(self, values: list[float], node: int) -> bool:
        """Whether a node is among the best so far: children of one that is not would not be proposed."""
        return sum(value > values[node] for value in values) < self.nodes

    def _children(self, growth: Growth, frontier: list[list[int]], values: list[list[float]]) -> list[list[int]]:
        above = [(place, node) for place, nodes in enumerate(frontier) for node in nodes]
        laws = growth.laws[[place for place, _ in above], [growth.law_index(place, node) for place, node in above]]
        chances, tokens = laws.topk(min(self.width, laws.shape[-1]), -1)
        logs = chances.log()
        level: list[list[int]] = [[] for _ in frontier]
        for (place, node), line, chosen in zip(above, logs.tolist(), tokens.tolist()):
            start = 0.0 if node < 0 else values[place][node]
            for value, token in zip(line, chosen):
                if value > -torch.inf:
                    level[place].append(growth.add(place, token, node))
                    values[place].append(start + value)
        return level

    def _best(self, growth: Growth, values: list[list[float]]) -> Proposal:
        """The best nodes of each row.

        A parent is never worse than its child and stands before it, so the kept ones are a tree.
        """
        tokens, parents = [], []
        for place, line in enumerate(values):
            kept = sorted(sorted(range(len(line)), key=lambda node: (-line[node], node))[: self.nodes])
            number = {-1: -1} | {node: at for at, node in enumerate(kept)}
            tokens.append([growth.tokens[place][node] for node in kept])
            parents.append([number[growth.parents[place][node]] for node in kept])
        return Proposal(tokens, None, parents)


def grown(name: str) -> TreeKind:
    """The tree of that name, grown from a draft decoder: `dynamic`, or children by depth such as `4-2-1-1`.

    Raises:
        ConfigError: see `Shape.parse`.
    """
    branching = Shape.parse(name).branching
    if branching is None:
        return TreeKind(DynamicTreeDrafter, rule="recursive", form="points")
    return TreeKind(StaticTreeDrafter, rule="recursive_wor", depth=len(branching), fixed={"branching": branching})
