"""The law of the speculative loop, enumerated: every branch of its chance, in float64, against the target's own law."""

from __future__ import annotations

import pytest
import torch

from spear_spec.decoding.drafters import make_drafter
from spear_spec.decoding.verifiers import VERIFIERS, make_verifier
from spear_spec.exactness.oracles import DRAFTS, SAMPLINGS, TableDrafter, draft_laws, loop_error, verifier_error


@pytest.mark.parametrize("name", [name for name, rule in VERIFIERS.items() if rule.lossless])
@pytest.mark.parametrize("kind", DRAFTS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_verifier_law_is_the_targets(name: str, kind: str, sampling: str) -> None:
    assert verifier_error(make_verifier(name), SAMPLINGS[sampling], kind) < 1e-12


def test_verifier_law_long_draft() -> None:
    assert verifier_error(make_verifier("rejection"), SAMPLINGS["all"], "random", vocab=3, gamma=4, seed=5) < 1e-12


@pytest.mark.parametrize("kind", DRAFTS)
@pytest.mark.parametrize("sampling", ["plain", "top_p", "top_k", "guidance"])
def test_loop_law_is_the_targets(kind: str, sampling: str) -> None:
    error = loop_error(
        lambda targets: TableDrafter(draft_laws(kind, targets)), make_verifier("rejection"), SAMPLINGS[sampling]
    )
    assert error < 1e-9


@pytest.mark.parametrize("watch", [0, 2])
def test_loop_law_in_a_ragged_batch(watch: int) -> None:
    """Rows of different texts, drafts and caps: the law of each is its own."""
    caps = [3, 1, 3, 2, 3, 3, 2, 1]
    error = loop_error(
        lambda targets: TableDrafter(draft_laws("random", targets)),
        make_verifier("rejection"),
        SAMPLINGS["plain"],
        batch=8,
        watch=watch,
        caps=caps,
    )
    assert error < 1e-9


def test_loop_without_a_draft() -> None:
    assert loop_error(lambda targets: make_drafter("none"), make_verifier("rejection"), SAMPLINGS["all"], cap=4) < 1e-9


def test_point_mass_proposals() -> None:
    """probs None: tokens that no law produced (lookup drafts)."""
    from spear_spec.decoding.proposal import Proposal
    from spear_spec.exactness.oracles import walk

    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.0, 0.9], [0.2, 0.2, 0.6]], dtype=torch.float64)
    law = walk(
        lambda chance: tuple(make_verifier("rejection").verify(Proposal([[1, 2]]), p[None], chance, [0]).tokens[0])
    )
    expected = {
        (0,): 0.5,
        (2,): 0.2,
        (1, 0): 0.3 * 0.1,
        (1, 2, 0): 0.27 * 0.2,
        (1, 2, 1): 0.27 * 0.2,
        (1, 2, 2): 0.27 * 0.6,
    }
    assert law == pytest.approx(expected, abs=1e-12)
