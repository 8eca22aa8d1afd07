"""What the papers prove of their rules, as exact expectations by enumeration over random laws."""

from __future__ import annotations

import math

import pytest
import torch

from spear_spec.decoding.verifiers import kseq, make_verifier
from spear_spec.exactness.oracles import SAMPLINGS
from spear_spec.exactness.rules import Laws, expected_accepted, random_pair, swapped, tree_error

PLAIN = SAMPLINGS["plain"]
TINY = 1e-12


def beta(p: list[float], q: list[float], g: float) -> float:
    """The chance that one draft is accepted at threshold g."""
    return math.fsum(min(b, a / g) for a, b in zip(p, q))


def alpha(p: list[float], q: list[float], g: float, k: int) -> float:
    """The chance that one of k drafts is."""
    return 1 - (1 - beta(p, q, g)) ** k


class Fixed(Laws):
    """The same p and q at every place."""

    def __init__(self, p: list[float], q: list[float]) -> None:
        super().__init__(PLAIN, "fixed", len(p))
        self.p, self.q = p, torch.tensor(q, dtype=torch.float64)

    def target(self, row: int, prefix: tuple[int, ...]) -> list[float]:
        return self.p

    def library(self, row: int, prefix: tuple[int, ...]) -> torch.Tensor:
        return torch.tensor(self.p, dtype=torch.float64)

    def draft(self, row: int, prefix: tuple[int, ...]) -> torch.Tensor:
        return self.q


@pytest.mark.parametrize("kind", ["random", "zeros", "right", "never"])
def test_block_accepts_at_least_as_many_as_rejection(kind: str) -> None:
    gains = []
    for seed in range(6):
        laws = Laws(PLAIN, kind, 3, seed)
        gains.append(
            expected_accepted(make_verifier("block"), laws, "chain", (-1, 0, 1))
            - expected_accepted(make_verifier("rejection"), laws, "chain", (-1, 0, 1))
        )
    assert min(gains) > -TINY
    if kind in ("random", "zeros"):
        assert max(gains) > 0.01, "nothing gained: this is not block verification"


def test_block_equals_rejection_on_one_token() -> None:
    for seed in range(20):
        laws = Fixed(*random_pair(seed))
        assert expected_accepted(make_verifier("block"), laws, "chain", "one") == pytest.approx(
            expected_accepted(make_verifier("rejection"), laws, "chain", "one"), abs=TINY
        )


@pytest.mark.parametrize("k", [2, 3])
def test_kseq_accepts_at_least_as_many_as_one_draft(k: int) -> None:
    gains = []
    for seed in range(12):
        laws = Fixed(*random_pair(seed, 3))
        one = expected_accepted(make_verifier("kseq"), laws, "chain", "one")
        many = expected_accepted(make_verifier("kseq"), laws, "iid", (-1,) * k)
        assert one == pytest.approx(expected_accepted(make_verifier("rejection"), laws, "chain", "one"), abs=TINY)
        gains.append(many - one)
    assert min(gains) > -TINY
    assert max(gains) > 0.05


@pytest.mark.parametrize("k", [2, 3])
def test_kseq_acceptance_is_the_formulas(k: int) -> None:
    """1 - (1 - beta(gamma*))^k at one position, beta by its definition."""
    for seed in range(12):
        p, q = random_pair(seed, 3)
        gamma, _ = kseq.threshold(torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64), k)
        assert expected_accepted(make_verifier("kseq"), Fixed(p, q), "iid", (-1,) * k) == pytest.approx(
            alpha(p, q, gamma, k), abs=TINY
        )


@pytest.mark.parametrize("k", [2, 3, 8])
def test_kseq_threshold_is_the_best_valid_one(k: int) -> None:
    """No threshold of a fine grid whose residual has no negative weights accepts more, and gamma*'s own has none."""
    inside = 0
    for seed in range(60):
        p, q = random_pair(seed, 5)
        gamma, b = kseq.threshold(torch.tensor(p, dtype=torch.float64), torch.tensor(q, dtype=torch.float64), k)
        assert 1 <= gamma <= k
        assert b == pytest.approx(beta(p, q, gamma), abs=TINY)
        best = alpha(p, q, gamma, k)
        assert best <= gamma * b + TINY  # valid
        inside += 1.001 < gamma < k - 0.001
        for step in range(401):
            g = 1 + (k - 1) * step / 400
            if alpha(p, q, g, k) <= g * beta(p, q, g):
                assert alpha(p, q, g, k) <= best + TINY
    assert inside > 20, "gamma* lies at the ends only: the check is empty"


def forced(g: float):
    return lambda p, q, k: (g, beta(p.tolist(), q.tolist(), g))


@pytest.mark.parametrize("k", [2, 3])
def test_kseq_forced_to_one_breaks_the_law(k: int) -> None:
    with swapped(kseq, "threshold", forced(1.0)):
        assert tree_error(make_verifier("kseq"), PLAIN, "random", "iid", (-1,) * k) > 1e-3


@pytest.mark.parametrize("k", [2, 3])
def test_kseq_forced_to_k_keeps_the_law_and_accepts_less(k: int) -> None:
    laws = Laws(PLAIN, "random", 3)
    best = expected_accepted(make_verifier("kseq"), laws, "iid", (-1,) * k)
    with swapped(kseq, "threshold", forced(float(k))):
        assert tree_error(make_verifier("kseq"), PLAIN, "random", "iid", (-1,) * k) < TINY
        assert expected_accepted(make_verifier("kseq"), laws, "iid", (-1,) * k) < best - 1e-3


@pytest.mark.parametrize("kind", ["random", "zeros", "right"])
def test_matching_accepts_no_more_than_rejection(kind: str) -> None:
    losses = []
    for seed in range(6):
        laws = Laws(PLAIN, kind, 3, seed)
        losses.append(
            expected_accepted(make_verifier("rejection"), laws, "chain", "chain")
            - expected_accepted(make_verifier("matching"), laws, "chain", "chain")
        )
    assert min(losses) > -TINY
    assert max(losses) > 0.05


def test_matching_equals_recursive_on_one_point_mass() -> None:
    """Where the draft is no law, looking up the target's own draw loses nothing."""
    for name in ("rejection", "recursive", "block", "kseq"):
        laws = Laws(PLAIN, "random", 4)
        assert expected_accepted(make_verifier(name), laws, "point_chain", "one") == pytest.approx(
            expected_accepted(make_verifier("matching"), laws, "point_chain", "one"), abs=TINY
        )


@pytest.mark.parametrize("form", ["iid", "wor"])
def test_another_sibling_never_costs_acceptance(form: str) -> None:
    name = "recursive" if form == "iid" else "recursive_wor"
    for seed in range(12):
        laws = Fixed(*random_pair(seed))
        counts = [expected_accepted(make_verifier(name), laws, form, (-1,) * k) for k in (1, 2, 3)]
        assert counts[0] == pytest.approx(expected_accepted(make_verifier("rejection"), laws, "chain", "one"), abs=TINY)
        assert counts[0] <= counts[1] + TINY and counts[1] <= counts[2] + TINY


def test_all_tokens_without_replacement_are_always_accepted() -> None:
    """Siblings that cover the vocabulary: one of them is the token, nothing is left to recover."""
    for seed in range(8):
        laws = Laws(PLAIN, "random", 3, seed)
        for form in ("wor", "points"):
            assert expected_accepted(make_verifier("recursive_wor"), laws, form, "three") == pytest.approx(
                1.0, abs=TINY
            )
