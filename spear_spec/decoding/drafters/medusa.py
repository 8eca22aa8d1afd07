"""Medusa: parallel heads on the target's last hidden state, as a chain or as a sparse tree of their best choices
(arXiv 2401.10774).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from spear_spec.decoding.drafters.adaptive import make_stopping
from spear_spec.decoding.drafters.chain import ChainDrafter, ChainState
from spear_spec.decoding.drafters.decoder import at
from spear_spec.decoding.kinds import DrafterKind, Trained, TreeKind, chains, trees
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.session import Session
from spear_spec.errors import ConfigError

if TYPE_CHECKING:
    from spear_spec.models.drafts.medusa import MedusaHeads


def head_laws(heads: MedusaHeads, session: Session, count: int) -> Tensor:
    """What each of the first `count` heads says of each row, laws [B, count, V]; guided as the target is."""
    out, lanes = session.lane_output, session.lanes
    assert out is not None
    hidden = at(out.hidden, [len(row) - 1 for row in lanes.spread(session.fresh)])[:, 0]
    return session.laws_of(session.model.logits(heads(hidden, count)).transpose(0, 1))


def spoken(session: Session, limits: list[int], most: int) -> list[int]:
    """Limits of rows that the target has said something of: heads sit on its last hidden state."""
    return [min(limit, most) if begun else 0 for limit, begun in zip(limits, session.begun)]


@dataclass
class MedusaState(ChainState):
    """laws [B, K, V] of the newest call, and how many of them have been drawn from."""

    laws: Tensor | None = None
    drawn: int = 0


class MedusaDrafter(ChainDrafter):
    """A chain: token k is drawn from head k's law. The heads do not see each other's tokens."""

    name = needs = "medusa"

    def __init__(self, heads: MedusaHeads, *, stop: str | None = None, cost: float | None = None) -> None:
        make_stopping(stop, 1, cost)
        self.heads, self.stop, self.price = heads, stop, cost

    def start(self, session: Session) -> MedusaState:
        return MedusaState(stopping=make_stopping(self.stop, len(session.rows), self.price))

    def propose(self, session: Session, state: MedusaState, limits: list[int]) -> Proposal:
        return super().propose(session, state, spoken(session, limits, self.heads.cfg.heads))

    def begin(self, session: Session, state: MedusaState) -> Tensor:
        state.laws, state.drawn = head_laws(self.heads, session, self.heads.cfg.heads), 0
        return state.laws[:, 0]

    def advance(self, session: Session, state: MedusaState, tokens: Tensor) -> Tensor:
        assert state.laws is not None
        state.drawn += 1
        return state.laws[:, state.drawn]


class MedusaTreeDrafter:
    """The sparse tree of the heads' best choices that was found on development data. Its nodes are point masses."""

    name = needs = "medusa"
    form = "points"

    def __init__(self, heads: MedusaHeads, *, nodes: int = 24) -> None:
        """nodes: the best so many of the tree that was found.

        Raises:
            ConfigError: the heads have no tree, or nodes is no whole number above 0.
        """
        if not heads.cfg.tree:
            raise ConfigError("these Medusa heads come without a sparse tree: train them, or leave tree out")
        if not isinstance(nodes, int) or isinstance(nodes, bool) or nodes < 1:
            raise ConfigError(f"nodes must be a whole number above 0, not {nodes!r}")
        self.heads = heads
        paths = sorted(heads.cfg.tree[:nodes], key=lambda path: (len(path), path))
        number = {path: at for at, path in enumerate(paths)} | {(): -1}
        self.depths = [len(path) for path in paths]
        self.ranks = [path[-1] for path in paths]
        self.parents = [number[path[:-1]] for path in paths]

    def start(self, session: Session) -> None:
        return None

    def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
        limits = spoken(session, limits, max(self.depths))
        if max(limits) == 0:
            return Proposal([[] for _ in limits])
        depth = max(min(max(self.depths), max(limits)), 1)
        laws = head_laws(self.heads, session, depth)
        values, choices = laws.topk(min(max(self.ranks) + 1, laws.shape[-1]), -1)
        tokens, parents = [], []
        for limit, ids, chances in zip(limits, choices.tolist(), values.tolist()):
            kept: list[int] = []
            above: list[int] = []
            number = {-1: -1}
            for node, (level, rank, parent) in enumerate(zip(self.depths, self.ranks, self.parents)):
                # children of what is left out are left out; so are tokens that the head rules out
                if level > limit or parent not in number or rank >= len(ids[0]) or chances[level - 1][rank] <= 0:
                    continue
                if parent >= 0 and kept[number[parent]] == session.model.eos_id:
                    continue
                number[node] = len(kept)
                kept.append(ids[level - 1][rank])
                above.append(number[parent])
            tokens.append(kept)
            parents.append(above)
        return Proposal(tokens, None, parents)

    def commit(self, session: Session, state: None, verdict: Verdict) -> None:
        return None


KIND = DrafterKind(
    MedusaDrafter,
    "eight heads on the transformer's last hidden state: a sparse tree, or a chain",
    usual={"gamma": 8, "tree": "sparse"},
    trees={"sparse": TreeKind(MedusaTreeDrafter, rule="recursive", form="points")},
    trained=Trained("medusa", lambda target, sizes: {"dim": target.dim, "heads": 8, "inner": target.dim}),
    raced=(*chains((4,)), *trees(("recursive", "sparse"), gamma=8)),
)
