"""`coupled`: a seed is one take. The oracle is the autoregressive loop, token for token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from spear_spec.decoding import Request, Uniforms, make_verifier
from spear_spec.decoding.chance import Chance, Shared, drawn
from spear_spec.decoding.proposal import Proposal
from spear_spec.decoding.verifiers import VERIFIERS
from spear_spec.decoding.verifiers.coupled import CoupledVerifier
from spear_spec.engine import Engine, Utterance
from spear_spec.exactness.oracles import Enumerating, walk
from spear_spec.models.spear_tts import TextToSemantic
from tests.decoding.rounds.test_rounds import drafter, engine, restless
from tests.decoding.rounds.test_rounds import model as model
from tests.decoding.rounds.test_rounds import requests as asked

PRIMES = {1: 7, 2: 1, 3: 4, 4: 2}


def tokens(utterances: list[Utterance]) -> list[Any]:
    return [(u.tokens, u.ended) for u in utterances if u.ended != "cancelled"]


def coupled(model: TextToSemantic, name: str = "eagle", gamma: Any = 4) -> Engine:
    return Engine(model, drafter(model, name), make_verifier("coupled"), gamma)


SPOKEN: dict[str, list[Any]] = {}


def plain(model: TextToSemantic, wanted: Sequence[Request]) -> list[Any]:
    """Each alone, one token a call."""
    if repr(wanted) not in SPOKEN:
        SPOKEN[repr(wanted)] = [tokens(Engine(model).run([request]))[0] for request in wanted]
    return SPOKEN[repr(wanted)]


@pytest.mark.parametrize("gamma", [1, 3, 8, lambda rows: PRIMES.get(rows, 3)], ids=["1", "3", "8", "by rows"])
@pytest.mark.parametrize("name", ["eagle", "small", "small2", "prophet"])
def test_whoever_drafts_the_tokens_are_the_loops(model: TextToSemantic, name: str, gamma: Any) -> None:
    wanted = asked(7, 5)
    assert tokens(coupled(model, name, gamma).run(wanted)) == plain(model, wanted)


def test_rows_that_come_and_go_change_nothing(model: TextToSemantic) -> None:
    wanted = asked(12, 3)
    said = restless(coupled(model, gamma=lambda rows: PRIMES.get(rows, 3)), wanted, 1)
    whole = dict(enumerate(plain(model, wanted)))
    kept = {n: (u.tokens, u.ended) for n, u in enumerate(said) if u.ended != "cancelled"}
    assert len(kept) > 5
    assert kept == {n: whole[n] for n in kept}


def test_neither_do_rounds(model: TextToSemantic) -> None:
    wanted = asked(6, 8)
    assert tokens(engine(model, "coupled", "graphs").run(wanted)) == plain(model, wanted)


def test_an_outside_drafter_that_draws_by_itself(model: TextToSemantic) -> None:
    """Through `session.chance`, the way that the documentation says."""

    class Guess:
        name, form = "guess", "chain"

        def start(self, session: Any) -> None:
            return None

        def propose(self, session: Any, state: None, limits: list[int]) -> Proposal:
            law = torch.full((len(limits), session.model.vocab_size), 1 / session.model.vocab_size).double()
            found = [session.chance.categorical(law, session.rows) if min(limits) > i else [] for i in range(2)]
            found = [row for row in found if row]
            rows = [list(row) for row in zip(*found)] if found else [[] for _ in limits]
            return Proposal(rows, torch.stack([law] * len(found), 1) if found else None)

        def commit(self, session: Any, state: None, verdict: Any) -> None: ...

    wanted = asked(4, 2)
    assert tokens(Engine(model, Guess(), make_verifier("coupled"), 2).run(wanted)) == plain(model, wanted)


def test_what_is_accepted_is_where_the_steps_overlap() -> None:
    """Of every 1/n-th of [0, 1) as the number: sum over tokens of the overlap of their steps in both laws."""
    n, law = 20_000, torch.rand(2, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    p, q = law / law.sum(-1, keepdim=True)
    low = torch.maximum(p.cumsum(0) - p, q.cumsum(0) - q)
    overlap = float((torch.minimum(p.cumsum(0), q.cumsum(0)) - low).clamp(min=0).sum())
    kept = 0

    class Grid(Chance):
        at = 0

        def ahead(self, row: int, count: int) -> list[float]:
            return [(self.at + 0.5) / n, 0.5][:count]

        def passed(self, row: int, count: int) -> None: ...

        def categorical(self, weights: torch.Tensor, rows: Sequence[int]) -> list[int]:
            return drawn(weights, [self.ahead(0, 1)[0]])

    chance = Grid()
    for chance.at in range(0, n, 20):
        [token] = Shared(chance).categorical(q[None], [0])
        verdict = make_verifier("coupled").verify(Proposal([[token]], q[None, None]), p.expand(1, 2, 6), chance, [0])
        kept += verdict.num_accepted[0]
    assert 0.3 < overlap < 0.95
    assert kept * 20 / n == pytest.approx(overlap, abs=0.01)


def test_what_is_shared_is_what_comes_next() -> None:
    chance = Uniforms([11, 12])
    wanted = [chance.ahead(row, 9) for row in (0, 1)]
    shared = Shared(chance)
    law = torch.rand(2, 7, generator=torch.Generator().manual_seed(0))
    for n in range(3):
        assert shared.categorical(law, [0, 1]) == drawn(law, [wanted[0][n], wanted[1][n]])
    assert shared.bernoulli(wanted[0][3] + 1e-9, 0)
    assert not shared.bernoulli(wanted[0][4], 0)
    assert shared.ahead(0, 4) == wanted[0][5:9]
    shared.passed(1, 2)
    assert shared.ahead(1, 4) == wanted[1][5:9]
    assert [chance.ahead(row, 9) for row in (0, 1)] == wanted  # nothing was used


def test_chance_that_is_not_made_of_numbers() -> None:
    """Enumerated, draft and target draw apart: the law is the target's all the same."""
    p = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.0, 0.9]], dtype=torch.float64)
    q = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)

    def run(chance: Enumerating) -> tuple[int, ...]:
        token = Shared(chance).categorical(q[None], [0])
        return tuple(make_verifier("coupled").verify(Proposal([token], q[None, None]), p[None], chance, [0]).tokens[0])

    law = walk(run)
    for first in range(3):
        assert sum(weight for line, weight in law.items() if line[0] == first) == pytest.approx(float(p[0, first]))


def test_a_draft_that_breaks_off_leaves_the_chance_as_it_was(model: TextToSemantic) -> None:
    class Broken:
        name, form = "broken", "chain"

        def start(self, session: Any) -> None: ...

        def propose(self, session: Any, state: None, limits: list[int]) -> Proposal:
            assert isinstance(session.chance, Shared)
            raise RuntimeError("broken")

        def commit(self, session: Any, state: None, verdict: Any) -> None: ...

    made = Engine(model, Broken(), make_verifier("coupled"), 2)
    made.admit(asked(2, 2))
    with pytest.raises(RuntimeError, match="broken"):
        made.step()
    assert isinstance(made.session.chance, Uniforms)


def test_only_chains() -> None:
    assert VERIFIERS["coupled"].forms == {"chain"}
    assert VERIFIERS["coupled"].lossless
    assert CoupledVerifier.shares
