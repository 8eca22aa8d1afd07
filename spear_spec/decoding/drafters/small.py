"""The small decoder on the target's memory and features, drafting a chain (EAGLE's scheme, arXiv 2401.15077, 2503.01840)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.sampling import probabilities
from spear_spec.decoding.session import Session
from spear_spec.models.draft_runner import DraftRunner, runner_for

if TYPE_CHECKING:
    from spear_spec.models.draft import DraftDecoder, DraftState


@dataclass
class SmallState:
    """The draft's cache and the length that its rows have committed (what lies behind was drafted)."""

    runner: DraftRunner
    draft: DraftState
    committed: list[int]


class SmallDrafter:
    """Reads settled tokens with the target's features of the positions that predicted them, then runs on its own output."""

    name = "small"

    def __init__(self, draft: DraftDecoder) -> None:
        self.draft = draft

    def start(self, session: Session) -> SmallState:
        session.model.feature_layers = self.draft.cfg.target_layers
        return SmallState(runner_for(self.draft, session.model), self.draft.start(session.memory), [0] * len(session.rows))

    def propose(self, session: Session, state: SmallState, limits: list[int]) -> Proposal:
        tokens: list[list[int]] = [[] for _ in limits]
        count = max(limits)
        if count == 0:
            return Proposal(tokens)
        model, runner, sampling = session.model, state.runner, session.sampling
        hidden = self._catch_up(session, state)
        laws = []
        alive = [place for place, limit in enumerate(limits) if limit > 0]
        while True:
            law = probabilities(runner.logits(hidden[:, 0]), sampling)
            laws.append(law)
            everyone = len(alive) == len(limits)
            drawn = session.chance.categorical(law if everyone else law[alive], [session.rows[place] for place in alive])
            for place, token in zip(alive, drawn):
                tokens[place].append(token)
            # nothing follows an end token: a row that drew one stops there
            alive = [place for place, token in zip(alive, drawn) if token != model.eos_id and len(tokens[place]) < limits[place]]
            if not alive:
                return Proposal(tokens, torch.stack(laws, 1))
            last = torch.tensor([[row[-1] if row else 0] for row in tokens], device=model.device)
            hidden = runner.step(last, hidden, state.draft)

    def _catch_up(self, session: Session, state: SmallState) -> Tensor:
        """Read the settled tokens; returns the hidden state [B, 1, D] at each row's last one."""
        fresh, device = session.fresh, session.model.device
        state.draft.cache.crop(state.committed)
        longest = max(len(row) for row in fresh)
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in fresh], device=device)
        if session.output is None:  # the start token was predicted by nothing
            features = torch.zeros(len(fresh), longest, self.draft.cfg.dim, dtype=session.model.dtype, device=device)
        else:
            features = self.draft.fuse_target([feature[:, :longest] for feature in session.output.features])
        hidden = state.runner.step(ids, features, state.draft)
        state.committed = [before + len(row) for before, row in zip(state.committed, fresh)]
        if any(len(row) != longest for row in fresh):  # padding was written behind the shorter rows
            state.draft.cache.crop(state.committed)
            index = torch.tensor([len(row) - 1 for row in fresh], device=device)
            return hidden[torch.arange(len(fresh), device=device), index][:, None]
        return hidden[:, -1:]

    def commit(self, session: Session, state: SmallState, verdict: Verdict) -> None:
        if any(verdict.ended):
            stay = [place for place, ended in enumerate(verdict.ended) if ended is None]
            if stay:
                state.draft.select(stay)
                state.committed = [state.committed[place] for place in stay]
