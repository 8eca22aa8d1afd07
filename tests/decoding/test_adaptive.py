"""Stopping rules of chains: exact whatever they stop at, and what each of them learns from the past."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from itertools import combinations

import pytest
import torch

from spear_spec.config import SamplingConfig
from spear_spec.decoding import make_drafter, make_verifier, speculate
from spear_spec.decoding.drafters import adaptive
from spear_spec.decoding.drafters.adaptive import (
    STOPS,
    Acceptance,
    AdaEDL,
    Confidence,
    Stopping,
    Threshold,
    make_stopping,
)
from spear_spec.decoding.drafters.small import SmallDrafter
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.session import Session
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import TEXTS, UncachedTarget, distance, texts, tiny_draft, tiny_model, walk

SAMPLING = SamplingConfig(temperature=0.8, top_p=0.97)
# so quick to learn that an utterance of five tokens is long enough to see it
QUICK: dict[str, Callable[[int], Stopping]] = {
    "adaedl": partial(AdaEDL, start=0.535, step=0.5),
    "confidence": partial(Confidence, start=0.35, step=2.0),
    "acceptance": partial(Acceptance, cost=0.3, prior=0.6, weight=1.0, fade=0.5),
}
Drafts = dict[tuple[tuple[int, ...], int], set[tuple[int, ...]]]


class Noting(SmallDrafter):
    """Writes down what it drafted for one row, by the tokens kept before and the limit."""

    watch = 0

    def start(self, session: Session):
        self.drafts: Drafts = getattr(self, "drafts", defaultdict(set))
        return super().start(session)

    def propose(self, session: Session, state, limits: list[int]) -> Proposal:
        proposal = super().propose(session, state, limits)
        for place, row in enumerate(session.rows):
            if row == self.watch:
                self.drafts[tuple(session.tokens[row]), limits[place]].add(tuple(proposal.tokens[place]))
        return proposal


class Dropping(Noting):
    """The well-known mistake: the token that made it stop is thrown away."""

    def propose(self, session: Session, state, limits: list[int]) -> Proposal:
        proposal = super().propose(session, state, limits)
        assert isinstance(state.stopping, Confidence)
        for place, tokens in enumerate(proposal.tokens):
            if tokens and float(proposal.probs[place, len(tokens) - 1, tokens[-1]]) < state.stopping.thresholds[place]:
                tokens.pop()
        return proposal


def stopped_error(drafter: Noting, model, verifier: str, *, caps: list[int], watch: int = 0, gamma: int = 2) -> float:
    """Largest error of the law of row `watch`'s whole utterances, by enumeration in float64."""
    drafter.watch = watch
    target = UncachedTarget(model, TEXTS[watch], SAMPLING)
    with torch.inference_mode():
        memory = model.encode(texts(len(caps)))
    rule = make_verifier(verifier)

    def run(chance) -> tuple[int, ...]:
        session = Session(model, memory, SAMPLING, chance=chance, max_tokens=caps)
        for _ in speculate(session, drafter, rule, gamma):
            pass
        return tuple(session.tokens[watch])

    return distance(walk(run, watch), target.sequences(caps[watch]))


def past_decides(drafts: Drafts) -> bool:
    """Whether a draft ended where the same draft once went on: what was kept before and drafted so far was the same."""
    return any(one != other and other[: len(one)] == one for line in drafts.values() for one in line for other in line)


def draw_decides(drafts: Drafts, eos: int) -> bool:
    """Whether drafts from the same place end earlier or later, for what was drawn (an end token ends them anyway)."""
    return any(
        len(one) != len(other) and one[: len(other)] != other[: len(one)] and eos not in one + other
        for line in drafts.values()
        for one, other in combinations(line, 2)
    )


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, rule in QUICK.items():
        monkeypatch.setitem(adaptive.STOPS, name, rule)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("verifier", ["rejection", "block"])
@pytest.mark.parametrize("stop", QUICK)
def test_loop_law_is_the_targets(stop: str, verifier: str) -> None:
    """Chains of every length, ended by what was drawn and by what was learnt in earlier calls."""
    model = tiny_model()
    drafter = Noting(tiny_draft(model), stop=stop)
    assert stopped_error(drafter, model, verifier, caps=[5]) < 1e-9
    assert {len(tokens) for (_, limit), line in drafter.drafts.items() if limit == 2 for tokens in line} >= {1, 2}
    assert past_decides(drafter.drafts)
    if stop != "acceptance":
        assert draw_decides(drafter.drafts, model.eos_id)


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("verifier", ["rejection", "block"])
@pytest.mark.parametrize("stop", QUICK)
def test_loop_law_in_a_ragged_batch(stop: str, verifier: str) -> None:
    """A row whose neighbours leave before it, with drafts of other lengths: its law is its own."""
    model = tiny_model()
    drafter = Noting(tiny_draft(model), stop=stop)
    assert stopped_error(drafter, model, verifier, caps=[1, 3, 4, 2], watch=2) < 1e-9
    assert len({len(tokens) for line in drafter.drafts.values() for tokens in line}) > 1


@pytest.mark.usefixtures("_quick")
@pytest.mark.parametrize("verifier", ["rejection", "block"])
def test_dropping_the_token_that_stopped_it_is_noticed(verifier: str) -> None:
    model = tiny_model()
    drafter = Dropping(tiny_draft(model), stop="confidence")
    assert stopped_error(drafter, model, verifier, caps=[3]) > 1e-3


# --- what is learnt ---------------------------------------------------------------------------------------------------


def verdict(accepted: list[int], drafted: list[int], ended: list[str | None] | None = None) -> Verdict:
    rows = list(range(len(accepted)))
    return Verdict(rows, [[] for _ in rows], accepted, drafted, ended=ended or [None] * len(rows))


CALLS = [
    (3, 3, 5),
    (5, 5, 5),
    (4, 5, 5),
    (0, 2, 5),
    *[(5, 5, 5)] * 4,
    (9, 10, 10),
    (2, 2, 5),
    (2, 2, 2),
    (3, 3, 5),
    (4, 5, 5),
    (1, 1, 3),
    (0, 0, 3),
    (0, 0, 0),
]


@pytest.mark.parametrize("rule", [AdaEDL, Confidence])
def test_threshold_follows_the_share_that_was_accepted(rule: type[Threshold]) -> None:
    """Call by call against the update written out; accepted, drafted, limit."""
    stopping = rule(1, start=0.5)
    theta, rate, moves = 0.5, 0.0, set()
    for accepted, drafted, limit in CALLS:
        stopping.limits([limit])
        stopping.commit(verdict([accepted], [drafted]))
        goal = theta
        if drafted:
            rate = 0.5 * rate + 0.5 * (accepted / drafted)
            used_up = accepted == limit if rule is AdaEDL else drafted == limit
            if rate < 0.9:
                goal = theta + 0.01
            elif not used_up:
                goal = theta - 0.01
        elif limit:
            goal = theta - 0.01
        moves.add(round((goal - theta) * 100))
        theta = 0.9 * theta + 0.1 * goal
        assert stopping.thresholds[0] == pytest.approx(theta, abs=1e-12)
        assert stopping.rates[0] == pytest.approx(rate, abs=1e-12)
    assert moves == {-1, 0, 1}


def test_a_row_that_fell_silent_drafts_again() -> None:
    stopping = AdaEDL(1, start=0.9)
    laws = torch.full((1, 2), 0.5)
    assert not stopping.before(laws, [0])
    for _ in range(1000):
        stopping.limits([4])
        stopping.commit(verdict([0], [0]))
    assert stopping.before(laws, [0])


def test_adaedl_draws_where_the_bound_is_high() -> None:
    laws = torch.tensor(
        [[0.25, 0.25, 0.25, 0.25], [0.9, 0.1, 0, 0], [1, 0, 0, 0], [0.5, 0.5, 0, 0]], dtype=torch.float64
    )
    bounds = [1 - math.sqrt(0.2 * -sum(q * math.log(q) for q in law if q > 0)) for law in laws.tolist()]
    stopping = AdaEDL(4)
    for threshold in (0.0, 0.5, 0.6, 0.65, 0.8, 1.0):
        stopping.thresholds = [threshold] * 4
        assert stopping.before(laws, [0, 1, 3]) == [place for place in (0, 1, 3) if bounds[place] >= threshold]
    assert stopping.before(laws, [0, 2]) == [2]
    stopping.thresholds = [bounds[0] - 1e-9, bounds[1] + 1e-9, 0.0, bounds[3] - 1e-9]  # each row has its own
    assert stopping.before(laws, [0, 1, 2, 3]) == [0, 2, 3]
    assert stopping.after(laws, [0, 3], [1, 1]) == [0, 3]
    assert stopping.before(torch.tensor([[1 + 1e-6, 0.0]] * 4), [0]) == [0]  # a law that rounding has left above 1


def test_confidence_stops_after_an_unlikely_token() -> None:
    laws = torch.tensor([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
    stopping = Confidence(3, start=0.5)
    assert stopping.before(laws, [0, 1, 2]) == [0, 1, 2]
    assert stopping.after(laws, [0, 1, 2], [0, 0, 1]) == [1, 2]
    assert stopping.after(laws, [0, 2], [1, 0]) == [0, 2]
    stopping.thresholds[2] = 0.51
    assert stopping.after(laws, [0, 2], [1, 0]) == [0]


def test_acceptance_chooses_the_length_that_promises_most() -> None:
    """Random calls of two rows, against counts kept in full and lengths tried one by one; each row for itself."""
    rng = random.Random(1)
    stopping = Acceptance(2, cost=0.1, prior=0.7, weight=2.0, fade=0.8)
    past: list[list[tuple[int, int]]] = [[], []]
    chosen = set()
    for call in range(300):
        cap, best = rng.randint(1, 8), []
        for calls, longest in zip(past, (8, cap)):
            weights, line = [0.8**age for age in range(len(calls))], []
            for position in range(8):
                tried = sum(w for w, (a, d) in zip(weights, reversed(calls)) if d > position and a >= position)
                accepted = sum(w for w, (a, _) in zip(weights, reversed(calls)) if a > position)
                line.append((accepted + 2 * (line[-1] if line else 0.7)) / (tried + 2))
            worth = [sum(math.prod(line[:i]) for i in range(k + 1)) / (1 + 0.1 * k) for k in range(1, longest + 1)]
            best.append(1 + max(range(longest), key=lambda i: worth[i]))
        limits = stopping.limits([8, cap])
        assert limits == best
        chosen.add(best[0])
        got = [0, 0]
        for row, limit in enumerate(limits):
            while got[row] < limit and rng.random() < (0.95 if call // 50 % 2 else 0.2 - 0.1 * row):
                got[row] += 1
            past[row].append((got[row], limit))
        stopping.commit(verdict(got, limits))
    assert {1, 8} <= chosen


def test_acceptance_drafts_less_where_a_token_costs_more() -> None:
    """No past yet, so the chance is .88 everywhere and the promise a closed form; the batch around it has no say."""
    for rows in (1, 4, 8):
        lengths = [Acceptance(rows, cost=cost).limits([20] * rows)[0] for cost in (0.052, 0.103, 0.171)]
        best = [max(range(1, 21), key=lambda k: (1 - 0.88 ** (k + 1)) / (1 + c * k)) for c in (0.052, 0.103, 0.171)]
        assert lengths == best == [11, 8, 6]


@pytest.mark.parametrize("rule", [*STOPS.values(), *QUICK.values(), partial(Acceptance, cost=2.0)])
def test_limits_leave_every_row_a_token(rule: Callable[[int], Stopping]) -> None:
    """After nothing but refusals too; and a row that must not draft does not."""
    stopping = rule(3)
    for _ in range(60):
        limits = stopping.limits([5, 1, 0])
        assert all(low <= got <= high for low, got, high in zip([1, 1, 0], limits, [5, 1, 0]))
        stopping.commit(verdict([0, 0, 0], [limits[0], 1, 0]))
    stopping.commit(verdict([0, 0, 0], [0, 0, 0]))
    assert stopping.limits([4, 4, 4])[2] >= 1


@pytest.mark.parametrize("rule", QUICK.values(), ids=QUICK)
def test_rows_that_end_take_what_was_learnt_with_them(rule: Callable[[int], Stopping]) -> None:
    """The same calls in a batch that shrinks and one row at a time."""
    rng = random.Random(2)
    batch, alone, rows = rule(4), [rule(1) for _ in range(4)], [0, 1, 2, 3]
    laws = {row: torch.softmax(2 * torch.randn(1, 5, generator=torch.Generator().manual_seed(row)), -1) for row in rows}
    for ending in (None, 1, None, None, 0, None, None, 3, None, None):
        limits = [rng.randint(1, 5) for _ in rows]
        assert batch.limits(list(limits)) == [alone[row].limits([limit])[0] for row, limit in zip(rows, limits)]
        together, places = torch.cat([laws[row] for row in rows]), list(range(len(rows)))
        drawn = [rng.randrange(5) for _ in rows]
        assert batch.before(together, places) == [p for p in places if alone[rows[p]].before(laws[rows[p]], [0])]
        assert batch.after(together, places, drawn) == [
            p for p in places if alone[rows[p]].after(laws[rows[p]], [0], [drawn[p]])
        ]
        drafted = [rng.randint(0, limit) for limit in limits]
        accepted = [rng.randint(0, count) for count in drafted]
        ended = ["eos" if row == ending else None for row in rows]
        for row, a, d in zip(rows, accepted, drafted):
            alone[row].commit(verdict([a], [d]))
        batch.commit(verdict(accepted, drafted, ended))
        batch.leave([place for place, row in enumerate(rows) if row != ending])
        rows = [row for row in rows if row != ending]
        if ending == 1:  # a new row stands behind the others and begins as all did
            batch.join(1)
            alone.append(rule(1))
            laws[4] = laws[0]
            rows.append(4)


def test_unknown_rule_is_refused() -> None:
    assert make_stopping(None, 2) is None
    rule = make_stopping("acceptance", 2, 0.3)
    assert isinstance(rule, Acceptance) and rule.cost == 0.3
    for name, cost, says in ((None, 1, "cost goes"), ("adaedl", 1, "cost goes"), ("acceptance", -1, "0 to 10")):
        with pytest.raises(ConfigError, match=says):
            make_stopping(name, 1, cost)
    for make in (
        lambda: make_stopping("patience", 1),
        lambda: make_drafter("small", tiny_draft(tiny_model()), options={"stop": "patience"}),
    ):
        with pytest.raises(
            ConfigError, match="no stopping rule 'patience'; stop can be adaedl, confidence, acceptance"
        ):
            make()


@pytest.mark.parametrize("stop", STOPS)
def test_a_drafter_is_given_its_rule_by_name(stop: str) -> None:
    model = tiny_model()
    drafter = make_drafter("small", tiny_draft(model), options={"stop": stop})
    with torch.inference_mode():
        session = Session(
            model, model.encode(texts(3)), SAMPLING, generator=torch.Generator().manual_seed(0), max_tokens=9
        )
        assert isinstance(drafter.start(session).stopping, STOPS[stop])
