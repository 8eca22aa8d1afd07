"""The speculative loop: a drafter runs ahead, the target scores the draft in one call, a verifier settles it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.proposal import Verdict
from spear_spec.decoding.session import Session
from spear_spec.decoding.verifiers.base import Verifier


def speculate(session: Session, drafter: Drafter, verifier: Verifier, gamma: int = 5) -> Iterator[Verdict]:
    """Decode until every row has ended; one Verdict for each target call (arXiv 2211.17192).

    Rows advance at their own rate. A row drafts at most gamma tokens, fewer where the cap is near.

    Raises:
        NumericsError: the model produced NaN or infinity.
    """
    if not session.running:
        return
    state = _start(session, drafter)
    while session.running:
        yield _step(session, drafter, verifier, state, gamma)


@torch.inference_mode()
def _start(session: Session, drafter: Drafter) -> Any:
    return drafter.start(session)


@torch.inference_mode()  # on the step, not on the generator: a mode must not leak out through a yield
def _step(session: Session, drafter: Drafter, verifier: Verifier, state: Any, gamma: int) -> Verdict:
    # the call itself adds one token, so a draft that reaches the cap would be thrown away
    limits = [min(gamma, left - 1) for left in session.remaining]
    proposal = drafter.propose(session, state, limits)
    laws = session.laws(proposal)
    verdict = session.commit(verifier.verify(proposal, laws, session.chance, session.rows))
    drafter.commit(session, state, verdict)
    return verdict
