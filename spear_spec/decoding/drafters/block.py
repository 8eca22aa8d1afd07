"""A whole draft from one pass: a block decoder on the target's features, its tokens drawn from left to right (after
DFlash, arXiv 2602.06036, and DSpark, 2607.05147).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spear_spec.decoding.drafters.adaptive import COST, Bounds, best_length, check_cost, make_stopping
from spear_spec.decoding.drafters.chain import ChainDrafter
from spear_spec.decoding.drafters.decoder import DecoderDrafter, DecoderState
from spear_spec.decoding.kinds import DrafterKind, Trained, chains
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.session import Session
from spear_spec.models.drafts.block_runner import BlockPass, BlockRunner, block_runner_for

if TYPE_CHECKING:
    from spear_spec.models.drafts.block import BlockDecoder
    from spear_spec.nn.tree import Tree

SURVIVAL = "survival"  # the stopping rule that looks at the pass's own chances


@dataclass
class BlockState(DecoderState):
    """Its cache holds settled tokens alone. said: of the newest pass, of which `drawn` positions have been drawn from;
    newest: each place's token before the block.
    """

    runner: BlockRunner  # type: ignore[assignment]  # what the base asks of a runner it has
    said: BlockPass | None = None
    drawn: int = 0
    newest: Tensor | None = None

    def step(
        self, tokens: Tensor, features: Tensor | None, tree: Tree | None = None, counts: list[int] | None = None
    ) -> Tensor:
        """Read settled tokens [B, n]; features and result (contexts) [lanes, n, D]; counts [B]: tokens of each row."""
        if not self.lanes.plain:
            tokens = self.lanes.expand(tokens)
            counts = None if counts is None else self.lanes.spread(counts)
        return self.runner.step(tokens, features, self.draft, tree, counts)

    def follow(self, session: Session, before: Tensor) -> Tensor:
        """Laws [B, V] of the next position, given the tokens [B] before it."""
        assert self.said is not None
        logits = self.runner.follow(self.said, self.drawn, self.lanes.expand(before))
        self.drawn += 1
        return session.laws_of(logits, self.lanes)


class BlockDrafter(ChainDrafter, DecoderDrafter):
    """Reads settled tokens as eagle does, runs one pass over as many positions as a row may draft, then draws.

    stop: see `adaptive.STOPS`, or "survival": a row drafts as many tokens as promise most for their cost by the chances
    that the pass itself gives each position of being accepted. They are known before any token is drawn. price: what
    one more draft token costs, against a call, for "acceptance" (option `cost`, which "survival" takes too).
    """

    name = needs = "block"
    draft: BlockDecoder  # type: ignore[assignment]
    # in the order of bases ChainDrafter's, which do nothing, come first
    leave = DecoderDrafter.leave
    join = DecoderDrafter.join

    def __init__(
        self, draft: BlockDecoder, *, guided: bool = False, stop: str | None = None, cost: float | None = None
    ) -> None:
        DecoderDrafter.__init__(self, draft, guided=guided)  # type: ignore[arg-type]
        self.cost: float | None = None  # where the pass itself says how far a row drafts
        if stop == SURVIVAL:
            self.cost = COST if cost is None else cost
            check_cost(self.cost)
            stop = cost = None
        make_stopping(stop, 1, cost)
        self.stop, self.price = stop, cost

    def start(self, session: Session) -> BlockState:
        session.want(self.draft.cfg.target_layers)
        runner = block_runner_for(self.draft, session.model)
        rows = len(session.rows)
        lanes, draft = self._begin(session, list(range(rows)))
        return BlockState(runner, draft, lanes, [0] * rows, stopping=make_stopping(self.stop, rows, self.price))

    def propose(self, session: Session, state: BlockState, limits: list[int]) -> Proposal:
        limits = [min(limit, self.draft.cfg.block) for limit in limits]  # it has no more positions
        if max(limits) == 0:
            return self.rest(session, state)
        rows, chance, bounds = session.rows, session.chance, Bounds()
        if state.stopping is not None:
            limits, bounds = state.stopping.limits(limits), state.stopping.bounds()
        contexts = self.catch_up(session, state)
        newest = [fresh[-1] for fresh in session.fresh]
        uniforms = [chance.ahead(row, max(limits)) for row in rows]
        if state.lanes.plain and state.runner.chains(len(rows)) and min(limits) > 0 and all(uniforms):
            tokens, laws = state.runner.chain(
                contexts,
                newest,
                limits,
                [line[: max(limits)] for line in uniforms if line is not None],
                session.samplings,
                session.model.eos_id,
                state.draft,
                bounds.entropy,
                bounds.chance,
                self.cost,
            )
            for row, drawn in zip(rows, tokens):
                chance.passed(row, len(drawn))
            return Proposal(tokens, laws)
        # a row that may draft nothing has a position all the same: nobody sees it
        counts = state.lanes.spread([max(limit, 1) for limit in limits])
        state.said, state.drawn = state.runner.ahead(contexts, counts, state.draft), 0
        state.newest = torch.tensor(newest, device=contexts.device)
        if self.cost is not None:
            sure = state.said.sure[torch.tensor(state.lanes.texts)].tolist()
            limits = [best_length(line[:limit], self.cost) for line, limit in zip(sure, limits)]
        return ChainDrafter.propose(self, session, state, limits)

    def begin(self, session: Session, state: BlockState) -> Tensor:
        assert state.newest is not None
        return state.follow(session, state.newest)

    def advance(self, session: Session, state: BlockState, tokens: Tensor) -> Tensor:
        return state.follow(session, tokens[:, 0])


KIND = DrafterKind(
    BlockDrafter,
    "one pass of a block decoder fed with the transformer's features",
    usual={"gamma": 10},
    trained=Trained(
        "block",
        lambda target, sizes: {
            "dim": target.dim,
            "ids": target.vocab_size,
            "depth": 2,
            "heads": target.heads,
            "dim_head": target.dim_head,
            "ff_mult": sizes["ff_mult"],
            "target_layers": sorted({-(-target.depth * i // 3) for i in (1, 2, 3)}),
        },
    ),
    raced=(*chains((4, 6, 8, 10)), *chains((10,), stop="survival")),
)
