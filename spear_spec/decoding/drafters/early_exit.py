"""Early exit: the target's first layers and a small head draft, and verification goes on from their rows.

After lucidrains/speculative-decoding and spear-tts-pytorch, which runs those layers a second time.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spear_spec.decoding.drafters.adaptive import make_stopping
from spear_spec.decoding.drafters.chain import ChainDrafter, ChainState
from spear_spec.decoding.drafters.decoder import at
from spear_spec.decoding.drafters.shapes import decoder_with
from spear_spec.decoding.kinds import DrafterKind, Trained, chains
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.session import Session
from spear_spec.errors import ConfigError
from spear_spec.models.drafts.runner import DraftRunner, runner_for
from spear_spec.runtime.lanes import Lanes

if TYPE_CHECKING:
    from spear_spec.models.drafts.decoder import DraftDecoder, DraftState


@dataclass
class EarlyExitState(ChainState):
    """The head's cache by lane, the length that its rows have committed, and what the first layers said in this call.

    lanes: the session's, as they stood when rows last joined or left. below: output [lanes, 1, D] of the first layers
    for the newest token and each draft token that was read. base: the target's lengths.
    """

    runner: DraftRunner
    head: DraftState
    lanes: Lanes
    committed: list[int]
    below: list[Tensor] = field(default_factory=list)
    base: list[int] = field(default_factory=list)


class EarlyExitDrafter(ChainDrafter):
    """Runs the target's first n layers on each draft token, in the target's own cache, and one block on top as their
    head.

    The rows stay: verification runs only the layers above for them. With guidance both lanes are drafted.
    """

    name = needs = "early_exit"

    def __init__(self, draft: DraftDecoder, *, stop: str | None = None, cost: float | None = None) -> None:
        if draft.cfg.feed != "same" or len(draft.cfg.target_layers) != 1:
            raise ConfigError("the head of an early exit is fed with one layer's output at the token's own position")
        make_stopping(stop, 1, cost)
        self.draft, self.stop, self.price = draft, stop, cost
        self.layers = draft.cfg.target_layers[0]

    def start(self, session: Session) -> EarlyExitState:
        session.want((self.layers,))
        rows = len(session.rows)
        head = self.draft.start(session.scored) if rows else self.draft.empty()
        return EarlyExitState(
            runner_for(self.draft, session.model),
            head,
            Lanes(list(session.lanes.places), list(session.lanes.free)),
            [0] * rows,
            stopping=make_stopping(self.stop, rows, self.price),
        )

    def begin(self, session: Session, state: EarlyExitState) -> Tensor:
        fresh, lanes, device = session.fresh, session.lanes, session.model.device
        state.base, state.below = list(session.cache.lengths), []
        newest = self._first_layers(
            session, state, torch.tensor([[row[-1]] for row in fresh], dtype=torch.int64, device=device)
        )
        longest = max(len(row) for row in fresh)
        features = newest.new_zeros(len(newest), longest, newest.shape[-1])
        if longest > 1:  # accepted tokens: verification has left what the first layers said of them
            assert session.lane_output is not None
            features[:, : longest - 1] = session.lane_output.features[0][:, 1:longest]
        counts = lanes.spread([len(row) for row in fresh])
        last = [count - 1 for count in counts]
        features[list(range(len(last))), last] = newest[:, 0]
        cache = state.head.cache
        cache.crop(lanes.spread(state.committed))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in fresh], dtype=torch.int64, device=device)
        hidden = self._head(session, state, ids, features)
        state.committed = [before + len(row) for before, row in zip(state.committed, fresh)]
        cache.crop(lanes.spread(state.committed))
        return self._laws(session, state, at(hidden, last))

    def advance(self, session: Session, state: EarlyExitState, tokens: Tensor) -> Tensor:
        return self._laws(
            session, state, self._head(session, state, tokens, self._first_layers(session, state, tokens))
        )

    def _first_layers(self, session: Session, state: EarlyExitState, tokens: Tensor) -> Tensor:
        x = session.model.first_layers(session.lanes.expand(tokens), session.scored, session.cache, self.layers)
        state.below.append(x)
        return x

    def _head(self, session: Session, state: EarlyExitState, tokens: Tensor, features: Tensor) -> Tensor:
        return state.runner.step(session.lanes.expand(tokens), self.draft.fuse_target([features]), state.head)

    def _laws(self, session: Session, state: EarlyExitState, hidden: Tensor) -> Tensor:
        return session.laws_of(state.runner.logits(hidden[:, -1]))

    def finish(self, session: Session, state: EarlyExitState, proposal: Proposal) -> Proposal:
        session.cache.crop(state.base)
        proposal.below = (self.layers, torch.cat(state.below, 1))
        return proposal

    def join(self, session: Session, state: EarlyExitState, places: list[int]) -> None:
        before = len(state.lanes.places)
        memory = session.scored.select(range(before, len(session.lanes.places)))
        state.head.join(self.draft.start(memory))
        state.lanes = Lanes(list(session.lanes.places), list(session.lanes.free))
        state.committed = [*state.committed, *[0] * len(places)]

    def leave(self, session: Session, state: EarlyExitState, stay: list[int]) -> None:
        state.head.select(state.lanes.leave(stay))
        state.committed = [state.committed[place] for place in stay]


KIND = DrafterKind(
    EarlyExitDrafter,
    "the transformer's first layers, whose rows verification uses again",
    usual={"gamma": 3},
    trained=Trained(
        "decoder",
        decoder_with(lambda target, sizes: {"target_layers": [min(sizes["exit_layer"], target.depth)], "feed": "same"}),
    ),
    raced=chains((3, 5)),
)
