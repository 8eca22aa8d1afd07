"""No draft: the speculative loop then is the autoregressive one."""

from __future__ import annotations

from spear_spec.decoding.kinds import DrafterKind
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.session import Session


class NoDrafter:
    name = "none"
    form = "chain"

    def start(self, session: Session) -> None:
        return None

    def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
        return Proposal([[] for _ in limits])

    def commit(self, session: Session, state: None, verdict: Verdict) -> None:
        return None


KIND = DrafterKind(NoDrafter, "nobody: plain autoregressive decoding", raced=())  # the loop is in every race
