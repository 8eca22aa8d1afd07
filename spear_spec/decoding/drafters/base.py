"""What a drafter is."""

from __future__ import annotations

from typing import Any, Protocol

from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.session import Session


class Drafter(Protocol):
    """Guesses the next tokens. Holds weights only; what belongs to an utterance lives in its state.

    form: what it proposes, see `Verifier.forms`: "chain", "iid", "wor" or "points".
    """

    name: str
    form: str

    def start(self, session: Session) -> Any:
        """State for the rows of a session."""
        ...

    def propose(self, session: Session, state: Any, limits: list[int]) -> Proposal:
        """Tokens for each running row, at most limits[b] deep.

        A drafter of ours that `rests` may be told 0 for all, and drafts later as if it had been asked all the time.

        `session.fresh` has the tokens that were settled since the last call and `session.output` what the target
        computed when it settled them: its position i predicted fresh token i. Every random draw goes through
        `session.chance`, from a law made by `session.laws_of`, and that very law is what the proposal carries.
        """
        ...

    def commit(self, session: Session, state: Any, verdict: Verdict) -> None:
        """Take note of what was kept; rows with `verdict.ended` set have left the session's batch."""
        ...


class Joining(Protocol):
    """What a drafter has as well, unless its state is None: rows that come and go between the calls above."""

    def admit(self, session: Session, state: Any, count: int) -> None:
        """So many rows have joined, at the session's last places; `session.fresh` has their start (and prefix)."""
        ...

    def release(self, session: Session, state: Any, stay: list[int]) -> None:
        """Rows were cancelled: only those that stood at these places go on, in this order."""
        ...
