"""The plain loop, one token a target call: the baseline that everything is measured against, and the oracle of its
law.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from spear_spec.decoding.proposal import Verdict
from spear_spec.decoding.session import Session


def generate(session: Session) -> Iterator[Verdict]:
    """Decode until every row has ended; one Verdict of one token a running row for each target call.

    Raises:
        NumericsError: the model produced NaN or infinity.
    """
    while session.running:
        yield _step(session)


@torch.inference_mode()  # on the step, not on the generator: a mode must not leak out through a yield
def _step(session: Session) -> Verdict:
    law = session.laws()
    drawn = session.chance.categorical(law[:, 0], session.rows)
    count = len(drawn)
    return session.commit(Verdict(session.rows, [[token] for token in drawn], [0] * count, [0] * count))
