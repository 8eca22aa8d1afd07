"""Lossy rules: that they are, by how much, what they do hold, and where they become exact. Also: options and the
table."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import pytest
import torch

from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.verifiers import VERIFIERS, make_verifier, verifier_options
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import SAMPLINGS, Enumerating, walk
from spear_spec.exactness.rules import GREEDY, Laws, random_pair, tree_error, verify_rows

PLAIN = SAMPLINGS["plain"]
TINY = 1e-12
NEAR = torch.tensor(
    [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]], dtype=torch.float64
)  # tokens 0 and 1 are near, 2 is not, 3 ends


def double(law: list[float]) -> torch.Tensor:
    return torch.tensor(law, dtype=torch.float64)


def first_token_law(verifier: Any, p: list[float], q: list[float] | None, token: int = 0) -> dict[int, float]:
    """The law of the next token by enumeration, for one draft token from q (None: `token`, without chance)."""

    def run(chance: Enumerating) -> tuple[int, ...]:
        x = token if q is None else chance.categorical(double(q)[None], [0])[0]
        proposal = Proposal([[x]], None if q is None else double(q)[None, None])
        return (verifier.verify(proposal, double(p)[None, None].repeat(1, 2, 1), chance, [0]).tokens[0][0],)

    return {key[0]: weight for key, weight in walk(run).items()}


# --- lossy, by how much ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "form", "shape", "error"),
    [
        ("typical", "chain", "chain", 0.0589),
        ("typical", "points", "paths", 0.3890),
        ("tolerance", "chain", "chain", 0.0175),
        ("lenience", "chain", "chain", 0.0177),
        ("coarse", "chain", "chain", 0.0785),
    ],
)
def test_lossy_rules_change_the_law(name: str, form: str, shape: str, error: float) -> None:
    """error: the largest difference of any run of tokens from the target's law, as measured."""
    verifier = make_verifier(name, embedding=NEAR)
    assert not verifier.lossless
    assert "LOSSY" in (type(verifier).__doc__ or "")
    assert tree_error(verifier, PLAIN, "random", form, shape, vocab=4, seed=1) == pytest.approx(error, abs=1e-4)


@pytest.mark.parametrize("kind", ["random", "zeros", "right", "never"])
@pytest.mark.parametrize(
    ("name", "options"), [("tolerance", {"b": 0.0}), ("lenience", {"l": 1.0}), ("coarse", {"theta": 1.01})]
)
def test_at_the_exact_end_of_its_option_a_rule_is_exact(name: str, options: dict[str, float], kind: str) -> None:
    verifier = make_verifier(name, options, embedding=NEAR)
    for form in ("chain", "point_chain"):
        for sampling in ("plain", "top_p"):
            assert tree_error(verifier, SAMPLINGS[sampling], kind, form, "chain", vocab=4) < TINY


@pytest.mark.parametrize("form", sorted(VERIFIERS["typical"].forms))
def test_typical_is_exact_at_temperature_zero(form: str) -> None:
    assert tree_error(make_verifier("typical"), GREEDY, "random", form, "chain" if form == "chain" else "paths") < TINY


# --- what each does, by its formula ---------------------------------------------------------------------------------


@pytest.mark.parametrize("b", [0.1, 0.5, 1.0])
def test_tolerance_law(b: float) -> None:
    for seed in range(10):
        p, q = random_pair(seed)
        rest = [max(0.0, x - y) for x, y in zip(p, q)]
        taken = [y * min(1.0, min(1.0, x / y) + b) if y else 0.0 for x, y in zip(p, q)]
        law = [a + (1 - math.fsum(taken)) * r / math.fsum(rest) for a, r in zip(taken, rest)]
        got = first_token_law(make_verifier("tolerance", {"b": b}), p, q)
        assert [got.get(x, 0.0) for x in range(4)] == pytest.approx(law, abs=TINY)


@pytest.mark.parametrize("l", [0.8, 0.3])
def test_lenience_law_and_bound(l: float) -> None:  # noqa: E741
    """No token comes more often than p(x)/l: appendix A.5 of the paper."""
    for seed in range(10):
        p, q = random_pair(seed)
        rest = [max(0.0, x - y) for x, y in zip(p, q)]
        taken = [min(y, x / l) for x, y in zip(p, q)]
        law = [a + (1 - math.fsum(taken)) * r / math.fsum(rest) for a, r in zip(taken, rest)]
        got = first_token_law(make_verifier("lenience", {"l": l}), p, q)
        assert [got.get(x, 0.0) for x in range(4)] == pytest.approx(law, abs=TINY)
        assert all(got.get(x, 0.0) <= p[x] / l + TINY for x in range(4))


@pytest.mark.parametrize("options", [{}, {"eps": 0.2}, {"delta": 0.9, "eps": 1.0}])
def test_typical_accepts_exactly_the_tokens_of_the_criterion(options: dict[str, float]) -> None:
    eps, delta = options.get("eps", 0.09), options.get("delta", 0.3)
    seen = set()
    for seed in range(40):
        p, _ = random_pair(seed, 6)
        entropy = -math.fsum(x * math.log(x) for x in p if x > 0)
        for token in range(6):
            for parents in (None, [[-1]]):
                verdict = make_verifier("typical", options).verify(
                    Proposal([[token]], None, parents), double(p)[None, None].repeat(1, 2, 1), Enumerating([]), [0]
                )
                wanted = p[token] > min(eps, delta * math.exp(-entropy))
                assert verdict.num_accepted == [int(wanted)]
                seen.add((wanted, p[token] > eps))
    assert {wanted for wanted, _ in seen} == {True, False}
    if not options:
        assert {(True, True), (True, False)} <= seen, "the entropy never mattered"


def test_typical_takes_the_longest_path_and_the_first_of_equal_ones() -> None:
    flat = [0.25, 0.25, 0.25, 0.25, 0.0]  # all but token 4 are typical

    def path(tokens: list[int], parents: list[int]) -> list[int]:
        p = double(flat)[None, None].repeat(1, len(tokens) + 1, 1)
        verdict = make_verifier("typical").verify(Proposal([tokens], None, [parents]), p, Enumerating([]), [0])
        assert verdict.tokens[0][:-1] == [tokens[node] for node in verdict.paths[0]]
        return verdict.paths[0]

    assert path([0, 1, 2, 3], [-1, -1, 1, 0]) == [1, 2]
    assert path([0, 1, 2, 3, 0], [-1, -1, 1, 0, 2]) == [1, 2, 4]
    assert path([0, 1, 4, 3, 0], [-1, -1, 1, 0, 2]) == [0, 3]  # nothing is accepted behind a token that is not
    assert path([4, 4], [-1, 0]) == []


def groups(theta: float) -> list[list[float]]:
    """w(g given x) [G][V] of NEAR and the end token, by the definition."""
    size = len(NEAR) + 1
    holds = [[float(g == x) for x in range(size)] for g in range(size)]
    for g in range(size - 1):
        for x in range(size - 1):
            if float(torch.nn.functional.cosine_similarity(NEAR[g], NEAR[x], dim=0)) > theta:
                holds[g][x] = 1.0
    return [[holds[g][x] / math.fsum(line[x] for line in holds) for x in range(size)] for g in range(size)]


@pytest.mark.parametrize("theta", [0.05, 0.9, 0.999])
def test_coarse_law_of_the_drawn_group_is_exact(theta: float) -> None:
    """At one position, for tokens drawn from q and for tokens chosen without chance; the token's law is not the
    target's."""
    verifier: Any = make_verifier("coarse", {"theta": theta}, embedding=NEAR)
    worst = 0.0
    for seed in range(10):
        p, q = random_pair(seed)
        wanted = [math.fsum(p[x] * w for x, w in enumerate(line)) for line in groups(theta)]
        assert verifier.group_law(double(p)).tolist() == pytest.approx(wanted, abs=TINY)
        for token in (None, 0, 2):

            def run(
                chance: Enumerating, p: list[float] = p, q: list[float] = q, token: int | None = token
            ) -> tuple[int, ...]:
                x = chance.categorical(double(q)[None], [0])[0] if token is None else token
                return (verifier.decide(double(p), double(q) if token is None else None, x, chance, 0)[1],)

            law: dict[int | None, float] = defaultdict(float)
            for (group,), weight in walk(run).items():
                law[group] += weight
            assert law.pop(None, 0.0) < TINY
            assert [law.get(g, 0.0) for g in range(4)] == pytest.approx(wanted, abs=TINY)
        got = first_token_law(verifier, p, q)
        worst = max(worst, max(abs(got.get(x, 0.0) - p[x]) for x in range(4)))
    assert worst > 0.1 if theta < 0.99 else worst < TINY


def test_coarse_token_law() -> None:
    """sum_g w q min(1, P/Q) + the residual's groups, by the formula."""
    verifier = make_verifier("coarse", embedding=NEAR)
    w = groups(0.9)
    assert w[0][:2] == w[1][:2] == [0.5, 0.5]
    for seed in range(10):
        p, q = random_pair(seed)
        big_p, big_q = ([math.fsum(law[x] * line[x] for x in range(4)) for line in w] for law in (p, q))
        taken = [
            math.fsum(q[x] * w[g][x] * min(1.0, big_p[g] / big_q[g]) for g in range(4) if w[g][x] and big_q[g])
            for x in range(4)
        ]
        rest = [max(0.0, a - b) for a, b in zip(big_p, big_q)]
        left = (1 - math.fsum(taken)) / math.fsum(rest)
        law = [
            t + left * math.fsum(rest[g] * p[x] * w[g][x] / big_p[g] for g in range(4) if big_p[g])
            for x, t in enumerate(taken)
        ]
        got = first_token_law(verifier, p, q)
        assert [got.get(x, 0.0) for x in range(4)] == pytest.approx(law, abs=TINY)


def test_coarse_end_token_is_alone() -> None:
    """Even where all vectors are alike, the end token is never exchanged."""
    verifier: Any = make_verifier("coarse", {"theta": 0.5}, embedding=torch.ones(3, 4))
    assert verifier.group_law(double([0, 0, 0, 1])).tolist() == [0, 0, 0, 1]
    assert verifier.group_law(double([1, 0, 0, 0])).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])


@pytest.mark.parametrize("name", ["typical", "tolerance", "lenience", "coarse"])
def test_lossy_rules_take_ragged_batches(name: str) -> None:
    """A row's law does not depend on its neighbours (float32, no draft, short drafts)."""
    verifier = make_verifier(name, embedding=NEAR)
    laws = Laws(PLAIN, "random", 4, dtype=torch.float32)
    alone = walk(
        lambda chance: tuple(verify_rows(verifier, chance, laws, "chain", [(), (), (-1, 0)])[0].tokens[2]), watch=2
    )
    among = walk(
        lambda chance: tuple(verify_rows(verifier, chance, laws, "chain", [(-1, 0, 1), (-1,), (-1, 0)])[0].tokens[2]),
        watch=2,
    )
    assert alone == pytest.approx(among, abs=1e-6)


# --- the table and the options --------------------------------------------------------------------------------------


def test_table() -> None:
    exact = {"rejection", "block", "kseq", "recursive", "recursive_wor", "matching", "coupled"}
    assert set(VERIFIERS) == exact | {"typical", "tolerance", "lenience", "coarse"}
    for name, rule in VERIFIERS.items():
        assert rule.name == name
        assert rule.lossless == (name in exact)
        assert rule.forms <= {"chain", "iid", "wor", "points"}
        assert isinstance(make_verifier(name, embedding=NEAR), rule.rule)
    assert verifier_options("typical") == ("eps", "delta")
    assert verifier_options("coarse") == ("theta",)
    assert verifier_options("block") == ()


def test_options_of_others_are_left_alone() -> None:
    verifier: Any = make_verifier("typical", {"eps": 0.2, "b": 7, "tree": "x"})
    assert (verifier.eps, verifier.delta) == (0.2, 0.3)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("typical", {"eps": 0.0}),
        ("typical", {"eps": 1.5}),
        ("typical", {"delta": -0.1}),
        ("typical", {"delta": math.nan}),
        ("tolerance", {"b": -0.1}),
        ("tolerance", {"b": 1.1}),
        ("tolerance", {"b": "much"}),
        ("tolerance", {"b": True}),
        ("lenience", {"l": 0.0}),
        ("lenience", {"l": 1.2}),
        ("coarse", {"theta": 0}),
        ("coarse", {"theta": math.nan}),
    ],
)
def test_options_out_of_range_are_refused(name: str, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        make_verifier(name, options, embedding=NEAR)


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ConfigError, match="embedding"):
        make_verifier("coarse")
    for make in (make_verifier, verifier_options):
        with pytest.raises(ConfigError, match="guess"):
            make("guess")


def test_kseq_refuses_points_for_siblings() -> None:
    p = double([0.5, 0.3, 0.2])[None, None].repeat(1, 3, 1)
    with pytest.raises(ConfigError, match="recursive"):
        make_verifier("kseq").verify(Proposal([[0, 1]], None, [[-1, -1]]), p, Enumerating([]), [0])
