"""Chain rules on tensors alone: the list form token for token, of the right law, and without a word to the host."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from spear_spec.decoding.chance import Chance
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.verifiers import VERIFIERS, make_verifier
from spear_spec.decoding.verifiers.block import BlockVerifier
from spear_spec.decoding.verifiers.rejection import RejectionVerifier
from spear_spec.decoding.verifiers.tensors import Settled, uniforms_for

NEAR = torch.randn(23, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
RULES: dict[str, dict[str, Any]] = {
    "rejection": {}, "block": {}, "matching": {}, "coupled": {}, "tolerance": {"b": 0.2}, "lenience": {"l": 0.6},
    "typical": {"eps": 0.2, "delta": 0.6}, "coarse": {"theta": 0.5},
}  # fmt: skip


class Given(Chance):
    """Chance that hands out uniforms which were drawn before, as `Uniforms` uses its own."""

    def __init__(self, uniforms: Tensor) -> None:
        self.left = [list(reversed(row)) for row in uniforms.tolist()]

    def bernoulli(self, p: float, row: int) -> bool:
        return self.left[row].pop() < p

    def categorical(self, weights: Tensor, rows: Sequence[int]) -> list[int]:
        table = weights.cumsum(-1, dtype=torch.float64)
        drawn = [
            int(torch.searchsorted(line, line[-1] * self.left[row].pop(), right=True)) for line, row in zip(table, rows)
        ]
        assert all(float(line[token]) > 0 for line, token in zip(weights, drawn))
        return drawn


def rule(name: str) -> Any:
    return make_verifier(name, RULES[name], embedding=NEAR)


def laws(shape: tuple[int, ...], dtype: torch.dtype, chance: torch.Generator) -> Tensor:
    """Laws at random: flat, sharp, one-hot, with zeros among them."""
    logits = torch.randn(*shape, generator=chance, dtype=torch.float64)
    logits *= torch.tensor([0.3, 1.0, 4.0, 200.0])[torch.randint(4, (*shape[:-1], 1), generator=chance)]
    cut = (
        torch.rand(*shape, generator=chance)
        < torch.tensor([0.0, 0.0, 0.6])[torch.randint(3, (*shape[:-1], 1), generator=chance)]
    )
    cut.scatter_(-1, logits.argmax(-1, keepdim=True), False)
    return logits.masked_fill(cut, -torch.inf).to(dtype).softmax(-1)


def case(
    seed: int, batch: int, gamma: int, dtype: torch.dtype, points: bool, vocab: int = 24
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor]:
    """tokens, counts, q, p and uniforms: ragged, padding filled with NaN and with ids that are none."""
    chance = torch.Generator().manual_seed(seed)
    p, q = (laws((batch, gamma + extra, vocab), dtype, chance) for extra in (1, 0))
    mixed = torch.rand(batch, gamma, 1, generator=chance) < 0.4  # drafts that are nearly, or exactly, right
    q = torch.where(mixed, (p[:, :gamma] + torch.rand(1, generator=chance) * q).to(dtype), q)
    q = q / q.sum(-1, keepdim=True)
    q = torch.where(torch.rand(batch, gamma, 1, generator=chance) < 0.2, p[:, :gamma], q)
    tokens = (
        q.double().flatten(0, 1).multinomial(1, generator=chance).view(batch, gamma)
        if gamma
        else p.new_zeros(batch, 0, dtype=torch.long)
    )
    foreign = torch.rand(batch, gamma, generator=chance) < 0.05  # tokens that their law cannot have drawn, among others
    tokens = torch.where(foreign, torch.randint(vocab, (batch, gamma), generator=chance), tokens)
    counts = torch.randint(gamma + 1, (batch,), generator=chance)
    counts[seed % batch] = gamma
    behind = torch.arange(gamma) >= counts[:, None]
    p = p.masked_fill(torch.cat([torch.zeros(batch, 1, dtype=torch.bool), behind], 1)[..., None], math.nan)
    q = q.masked_fill(behind[..., None], math.nan)
    tokens = tokens.masked_fill(behind, -1 if seed % 2 else 7)
    uniforms = torch.rand(batch, uniforms_for(gamma), generator=chance, dtype=torch.float64)
    return tokens, counts, None if points else q, p, uniforms


def listed(verifier: Any, tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, uniforms: Tensor) -> Settled:
    """What the list form settles with the same uniforms."""
    drafts = [row[:count] for row, count in zip(tokens.tolist(), counts.tolist())]
    chance = Given(uniforms)
    verdict = verifier.verify(Proposal(drafts, q), p, chance, range(len(drafts)))
    width = tokens.shape[1] + 1
    padded = torch.tensor([[*row, *[-1] * (width - len(row))] for row in verdict.tokens])
    used = [uniforms.shape[1] - len(left) for left in chance.left]
    return Settled(padded, torch.tensor(verdict.num_accepted), torch.tensor(used))


def same(one: Settled, other: Settled) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other))


def test_every_rule_of_chains_alone_settles() -> None:
    """`kseq` and the recursive rules are made for siblings; of chains they judge as `rejection` does."""
    chains = {name for name, kind in VERIFIERS.items() if kind.forms == {"chain"}}
    settling = {name for name, kind in VERIFIERS.items() if hasattr(kind.rule, "settle")}
    assert chains <= settling == RULES.keys()


@pytest.mark.parametrize("points", [False, True], ids=["laws", "points"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", RULES)
def test_it_is_the_list_form(name: str, dtype: torch.dtype, points: bool) -> None:
    """Token for token, and as many uniforms used; batches of 1 to 8, drafts of 0 to 12 tokens."""
    verifier = rule(name)
    seen: dict[str, set[int]] = defaultdict(set)
    for seed in range(200):
        batch, gamma = seed % 8 + 1, seed // 8 % 13
        given = case(seed, batch, gamma, dtype, points)
        got, wanted = verifier.settle(*given), listed(verifier, *given)
        assert same(got, wanted), (seed, got, wanted)
        assert [part.dtype for part in got] == [torch.int64] * 3
        for row, count in enumerate(given[1].tolist()):
            seen["accepted"].add(int(got.accepted[row]))
            seen["rejected"].add(count - int(got.accepted[row]))
    assert len(seen["accepted"]) > 3
    assert len(seen["rejected"]) > 3


@pytest.mark.parametrize("name", RULES)
def test_it_is_the_list_form_on_a_vocabulary_as_it_is(name: str) -> None:
    """513 tokens: sums are added up in another order than over a few."""
    verifier = make_verifier(
        name, RULES[name], embedding=torch.randn(512, 4, generator=torch.Generator().manual_seed(1))
    )
    for seed in range(12):
        given = case(seed, seed % 8 + 1, 10, torch.float32, points=False, vocab=513)
        assert same(verifier.settle(*given), listed(verifier, *given))


# --- its law --------------------------------------------------------------------------------------------------------

P = [[Fraction(n, 6) for n in line] for line in ([1, 2, 3], [3, 2, 1], [0, 4, 2])]
Q = [[Fraction(n, 6) for n in line] for line in ([3, 2, 1], [1, 4, 1], [2, 0, 4])]
CELLS = 60  # every number from 1/1 to 6/6 is a multiple of 1/60, and so is each threshold here


def settled_law(
    verifier: Any, p: Sequence[Sequence[Fraction]], q: Sequence[Sequence[Fraction]], dtype: torch.dtype = torch.float64
) -> dict[tuple[int, ...], float]:
    """The exact law of what is settled, one draft token: every draft, and the middle of every cell of the uniforms.

    What is settled changes at multiples of 1/CELLS only, so a cell's middle stands for the cell. p: after the prefix,
    then after each token. Only the first two uniforms that a row uses are walked through; rules that use more are
    walked through four of them in coarser cells.
    """
    used = 4 if verifier.name == "coarse" else 2
    cells = 12 if used == 4 else CELLS
    middle = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    uniforms = torch.cartesian_prod(*[middle] * used)
    if used == 2:
        uniforms = torch.cat([uniforms, torch.full((len(uniforms), 2), 0.5, dtype=torch.float64)], 1)
    rows = len(uniforms)
    law: dict[tuple[int, ...], float] = defaultdict(float)
    for token, weight in enumerate(q[0]):
        if weight == 0:
            continue
        target = torch.tensor([[float(x) for x in line] for line in (p[0], p[1])], dtype=dtype)
        draft = torch.tensor([[float(x) for x in q[0]]], dtype=dtype)
        got = verifier.settle(
            torch.full((rows, 1), token),
            torch.ones(rows, dtype=torch.long),
            draft.expand(rows, 1, -1),
            target.expand(rows, 2, -1),
            uniforms,
        )
        assert int(got.used.max()) <= used
        for run, count in zip(*got.tokens.unique(dim=0, return_counts=True)):
            law[tuple(t for t in run.tolist() if t >= 0)] += float(weight) * int(count) / rows
    return dict(law)


def first(law: dict[tuple[int, ...], float]) -> list[float]:
    out = [0.0] * 3
    for run, weight in law.items():
        out[run[0]] += weight
    return out


def after(chances: Sequence[Fraction], p: Sequence[Fraction], q: Sequence[Fraction]) -> list[Fraction]:
    """The closed form of the next token's law: q(x) accepted with these chances, else norm(max(0, p - q))."""
    rest = [max(Fraction(0), a - b) for a, b in zip(p, q)]
    taken = [y * a for y, a in zip(q, chances)]
    return [t + (1 - sum(taken)) * r / sum(rest) for t, r in zip(taken, rest)]


def cut(value: Fraction) -> Fraction:
    return min(Fraction(1), value)


CLOSED: dict[str, tuple[dict[str, Any], Callable[[Any, Any], list[Fraction]]]] = {
    "rejection": ({}, lambda p, q: list(p)),
    "block": ({}, lambda p, q: list(p)),
    "matching": ({}, lambda p, q: list(p)),
    "coupled": ({}, lambda p, q: list(p)),
    "tolerance": (
        {"b": 0.25},
        lambda p, q: after([cut(x / y) + Fraction(1, 4) if x < y else Fraction(1) for x, y in zip(p, q)], p, q),
    ),
    "lenience": ({"l": 0.5}, lambda p, q: after([cut(2 * x / y) for x, y in zip(p, q)], p, q)),
    # accepted where p(x) > min(eps, delta exp(-H(p))); eps decides here
    "typical": (
        {"eps": 0.25, "delta": 1.0},
        lambda p, q: [
            y * (x > Fraction(1, 4)) + x * sum(b for a, b in zip(p, q) if a <= Fraction(1, 4)) for x, y in zip(p, q)
        ],
    ),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", CLOSED)
def test_the_law_of_the_first_token(name: str, dtype: torch.dtype) -> None:
    options, closed = CLOSED[name]
    p, q = P[0], Q[0]
    got = settled_law(make_verifier(name, options), P, Q, dtype)
    assert first(got) == pytest.approx([float(x) for x in closed(p, q)], abs=1e-12)
    assert sum(got.values()) == pytest.approx(1)
    if VERIFIERS[name].lossless:  # and behind an accepted token the bonus has the target's law
        runs = {run[0] for run in got if len(run) == 2}
        for token in runs:
            whole = sum(weight for run, weight in got.items() if len(run) == 2 and run[0] == token)
            behind = [got.get((token, x), 0.0) / whole for x in range(3)]
            assert behind == pytest.approx([float(x) for x in P[1]], abs=1e-12)


def test_the_law_of_a_group() -> None:
    """`coarse`, two tokens that are alike and the end token: inside an accepted group the token is the draft's."""
    verifier: Any = make_verifier("coarse", {"theta": 0.9}, embedding=torch.tensor([[1.0, 0.0], [1.0, 0.1]]))
    p, q = [Fraction(1, 6), Fraction(2, 6), Fraction(3, 6)], [Fraction(3, 6), Fraction(1, 6), Fraction(2, 6)]
    got = first(settled_law(verifier, [p, P[1]], [q]))
    # groups a and b hold tokens 0 and 1 with weight 1/2 each: P(a) = 1/4, Q(a) = 1/3; accepted with chance 3/4
    taken = [float(x) * 0.75 for x in q[:2]] + [float(q[2])]
    assert got == pytest.approx([*taken[:2], 1 - sum(taken[:2])], abs=1e-12)


@pytest.mark.parametrize("name", ["rejection", "block", "matching", "coupled"])
def test_the_law_of_two_drafted_tokens(name: str) -> None:
    """Exact rules: the law of the next two tokens is the target's, draft of two, every draft and every cell."""
    verifier: Any = make_verifier(name)
    one, two = Fraction(1, 4), Fraction(1, 2)
    p = {(): [one, 3 * one], (0,): [two, two], (1,): [3 * one, one]}
    q = {(): [two, two], (0,): [3 * one, one], (1,): [two, two]}
    cells = 36
    middle = (torch.arange(cells, dtype=torch.float64) + 0.5) / cells
    uniforms = torch.cartesian_prod(middle, middle, middle)
    uniforms = torch.cat([uniforms, torch.full_like(uniforms, 0.5)], 1)
    rows = len(uniforms)
    law: dict[tuple[int, ...], float] = defaultdict(float)
    for draft in itertools.product(range(2), repeat=2):
        weight = float(q[()][draft[0]] * q[draft[:1]][draft[1]])
        lines = [[float(x) for x in p[prefix]] for prefix in ((), draft[:1])] + [[0.5, 0.5]]
        got = verifier.settle(
            torch.tensor([draft]).expand(rows, 2),
            torch.full((rows,), 2),
            torch.tensor([[[float(x) for x in q[prefix]] for prefix in ((), draft[:1])]], dtype=torch.float64).expand(
                rows, 2, 2
            ),
            torch.tensor([lines], dtype=torch.float64).expand(rows, 3, 2),
            uniforms,
        )
        for run, count in zip(*got.tokens[:, :2].unique(dim=0, return_counts=True)):
            law[tuple(run.tolist())] += weight * int(count) / rows
    for head in range(2):
        short = law.pop((head, -1), 0.0)
        for tail in range(2):
            law[head, tail] += short * float(p[head,][tail])
    wanted = {(a, b): float(p[()][a] * p[a,][b]) for a in range(2) for b in range(2)}
    assert law == pytest.approx(wanted, abs=1e-12)


# --- nothing is told to the host ------------------------------------------------------------------------------------

HOST = {
    "aten._local_scalar_dense", "aten.item", "aten.nonzero", "aten.nonzero_static", "aten.masked_select",
    "aten.is_nonzero", "aten.equal", "aten.allclose", "aten.unique_dim", "aten._unique2", "aten.unique_consecutive",
    "aten.repeat_interleave", "aten.bincount", "aten.multinomial", "aten.lift_fresh",
}  # fmt: skip


class NoHost(TorchDispatchMode):
    """Fails at what a graph cannot capture: values that are read, shapes that depend on them, lists made tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).rsplit(".", 1)[0]
        assert name not in HOST, f"{func} reads a value, or brings one from the host"
        if name in ("aten.index", "aten.index_put", "aten.index_put_"):
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "a mask as an index"
        if name == "aten._to_copy":
            assert (kwargs or {}).get("device") is None, "a copy to another device"
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("points", [False, True], ids=["laws", "points"])
@pytest.mark.parametrize("gamma", [0, 1, 5])
@pytest.mark.parametrize("name", RULES)
def test_nothing_is_told_to_the_host(name: str, gamma: int, points: bool) -> None:
    given = case(1, 4, gamma, torch.float32, points)
    verifier = rule(name)
    with NoHost():
        verifier.settle(*given)


def reads(settled: Settled) -> Settled:
    settled.accepted.max().item()
    return settled


def decides(settled: Settled) -> Settled:
    if (settled.accepted > 0).any():
        settled.used.add_(0)
    return settled


def selects(settled: Settled) -> Settled:
    return Settled(settled.tokens[settled.accepted > 0], settled.accepted, settled.used)


def brings(settled: Settled) -> Settled:
    return Settled(settled.tokens, settled.accepted, settled.used + torch.tensor([0]))


@pytest.mark.parametrize("fault", [reads, decides, selects, brings])
def test_what_is_told_to_the_host_is_found(fault: Callable[[Settled], Settled]) -> None:
    given = case(1, 4, 3, torch.float32, points=False)
    with NoHost(), pytest.raises(AssertionError):
        fault(rule("block").settle(*given))


# --- faults ---------------------------------------------------------------------------------------------------------


def from_the_wrong_end(verifier: Any, tokens: Tensor, counts: Tensor, q: Any, p: Tensor, u: Tensor) -> Settled:
    """Block's trials from the front."""
    return BlockVerifier.settle(verifier, tokens, counts, q, p, torch.cat([u[:, : tokens.shape[1]].flip(1), u], 1))


def a_uniform_twice(verifier: Any, tokens: Tensor, counts: Tensor, q: Any, p: Tensor, u: Tensor) -> Settled:
    """The last draw uses the trial's uniform again."""
    return RejectionVerifier.settle(verifier, tokens, counts, q, p, u[:, (torch.arange(u.shape[1]) - 1).clamp(min=0)])


def no_residual(verifier: Any, tokens: Tensor, counts: Tensor, q: Any, p: Tensor, u: Tensor) -> Settled:
    return RejectionVerifier.settle(verifier, tokens, counts, q * 1e-9, p, u)


@pytest.mark.parametrize(
    ("fault", "name"), [(from_the_wrong_end, "block"), (a_uniform_twice, "rejection"), (no_residual, "rejection")]
)
def test_a_fault_is_found(fault: Callable[..., Settled], name: str) -> None:
    verifier = rule(name)
    differ = 0
    for seed in range(40):
        given = case(seed, 4, 5, torch.float64, points=False)
        differ += not same(fault(verifier, *given), listed(verifier, *given))
    assert differ > 10
