"""Drafting from what the utterance itself has said so far: no weights, no chance, next to no time. The control arm."""

from __future__ import annotations

from typing import Protocol

from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.session import Session


class History(Protocol):
    """What is remembered of one utterance."""

    tokens: list[int]

    def push(self, token: int) -> None:
        """Take the next kept token."""
        ...

    def guess(self, limit: int) -> list[int]:
        """At most `limit` tokens that are likely to follow, none where nothing is known."""
        ...


class HistoryDrafter:
    """A chain of point masses for each row, from the row's own kept tokens; rows that know nothing draft nothing.

    A running row has kept no end token, so none is ever drafted.
    """

    form = "chain"

    def history(self) -> History:
        """What a row starts with."""
        raise NotImplementedError

    def start(self, session: Session) -> dict[int, History]:
        """By the session's row number, which stays while rows leave the batch."""
        return {row: self.history() for row in session.rows}

    def propose(self, session: Session, state: dict[int, History], limits: list[int]) -> Proposal:
        tokens = []
        for row, limit in zip(session.rows, limits):
            history, kept = state[row], session.tokens[row]
            for token in kept[len(history.tokens) :]:
                history.push(token)
            tokens.append(history.guess(limit))
        return Proposal(tokens)

    def admit(self, session: Session, state: dict[int, History], count: int) -> None:
        """So many rows have joined, at the session's last places."""
        for row in session.rows[-count:]:
            state[row] = self.history()

    def release(self, session: Session, state: dict[int, History], stay: list[int]) -> None:
        """Rows were cancelled."""
        for row in set(state) - set(session.rows):
            del state[row]

    def commit(self, session: Session, state: dict[int, History], verdict: Verdict) -> None:
        for row, ended in zip(verdict.rows, verdict.ended):
            if ended is not None:
                del state[row]
