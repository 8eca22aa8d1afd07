"""A round is what a CUDA graph can hold: nothing is told to the host, every round does the same on the same memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.config import DraftConfig, SamplingConfig
from spear_spec.decoding import Request, make_drafter, make_verifier
from spear_spec.decoding.rounds import draft as draft_module
from spear_spec.decoding.rounds import laws as laws_module
from spear_spec.decoding.rounds import rows as rows_module
from spear_spec.decoding.rounds.board import Board
from spear_spec.decoding.rounds.loop import RoundSession
from spear_spec.decoding.rounds.prefill import Prefill
from spear_spec.decoding.rounds.round import Round
from spear_spec.decoding.verifiers.tensors import Settled
from spear_spec.exactness.capturable import Capturable, without_values
from spear_spec.exactness.oracles import tiny_block, tiny_draft, tiny_model
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.spear_tts import TextToSemantic
from tests.decoding.rounds.captured import bare_trace, repeated, round_of, trace

RULES = (None, "rejection", "block", "matching", "coupled", "tolerance", "lenience", "typical", "coarse")
LAWS = [SamplingConfig(), SamplingConfig(temperature=0.0), SamplingConfig(temperature=1.3, top_k=5)]


@pytest.fixture(scope="module")
def model() -> TextToSemantic:
    return tiny_model(semantic=20, seed=4)


@pytest.fixture(autouse=True)
def _as_in_the_loop() -> Iterator[None]:
    with torch.inference_mode():
        yield


def session(model: TextToSemantic, rule: str | None, name: str = "eagle", guidance: float = 1.0) -> RoundSession:
    """Three rows of all kinds, one of them with a prefix."""
    drafter, verifier = None, None
    if rule is not None:
        draft: Any = tiny_draft(model)
        if name == "block":
            draft = tiny_block(model)
        elif name != "eagle":
            shape: dict[str, Any] = {"target_layers": (2,), "window": True} if name == "prophet" else {}
            draft = DraftDecoder(DraftConfig(dim=16, heads=2, dim_head=8, **shape), model.cfg).double().eval()
        drafter, near = make_drafter(name, draft), model.semantic_emb.weight[:-1]
        verifier = make_verifier(rule, {"theta": 0.3} if rule == "coarse" else None, embedding=near)
    made = RoundSession(Board(model, drafter, verifier, 4))
    laws = [replace(law, guidance=guidance) for law in LAWS]
    made.admit([Request([n + 1, 2], (3, 4)[: 2 * (n == 1)], n, law, 40) for n, law in enumerate(laws)])
    return made


@pytest.mark.parametrize(("rule", "guidance"), [*((rule, 1.0) for rule in RULES), (None, 2.0), ("block", 2.0)])
def test_nothing_is_told_to_the_host(model: TextToSemantic, rule: str | None, guidance: float) -> None:
    found = without_values(round_of(session(model, rule, guidance=guidance)))
    found()  # what is made once is made now
    with Capturable("meta") as seen:
        found()
        found.rows.refill()
    assert len(seen.trace) > 200


@pytest.mark.parametrize("name", ["small", "prophet", "block"])
def test_nor_by_other_drafts(model: TextToSemantic, name: str) -> None:
    assert bare_trace(round_of(session(model, "block", name)))


def begun(made: RoundSession) -> Prefill:
    """A row that joins."""
    made.admit([Request([1, 2, 5], seed=3, sampling=made.samplings[0], cap=30)])
    (found,) = made.board.begins.values()
    return found


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("rule", [None, "block"])
def test_rows_begin_without_the_host(model: TextToSemantic, rule: str | None, guidance: float) -> None:
    found = begun(session(model, rule, guidance=guidance))
    assert len(bare_trace(found, again=False)) > 50
    repeated(found)


def same_again(made: RoundSession, rounds: int = 6) -> None:
    """Rounds on real values, of rows that end and are released on the way: the same operations on the same memory."""
    found = round_of(made)

    def memory() -> list[Tensor]:
        caches = [found.step.cache] if found.draft is None else [found.step.cache, found.draft.cache]
        return [*found.rows.tensors, *(x for cache in caches for x in (cache.k, cache.v))]

    pointers, first = [x.data_ptr() for x in memory()], None
    for number in range(rounds):
        if number == 3:
            made.runtime.leave([])  # they stay active on the device: only who reads them has gone
            found.rows.active[1] = False
        now = trace(found)
        first = first or now
        assert now == first, f"round {number} is another"
    assert [x.data_ptr() for x in memory()] == pointers


@pytest.mark.parametrize(
    ("rule", "name"), [(None, ""), *((rule, "eagle") for rule in ("rejection", "block", "coarse")), ("block", "block")]
)
def test_every_round_is_the_same(model: TextToSemantic, rule: str | None, name: str) -> None:
    same_again(session(model, rule, name))


@pytest.mark.parametrize("rule", [None, "block"])
def test_a_round_of_idle_rows_changes_nothing(model: TextToSemantic, rule: str | None) -> None:
    """So can it be warmed up in the middle of utterances, and so do rows that have ended wait for the host."""
    made, other = session(model, rule), session(model, rule)
    found = round_of(made)
    before = [x.clone() for x in found.rows.tensors]
    with made.board.quiet():
        found()
        made.board.rows.refill()
    quiet = {id(found.rows.told), id(found.rows.pool), id(found.rows.pooled)}
    for was, now in zip(before, found.rows.tensors):
        assert id(now) in quiet or torch.equal(was, now)
    while made.running:
        verdict, right = made.round(), other.round()
        assert (verdict.tokens, verdict.ended) == (right.tokens, right.ended)


# --- faults ---------------------------------------------------------------------------------------------------------


def reads(x: Tensor) -> Tensor:
    return x + int(x.sum().item() < -1)


def decides(x: Tensor) -> Tensor:
    return x + 1 - 1 if (x > 3).any() else x


def lists(x: Tensor) -> Tensor:
    return x + len(x.tolist()) * 0


def finds(x: Tensor) -> Tensor:
    x[(x < 0).nonzero()[:, 0]] = 0
    return x


def selects(x: Tensor) -> Tensor:
    return x + x.masked_select(x > 1).numel() * 0


def indexes(x: Tensor) -> Tensor:
    x[x < 0] = 0
    return x


def brings_a_list(x: Tensor) -> Tensor:
    return x + torch.tensor([0], device=x.device)


def brings_from_the_host(x: Tensor) -> Tensor:
    return x + torch.zeros(len(x), dtype=torch.int64)


def brings_a_number(x: Tensor) -> Tensor:
    return x + torch.zeros((), dtype=torch.int64)


def sends(x: Tensor) -> Tensor:
    return x.cpu().to(x.device)


def chances(x: Tensor) -> Tensor:
    return x + torch.rand(len(x), device=x.device).long()


FAULTS = [
    reads, decides, lists, finds, selects, indexes, brings_a_list, brings_from_the_host, brings_a_number, sends,
    chances,
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_captured_is_seen(
    model: TextToSemantic, fault: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the draft's chain. Where there is nothing to read some fail by themselves."""
    found = round_of(session(model, "block"))
    right = laws_module.categorical
    monkeypatch.setattr(laws_module, "categorical", lambda weights, u: fault(right(weights, u)))
    seen = []
    for device, a_round in (("cpu", found), ("meta", without_values(found))):
        try:
            with Capturable(device):
                a_round()
        except (AssertionError, RuntimeError, NotImplementedError):
            seen.append(device)
    assert seen, f"{fault.__name__} went unnoticed"


def grows(patch: pytest.MonkeyPatch) -> None:
    """The past is copied together, longer every round."""
    right, past = Round._append, list[Tensor]()

    def append(self: Round, settled: Settled, *rest: Any) -> None:
        past.append(settled.tokens)
        torch.cat(past, 1)
        right(self, settled, *rest)

    patch.setattr(Round, "_append", append)


def stops_early(patch: pytest.MonkeyPatch) -> None:
    """The host knows that everybody has stopped, and saves a step."""
    right, calls = draft_module.StaticChain.draw, [0]

    def draw(self: Any, fresh: Tensor, *rest: Any) -> Any:
        calls[0] += 1
        drawn = right(self, fresh, *rest)
        return drawn if calls[0] % 2 else drawn._replace(laws=drawn.laws + 0)

    patch.setattr(draft_module.StaticChain, "draw", draw)


def moves(patch: pytest.MonkeyPatch) -> None:
    """A buffer is another one from now on."""
    right = Round._append

    def append(self: Round, *rest: Any) -> None:
        right(self, *rest)
        object.__setattr__(self.rows, "fresh", self.rows.fresh.clone())

    patch.setattr(Round, "_append", append)


@pytest.mark.parametrize("fault", [grows, stops_early, moves])
def test_a_round_that_is_another_is_seen(
    model: TextToSemantic, fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        same_again(session(model, "block"))


def test_uniforms_last_as_long_as_they_are_said_to() -> None:
    for gamma in (0, 1, 4, 10, 64):
        rounds, most = rows_module.rounds_a_pool(gamma), rows_module.longest_draw(gamma)
        assert rounds >= 1 and rounds * most <= rows_module.POOL
