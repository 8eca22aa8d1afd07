"""Drafting one token after the other: what every chain has in common, whoever says what comes next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spear_spec.decoding.drafters.adaptive import Stopping, staying
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.session import Session


@dataclass(kw_only=True)
class ChainState:
    """stopping: where rows stop drafting before gamma; None: they do not."""

    stopping: Stopping | None = None


class ChainDrafter:
    """Draws each token from a law of its own, up to gamma of them, or fewer where a rule says that more would be in
    vain.

    What a rule looks at (laws, tokens drawn so far, the past) is known before the next token is drawn, and a token that
    was drawn stays in the draft: the chain's length then tells nothing about its tokens and verification stays exact.
    """

    form = "chain"

    def begin(self, session: Session, state: Any) -> Tensor:
        """The draft's laws [B, V] after each row's newest kept token."""
        raise NotImplementedError

    def advance(self, session: Session, state: Any, tokens: Tensor) -> Tensor:
        """The laws [B, V] after these draft tokens [B, 1] (0 for rows that have stopped: what they get is not used)."""
        raise NotImplementedError

    def leave(self, session: Session, state: Any, stay: list[int]) -> None:
        """Only the rows at these places go on."""

    def join(self, session: Session, state: Any, places: list[int]) -> None:
        """Rows have joined at these places, the last ones."""

    def finish(self, session: Session, state: Any, proposal: Proposal) -> Proposal:
        """Add to the proposal what verification may use."""
        return proposal

    def propose(self, session: Session, state: Any, limits: list[int]) -> Proposal:
        rule: Stopping | None = state.stopping
        tokens: list[list[int]] = [[] for _ in limits]
        if max(limits) == 0:
            return Proposal(tokens)
        if rule is not None:
            limits = rule.limits(limits)
        model, laws = session.model, []
        alive = [place for place, limit in enumerate(limits) if limit > 0]
        law = self.begin(session, state)  # also where a rule lets nobody draft: settled tokens are read now or never
        while alive:
            if rule is not None:
                alive = rule.before(law, alive)
                if not alive:
                    break
            laws.append(law)
            everyone = len(alive) == len(limits)
            drawn = session.chance.categorical(
                law if everyone else law[alive], [session.rows[place] for place in alive]
            )
            for place, token in zip(alive, drawn):
                tokens[place].append(token)
            if rule is not None:
                alive = rule.after(law, alive, drawn)
            # nothing follows an end token: a row that drew one stops there
            alive = [
                place for place in alive if tokens[place][-1] != model.eos_id and len(tokens[place]) < limits[place]
            ]
            if not alive:
                break
            law = self.advance(
                session, state, torch.tensor([[row[-1] if row else 0] for row in tokens], device=model.device)
            )
        return self.finish(session, state, Proposal(tokens, torch.stack(laws, 1) if laws else None))

    def commit(self, session: Session, state: Any, verdict: Verdict) -> None:
        """Let the stopping rule learn, and rows that have ended leave."""
        if state.stopping is not None:
            state.stopping.commit(verdict)
        if any(verdict.ended):
            self.release(session, state, staying(verdict))

    def admit(self, session: Session, state: Any, count: int) -> None:
        """So many rows have joined, at the session's last places."""
        if state.stopping is not None:
            state.stopping.join(count)
        self.join(session, state, list(range(len(session.rows) - count, len(session.rows))))

    def release(self, session: Session, state: Any, stay: list[int]) -> None:
        """Only the rows that stood at these places go on."""
        if state.stopping is not None:
            state.stopping.leave(stay)
        self.leave(session, state, stay)
