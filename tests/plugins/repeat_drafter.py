"""A drafter from outside: the last token goes on."""

from __future__ import annotations

from spear_spec.decoding import DrafterKind, Proposal, Session, Verdict


class RepeatDrafter:
    name, form = "repeat", "chain"

    def __init__(self, *, most: int = 8) -> None:
        """most: tokens that are drafted at most."""
        self.most = most

    def start(self, session: Session) -> None:
        return None

    def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
        return Proposal([session.tokens[row][-1:] * min(n, self.most) for row, n in zip(session.rows, limits)])

    def commit(self, session: Session, state: None, verdict: Verdict) -> None:
        pass


KIND = DrafterKind(RepeatDrafter, "the last token goes on", usual={"gamma": 2})
