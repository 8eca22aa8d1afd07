"""A test of the tests: each well-known mistake of a speculative decoder, put in on purpose, must make a check fail.

The checks are those of `test_exact_law` and `test_loop`, called on the broken code. A fault that slips through means
that the checks have gone blind.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from spear_spec.config import SamplingConfig
from spear_spec.decoding import make_drafter, make_verifier, session, speculate
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.verifiers import rejection
from spear_spec.decoding.verifiers.rejection import RejectionVerifier
from spear_spec.exactness.oracles import (
    SAMPLINGS,
    TableDrafter,
    cache_error,
    draft_laws,
    greedy_flips,
    in_parts,
    loop_error,
    sampled_pvalues,
    spoil_target_laws,
    tiny_draft,
    verifier_error,
)
from spear_spec.models.memory import Memory
from spear_spec.nn.cache import KVCache

Patch = pytest.MonkeyPatch
FILTERED = SAMPLINGS["top_p"]


def enumerated_verifier() -> bool:
    """Whether the verifier's enumerated law is right."""
    return all(
        verifier_error(make_verifier("rejection"), SAMPLINGS[s], "random") < 1e-9 for s in ("plain", "top_p", "top_k")
    )


def enumerated_loop(batch: int = 1, sampling: SamplingConfig = SAMPLINGS["plain"]) -> bool:
    """Whether the loop's enumerated law is right, of a row that outlives its neighbours."""
    error = loop_error(
        lambda targets: TableDrafter(draft_laws("random", targets)),
        make_verifier("rejection"),
        sampling,
        batch=batch,
        watch=batch - 1,
        caps=[1, 2, 3, 3][-batch:],
    )
    return error < 1e-9


def sampled_loop(batch: int = 1) -> bool:
    """Whether the sampled law is right, with the real draft."""

    def run(s: session.Session):
        return speculate(s, make_drafter("small", tiny_draft(s.model)), make_verifier("rejection"), 3)

    values = sampled_pvalues(run, SamplingConfig(temperature=0.9, top_p=0.95), batch=batch, rounds=250 // batch, cap=3)
    return min(values) * len(values) > 0.001


def greedy() -> bool:
    return (
        greedy_flips(
            lambda s: speculate(s, make_drafter("small", tiny_draft(s.model)), make_verifier("rejection"), 4), batch=4
        )
        == 0
    )


def skip_the_residual(patch: Patch) -> None:
    in_parts(patch)
    patch.setattr(rejection, "judged", lambda *_: None)  # the form on lists, not C
    patch.setattr(rejection, "residual", lambda p, q, token: p)


def filter_the_residual_again(patch: Patch) -> None:
    right = rejection.residual
    patch.setattr(
        rejection,
        "residual",
        lambda p, q, token: session.probabilities(right(p, q, token).clamp_min(1e-300).log(), FILTERED),
    )


def filter_the_target_again(patch: Patch) -> None:
    right = session.probabilities
    spoil_target_laws(patch, lambda logits, s: right(right(logits, s).clamp_min(1e-300).log(), s))


def target_before_the_filter(patch: Patch) -> None:
    """q after the filter but p before."""
    right = session.probabilities
    spoil_target_laws(
        patch,
        lambda logits, s: right(logits, SamplingConfig(temperature=s.temperature, top_p=1.0, guidance=s.guidance)),
    )


def ratio_before_the_filter(patch: Patch) -> None:
    """q after the filter but p before, in the acceptance alone: the residual still has the right p."""
    right = rejection._ratios
    patch.setattr(rejection, "_ratios", lambda proposal, p: right(proposal, 0.9 * p + 0.1 / p.shape[-1]))


def bonus_from_the_draft(patch: Patch) -> None:
    right = RejectionVerifier.verify

    def verify(
        self: RejectionVerifier, proposal: Proposal, target_probs: torch.Tensor, chance: object, rows: list[int]
    ):
        broken = target_probs.clone()
        if proposal.probs is not None and proposal.longest:
            broken[:, -1] = proposal.probs[:, -1]
        return right(self, proposal, broken, chance, rows)

    patch.setattr(RejectionVerifier, "verify", verify)


def forget_to_crop(patch: Patch) -> None:
    patch.setattr(KVCache, "crop", lambda self, lengths: None)


def crop_one_too_few(patch: Patch) -> None:
    """The rejected token's keys stay, and the row goes on behind them."""
    right = KVCache.crop
    patch.setattr(
        KVCache,
        "crop",
        lambda self, lengths: right(self, [min(new + 1, old) for new, old in zip(lengths, self.lengths)]),
    )


def crop_all_rows_alike(patch: Patch) -> None:
    right = KVCache.crop
    patch.setattr(KVCache, "crop", lambda self, lengths: right(self, [min(lengths)] * len(lengths)))


def keep_another_rows_cache(patch: Patch) -> None:
    """Rows leave, but the caches of those that left stay in their place."""
    right = KVCache.select
    patch.setattr(KVCache, "select", lambda self, rows: right(self, list(range(len(rows)))))


def keep_another_rows_text(patch: Patch) -> None:
    right = Memory.select
    patch.setattr(Memory, "select", lambda self, rows: right(self, list(range(len(rows)))))


def no_tree_rollback(patch: Patch) -> None:
    patch.setattr(
        KVCache,
        "keep",
        lambda self, base, path: setattr(self, "lengths", [b + int((p >= 0).sum()) for b, p in zip(base, path)]),
    )


FAULTS: list[tuple[Callable[[Patch], None], Callable[[], bool]]] = [
    (skip_the_residual, enumerated_verifier),
    (skip_the_residual, enumerated_loop),
    (skip_the_residual, sampled_loop),
    (filter_the_residual_again, enumerated_verifier),
    (filter_the_target_again, lambda: enumerated_loop(sampling=FILTERED)),
    (target_before_the_filter, lambda: enumerated_loop(sampling=FILTERED)),
    (ratio_before_the_filter, enumerated_verifier),
    (ratio_before_the_filter, lambda: enumerated_loop(sampling=FILTERED)),
    (bonus_from_the_draft, enumerated_verifier),
    (bonus_from_the_draft, enumerated_loop),
    (forget_to_crop, enumerated_loop),
    (forget_to_crop, greedy),
    (forget_to_crop, lambda: cache_error(0, trees=False) < 1e-9),
    (crop_one_too_few, enumerated_loop),
    (crop_one_too_few, lambda: cache_error(0, trees=False) < 1e-9),
    (crop_all_rows_alike, lambda: enumerated_loop(4)),
    (keep_another_rows_cache, lambda: enumerated_loop(4)),
    (keep_another_rows_text, lambda: enumerated_loop(4)),
    (keep_another_rows_cache, lambda: cache_error(0) < 1e-9),
    (no_tree_rollback, lambda: cache_error(0) < 1e-9),
]


@pytest.mark.parametrize(("fault", "check"), FAULTS, ids=lambda f: f.__name__)
def test_a_seeded_fault_is_caught(
    fault: Callable[[Patch], None], check: Callable[[], bool], monkeypatch: Patch
) -> None:
    fault(monkeypatch)
    try:
        fine = check()
    except (AssertionError, ValueError, IndexError, RuntimeError):
        fine = False  # it broke down, which is noticed as well
    assert not fine, f"{fault.__name__} went unnoticed"


@pytest.mark.parametrize(
    "check",
    [
        enumerated_verifier,
        enumerated_loop,
        lambda: enumerated_loop(4),
        sampled_loop,
        lambda: enumerated_loop(sampling=FILTERED),
        greedy,
        lambda: cache_error(0) < 1e-9,
    ],
)
def test_the_same_checks_pass_without_a_fault(check: Callable[[], bool]) -> None:
    assert check()
