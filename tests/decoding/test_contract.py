"""Objects of a user's own that break the protocols, in an engine: one ContractError that names the object, the row and
the position; and engines whose step was broken off, which refuse to go on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from spear_spec.config import SamplingConfig
from spear_spec.decoding import Proposal, Verdict, make_verifier
from spear_spec.decoding.contract import checked_drafter, checked_verifier
from spear_spec.engine import Engine, Request
from spear_spec.errors import ConfigError, ContractError
from spear_spec.exactness.oracles import TEXTS, TableDrafter, tiny_model

V = 5  # tokens 0 to 3 and the end token
PLAIN = SamplingConfig(temperature=1.0, top_p=1.0)


class Spoilt(TableDrafter):
    """Even laws; what is proposed is then spoilt."""

    name = "spoilt"

    def __init__(self, spoil: Callable[[Proposal], Any]) -> None:
        super().__init__(lambda row, prefix: [1 / V] * V)
        self.spoil = spoil

    def propose(self, session: Any, state: None, limits: list[int]) -> Any:
        proposal = super().propose(session, state, limits)
        for row, limit in zip(proposal.tokens, limits):
            row[:] = [0] * limit  # so that there is a second position to spoil
        proposal.probs = torch.full((len(limits), 2, V), 1 / V, dtype=torch.float64)
        return self.spoil(proposal) or proposal


def engine(drafter: Any, rule: Any = None, rows: int = 3) -> Engine:
    made = Engine(tiny_model(semantic=V - 1), drafter, rule or make_verifier("rejection"), 2)
    made.admit([Request(TEXTS[n][:-1], seed=n, sampling=PLAIN, cap=20) for n in range(rows)])
    return made


def law(change: Callable[[torch.Tensor], Any]) -> Callable[[Proposal], None]:
    def spoil(proposal: Proposal) -> None:
        assert proposal.probs is not None
        change(proposal.probs[1, 1])

    return spoil


def token(value: Any) -> Callable[[Proposal], None]:
    def spoil(proposal: Proposal) -> None:
        proposal.tokens[1][1] = value

    return spoil


HERE = "row 1, position 1"
BROKEN: dict[str, tuple[Callable[[Proposal], Any], str]] = {
    "doubled": (law(lambda line: line.mul_(2)), HERE),
    "negative": (law(lambda line: line.copy_(torch.tensor([1.5, -0.5, 0, 0, 0]))), HERE),
    "zero": (law(lambda line: line.zero_()), HERE),
    "NaN": (law(lambda line: line.fill_(torch.nan)), HERE),
    "infinite": (law(lambda line: line.fill_(torch.inf)), HERE),
    "not drawn from it": (law(lambda line: line.copy_(torch.tensor([0, 1.0, 0, 0, 0]))), HERE),
    "beyond the vocabulary": (token(V + 3), HERE),
    "the start": (token(V), HERE),
    "below 0": (token(-1), HERE),
    "a tensor": (token(torch.tensor(1)), HERE),
    "a truth": (token(True), HERE),
    "a row of tensors": (lambda p: p.tokens.__setitem__(1, torch.tensor([0, 0])), "row 1"),
    "all tensors": (lambda p: Proposal(torch.zeros(3, 2), p.probs), "list"),  # type: ignore[arg-type]
    "a row missing": (lambda p: p.tokens.pop() and None, "2 rows, but 3"),
    "too deep": (lambda p: Proposal([[0, 0], [0] * 3, [0, 0]]), "row 1"),
    "laws of another vocabulary": (lambda p: Proposal(p.tokens, p.probs[..., :-1]), "probs must be"),
    "no proposal": (lambda p: p.tokens, "Proposal"),
    "a tree": (lambda p: Proposal(p.tokens, p.probs, [[-1, 0]] * 3), "chain"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_proposal_is_one_line(name: str) -> None:
    spoil, words = BROKEN[name]
    made = engine(Spoilt(spoil))
    with pytest.raises(ContractError) as caught:
        made.run([])
    message = str(caught.value)
    assert message.startswith("drafter spoilt: ")
    assert words in message
    assert "\n" not in message
    with pytest.raises(ContractError, match="broken off"):
        made.step()


def test_a_sound_proposal_passes() -> None:
    made = engine(Spoilt(lambda proposal: None))
    made.run([])
    assert not made.running


class SpoiltRule:
    name, lossless, forms = "spoilt rule", True, frozenset({"chain"})

    def __init__(self, spoil: Callable[[Verdict], Any]) -> None:
        self.spoil = spoil

    def verify(self, proposal: Proposal, target_probs: Any, chance: Any, rows: Any) -> Any:
        count = len(rows)
        verdict = Verdict(list(rows), [[0, 1] for _ in rows], [1] * count, [2] * count)
        return self.spoil(verdict) or verdict


VERDICTS: dict[str, Callable[[Verdict], Any]] = {
    "foreign tokens": lambda v: v.tokens.__setitem__(1, [3, 1]),
    "beyond the vocabulary": lambda v: v.tokens.__setitem__(1, [0, V]),
    "a tensor": lambda v: v.tokens.__setitem__(1, torch.tensor([0, 1])),
    "too many": lambda v: v.tokens.__setitem__(1, [0, 0, 1]),
    "a row missing": lambda v: v.tokens.pop() and None,
    "other rows": lambda v: v.rows.reverse(),
    "no verdict": lambda v: v.tokens,
}


@pytest.mark.parametrize("name", VERDICTS)
def test_a_broken_verdict_is_one_line(name: str) -> None:
    made = engine(Spoilt(lambda proposal: None), SpoiltRule(VERDICTS[name]))
    with pytest.raises(ContractError, match=r"^verifier spoilt rule: "):
        made.run([])


@pytest.mark.parametrize("check", [checked_drafter, checked_verifier])
@pytest.mark.parametrize("thing", [Spoilt, 7, None, "small"])
def test_what_is_no_object_of_the_kind(check: Any, thing: Any) -> None:
    with pytest.raises(ContractError):
        check(thing)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["drafter", "rule", "target"])
def test_a_step_that_broke_off_is_the_last(where: str, error: type[BaseException], monkeypatch: Any) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise error

    made = engine(
        Spoilt(fail) if where == "drafter" else Spoilt(lambda p: None), SpoiltRule(fail) if where == "rule" else None
    )
    if where == "target":
        monkeypatch.setattr(type(made.target), "forward", fail)
    with pytest.raises(error):
        made.step()
    monkeypatch.undo()
    for call in (made.step, lambda: made.admit([Request(TEXTS[0][:-1])]), lambda: made.run([])):
        with pytest.raises(ContractError, match="broken off"):
            call()


def test_a_request_that_is_refused_harms_nothing() -> None:
    made, other = (engine(Spoilt(lambda proposal: None)) for _ in range(2))
    with pytest.raises(ConfigError):
        made.admit([Request(TEXTS[0][:-1]), Request(TEXTS[1][:-1], prefix=(V - 1,))])
    while made.running:
        assert made.step().tokens == other.step().tokens
