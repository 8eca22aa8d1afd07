"""The law of whole utterances, every branch of the loop's chance enumerated, against the oracle's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spear_spec.config import SamplingConfig
from spear_spec.decoding import Session, make_verifier, speculate
from spear_spec.decoding.request import encode
from spear_spec.exactness.oracles import UncachedTarget, distance, walk


def law_error(
    model: Any,
    texts: Sequence[list[int]],
    target: UncachedTarget,
    drafter: Any,
    verifier: str,
    sampling: SamplingConfig,
    caps: Sequence[int],
    watch: int,
) -> float:
    """Largest error of the law of one row among rows with these caps; target: the oracle of its text."""
    memory, rule = encode(model, list(texts[: len(caps)])), make_verifier(verifier)

    def run(chance: Any) -> tuple[int, ...]:
        session = Session(model, memory, sampling, chance=chance, max_tokens=list(caps))
        for _ in speculate(session, drafter, rule, 2):
            pass
        return tuple(session.tokens[watch])

    return distance(walk(run, watch, 3), target.sequences(caps[watch]))
