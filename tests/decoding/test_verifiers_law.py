"""Exact verifiers leave the target's law as it is: every form of draft that a rule declares, enumerated in float64."""

from __future__ import annotations

import pytest
import torch

from spear_spec.decoding.verifiers import VERIFIERS, make_verifier
from spear_spec.exactness.oracles import DRAFTS
from spear_spec.exactness.rules import ALL_SAMPLINGS, SHAPES, tree_error

EXACT = [name for name, rule in VERIFIERS.items() if rule.lossless]
# "chain" is tested with tokens drawn from laws and with tokens chosen without chance
CASES = [(name, form) for name in EXACT for form in sorted(VERIFIERS[name].forms | {"point_chain"})]
TREES = [case for case in CASES if case[1] not in ("chain", "point_chain")]
TINY = 1e-12


def shapes(form: str) -> list[str]:
    chains = ("empty", "one", "chain")
    return [shape for shape in SHAPES if shape in chains or form not in ("chain", "point_chain")]


def main_shape(form: str) -> str:
    return "chain" if form in ("chain", "point_chain") else "paths"


@pytest.mark.parametrize("kind", DRAFTS)
@pytest.mark.parametrize(("name", "form"), CASES)
def test_law_under_every_sampling(name: str, form: str, kind: str) -> None:
    verifier = make_verifier(name)
    errors = {
        key: tree_error(verifier, sampling, kind, form, main_shape(form)) for key, sampling in ALL_SAMPLINGS.items()
    }
    assert max(errors.values()) < TINY, errors


@pytest.mark.parametrize("kind", ["random", "zeros"])
@pytest.mark.parametrize(("name", "form"), CASES)
def test_law_of_every_shape(name: str, form: str, kind: str) -> None:
    verifier = make_verifier(name)
    errors = {
        shape: tree_error(
            verifier, ALL_SAMPLINGS["temperature" if kind == "zeros" else "plain"], kind, form, shape, seed=1
        )
        for shape in shapes(form)
    }
    assert max(errors.values()) < TINY, errors


@pytest.mark.parametrize(("name", "form"), CASES)
def test_law_where_the_draft_stops_behind_a_drawn_token(name: str, form: str) -> None:
    """Lengths that depend on the drawn tokens: nothing is drafted behind the end token (the last) or behind token 0."""
    verifier = make_verifier(name)
    for stop in (2, 0):
        for shape in (main_shape(form), *([] if main_shape(form) == "chain" else ["late"])):
            assert tree_error(verifier, ALL_SAMPLINGS["plain"], "random", form, shape, stop=stop, seed=2) < TINY


@pytest.mark.parametrize("form", ["chain", "point_chain"])
@pytest.mark.parametrize("name", EXACT)
def test_law_of_longer_chains(name: str, form: str) -> None:
    """Four tokens of a vocabulary of two: block's middle terms and a run that holds an end token and goes on behind
    it."""
    for kind in ("random", "right"):
        assert (
            tree_error(make_verifier(name), ALL_SAMPLINGS["plain"], kind, form, (-1, 0, 1, 2), vocab=2, seed=5) < TINY
        )


@pytest.mark.parametrize(("name", "form"), TREES)
def test_law_of_wider_trees(name: str, form: str) -> None:
    """Four siblings of a vocabulary of four, equal ones among them where they are drawn with replacement."""
    assert tree_error(make_verifier(name), ALL_SAMPLINGS["plain"], "random", form, (-1, -1, -1, -1), vocab=4) < TINY


@pytest.mark.parametrize("name", ["recursive", "recursive_wor", "matching"])
@pytest.mark.parametrize("kind", ["random", "right"])
def test_law_of_equal_point_masses(name: str, kind: str) -> None:
    """The same token offered twice, and children behind either of the two."""
    for shape in ((-1, -1, -1), (-1, -1, 0, 1), (-1, -1, -1, -1, 1, 3)):
        assert tree_error(make_verifier(name), ALL_SAMPLINGS["plain"], kind, "points", shape, repeat=2) < TINY


@pytest.mark.parametrize("others", [["chain", "empty"], ["one", "chain", "chain"]])
@pytest.mark.parametrize("name", EXACT)
def test_law_of_one_row_among_chains(name: str, others: list[str]) -> None:
    """Neighbours with other drafts, shorter, longer or none: each row's law is its own."""
    for form in ("chain", "point_chain"):
        for shape in ("empty", "one", "chain"):
            assert tree_error(make_verifier(name), ALL_SAMPLINGS["plain"], "random", form, shape, others=others) < TINY


@pytest.mark.parametrize(("name", "form"), TREES)
def test_law_of_one_row_among_trees(name: str, form: str) -> None:
    for others in (["ragged", "empty"], ["pair", "late", "one"]):
        for shape in ("empty", "pair", "paths"):
            assert tree_error(make_verifier(name), ALL_SAMPLINGS["plain"], "random", form, shape, others=others) < TINY


@pytest.mark.parametrize(("name", "form"), CASES)
def test_law_in_single_precision(name: str, form: str) -> None:
    """float32, as in production: no further off than its rounding."""
    for kind in ("random", "right"):
        assert (
            tree_error(make_verifier(name), ALL_SAMPLINGS["top_p"], kind, form, main_shape(form), dtype=torch.float32)
            < 1e-6
        )
