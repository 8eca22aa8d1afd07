"""Self-speculation: the target drafts with some of its own sublayers left out (Draft & Verify, arXiv 2309.08168)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spear_spec.decoding.drafters.adaptive import make_stopping
from spear_spec.decoding.drafters.chain import ChainDrafter, ChainState
from spear_spec.decoding.kinds import DrafterKind, Trained, chains
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.session import Session

if TYPE_CHECKING:
    from spear_spec.models.memory import Skip


@dataclass
class LayerSkipState(ChainState):
    """base: the lengths of the target's cache before this draft; what is written behind them is scratch."""

    base: list[int] = field(default_factory=list)


class LayerSkipDrafter(ChainDrafter):
    """Reads the keys and values that the whole target has left of the settled tokens, and its own of the draft.

    Its rows are cropped before verification, which writes those of every layer. With guidance both lanes are drafted.
    """

    name = needs = "layer_skip"

    def __init__(self, skip: Skip, *, stop: str | None = None, cost: float | None = None) -> None:
        """skip: see `LayerSkipConfig.skip`. stop: see `adaptive.STOPS`; "confidence" is the paper's exit. cost: of a
        draft token, for stop "acceptance".
        """
        make_stopping(stop, 1, cost)
        self.skip, self.stop, self.price = skip, stop, cost

    def start(self, session: Session) -> LayerSkipState:
        return LayerSkipState(stopping=make_stopping(self.stop, len(session.rows), self.price))

    def begin(self, session: Session, state: LayerSkipState) -> Tensor:
        state.base = list(session.cache.lengths)
        return self.advance(
            session,
            state,
            torch.tensor([row[-1:] for row in session.fresh], dtype=torch.int64, device=session.model.device),
        )

    def advance(self, session: Session, state: LayerSkipState, tokens: Tensor) -> Tensor:
        out = session.model(session.lanes.expand(tokens), session.scored, session.cache, skip=self.skip)
        return session.laws_of(out.logits[:, -1])

    def finish(self, session: Session, state: LayerSkipState, proposal: Proposal) -> Proposal:
        session.cache.crop(state.base)
        return proposal

    # no `join` nor `leave`: the only rows are the session's own


KIND = DrafterKind(
    LayerSkipDrafter,
    "the transformer with sublayers left out",
    usual={"gamma": 3},
    trained=Trained("layer_skip"),
    raced=chains((3, 5), stop="confidence"),  # the paper's exit
)
