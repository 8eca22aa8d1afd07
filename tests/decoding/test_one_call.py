"""Whole steps in one call of C against the same steps in parts: every bit of what is kept and of what comes next."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from spear_spec.config import DraftConfig, SamplingConfig
from spear_spec.decoding import Chance, Request, Uniforms, make_drafter, make_verifier
from spear_spec.decoding.request import encode
from spear_spec.engine import Engine, Utterance
from spear_spec.errors import ContractError, NumericsError
from spear_spec.exactness.oracles import TEXTS, in_parts, tiny_model
from spear_spec.kernels import native
from spear_spec.kernels.round import NativeRound, Past, Reading
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.cache import KVCache
from spear_spec.runtime.eager import EagerRuntime

SAMPLINGS = [SamplingConfig(temperature=1.2, top_p=0.9), SamplingConfig(temperature=0.0), SamplingConfig(top_k=5)]


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)
    assert native.available(), native.reason()


@dataclass
class Counted:
    """Rounds in one call, and what of a chain they kept."""

    calls: int = 0
    kept: list[int] = field(default_factory=list)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    found, right = Counted(), NativeRound.run

    def run(*args: Any) -> Any:
        result = right(*args)
        found.calls += 1
        found.kept += result.accepted
        return result

    monkeypatch.setattr(NativeRound, "run", run)
    return found


def parts_of(layers: tuple[int, ...], **options: Any) -> tuple[TextToSemantic, Any]:
    model = tiny_model(semantic=12, dtype=torch.float32)
    torch.manual_seed(2)
    draft = DraftDecoder(DraftConfig(dim=16, depth=2, heads=2, dim_head=8, target_layers=layers), model.cfg).eval()
    return model, make_drafter("eagle", draft, options=options)


def request(seed: int, cap: int, sampling: SamplingConfig, prefix: tuple[int, ...] = ()) -> Request:
    return Request(TEXTS[seed % len(TEXTS)][:-1], sampling=sampling, seed=seed, cap=cap, prefix=prefix)


def life(engine: Engine) -> Iterator[Any]:
    """Rows that join, leave, end and come near their caps; after every step what the next one follows from."""
    wanted = [request(seed, 9 + 5 * seed, SAMPLINGS[seed % 3]) for seed in range(4)]
    spoken = engine.admit(wanted[:1])
    session, chance = engine.session, engine.session.chance
    for turn in range(40):
        if turn == 2:
            spoken += engine.admit([*wanted[1:], request(7, 12, SAMPLINGS[0], (3, 1, 4))])
        if turn == 5:
            engine.release(spoken[1:2])
        if not engine.running:
            if turn > 5:
                break
            continue
        verdict = engine.step()
        output = session.output
        yield (
            verdict.rows, verdict.tokens, verdict.num_accepted, verdict.num_drafted, verdict.ended,
            session.cache.lengths, [chance.ahead(row, 3) for row in session.rows],
            None if output is None else [output.logits, output.hidden, *output.features],
        )  # fmt: skip
    yield [(utterance.tokens, utterance.ended, utterance.stats) for utterance in spoken]


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, (list, tuple)):
        return len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


@pytest.mark.parametrize("rule", ["block", "rejection"])
@pytest.mark.parametrize("layers", [(), (1, 2)], ids=["independent", "fed"])
def test_a_whole_step_is_its_parts(layers: tuple[int, ...], rule: str, counted: Counted) -> None:
    model, drafter = parts_of(layers)
    whole = list(life(Engine(model, drafter, make_verifier(rule), 4)))
    made = counted.calls
    with pytest.MonkeyPatch.context() as patch:
        in_parts(patch)
        parts = list(life(Engine(model, drafter, make_verifier(rule), 4)))
    assert same(whole, parts)
    assert counted.calls == made > 5
    assert min(counted.kept) == 0 < max(counted.kept)


def test_a_whole_step_of_the_plain_loop_is_its_parts(counted: Counted) -> None:
    model, _ = parts_of(())
    whole = list(life(Engine(model)))
    made = counted.calls
    with pytest.MonkeyPatch.context() as patch:
        in_parts(patch)
        parts = list(life(Engine(model)))
    assert same(whole, parts)
    assert counted.calls == made > 20


@pytest.mark.parametrize("layers", [None, (), (1, 2)], ids=["plain loop", "independent", "fed"])
def test_a_row_in_the_room_of_one_that_left(layers: tuple[int, ...] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row leaves, others move up, and before the next call another one joins where keys and values of a longer one
    still lie. What the target says of each row is the uncached computation's in float64; the newcomer's drafts are
    those that it gets alone.
    """
    rounds, right = [], NativeRound.run
    monkeypatch.setattr(NativeRound, "run", lambda *args: rounds.append(right(*args)) or rounds[-1])
    model, drafter = parts_of(layers or ())
    uncached = copy.deepcopy(model).double()

    def engine() -> Engine:
        return Engine(model) if layers is None else Engine(model, drafter, make_verifier("block"), 4)

    def step(engine: Engine, spoken: list[Utterance]) -> list[int]:
        """Drafts of the last row."""
        asked = {utterance.row: utterance.request for utterance in spoken}
        session = engine.session
        before = {row: list(session.tokens[row]) for row in session.rows}
        done = len(rounds)
        engine.step()
        assert len(rounds) == done + 1
        found = rounds[-1]
        logits = found.tensors()[0]
        for place, (row, tokens) in enumerate(before.items()):
            kept = found.drafts[place][: found.accepted[place]]
            with torch.inference_mode():
                memory = encode(uncached, [asked[row].ids])
                expected = uncached(torch.tensor([[model.start_id, *tokens, *kept]]), memory).logits[0, len(tokens) :]
            torch.testing.assert_close(logits[place, : len(kept) + 1].double(), expected, atol=1e-4, rtol=0)
        return found.drafts[-1]

    crowd, asked = engine(), [request(seed, 60, SAMPLINGS[0]) for seed in range(101, 106)]
    spoken = crowd.admit(asked[:3])
    spoken += crowd.admit(asked[3:4])  # the store has room for two more rows from now on
    for _ in range(4):
        step(crowd, spoken)
    cache = crowd.session.cache
    assert isinstance(cache, KVCache) and len(cache.lengths) == 4
    store, old = cache._stores, cache.lengths[3]
    crowd.release(spoken[1:2])
    late = crowd.admit(asked[4:])
    assert cache._stores is store is not None and cache.lengths[3] == 0 and cache.k[:, 3, :, :old].all()
    alone = engine()
    same = alone.admit(asked[4:])
    for _ in range(5):
        assert step(crowd, [spoken[0], *spoken[2:], *late]) == step(alone, same)
    assert late[0].ended is None and len(late[0].tokens) >= 5


class Other(Chance):
    """Chance that is not made of streams that C knows."""

    def __init__(self) -> None:
        self.inner = Uniforms()
        for name in ("open", "bernoulli", "categorical"):
            setattr(self, name, getattr(self.inner, name))


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": SamplingConfig(guidance=2.0)},
        {"options": {"stop": "adaedl"}},
        {"rule": "coupled"},
        {"gamma": 0},
        {"chance": Other()},
        {"on_tensors": True},
        {"prefix": (1,) * 200},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_not_a_whole_step(change: dict[str, Any], counted: Counted) -> None:
    model, drafter = parts_of((1, 2), **change.get("options", {}))
    runtime = EagerRuntime(model, on_tensors=True) if "on_tensors" in change else None
    engine = Engine(
        model,
        drafter,
        make_verifier(change.get("rule", "block")),
        change.get("gamma", 3),
        runtime,
        change.get("chance"),
    )
    engine.admit([request(1, 230, change.get("sampling", SAMPLINGS[0]), change.get("prefix", ()))])
    engine.step()
    assert not counted.calls


def test_numbers_that_are_none_are_refused() -> None:
    for spoil in ("draft", "target"):
        model, drafter = parts_of((1, 2))
        with torch.no_grad():
            (model.decoder[1] if spoil == "target" else drafter.draft.layers[0]).ff.up.bias[3] = torch.nan
        engine = Engine(model, drafter, make_verifier("block"), 3)
        engine.admit([request(1, 20, SAMPLINGS[0])])
        with pytest.raises(NumericsError, match="NaN or infinity"):
            engine.step()
        with pytest.raises(ContractError, match="broken off"):
            engine.step()


@pytest.mark.parametrize("wrong", ["uniforms", "limits", "fresh", "features", "token", "room", "no draft"])
@torch.inference_mode()
def test_a_round_refuses_what_does_not_fit(wrong: str) -> None:
    model, drafter = parts_of((1, 2))
    engine = Engine(model, drafter, make_verifier("block"), 3)
    engine.admit([request(1, 20, SAMPLINGS[0])])
    engine.step()
    session = engine.session
    state, memory, cache = engine._loop.state, session.memory, session.cache  # type: ignore[union-attr]
    own, runner = state.draft, state.runner
    features = session.output.features  # type: ignore[union-attr]
    fresh, limits, uniforms, newest = [[1]], [3], [[0.5] * 7], [1]
    if wrong == "uniforms":
        uniforms = [[0.5] * 6]
    if wrong == "limits":
        limits = [3, 3]
    if wrong == "fresh":
        fresh = [[]]
    if wrong == "features":
        features = features[:1]
    if wrong == "token":
        newest = [99]
    if wrong == "room":
        own.cache.k = own.cache.k[:, :, :, :2].contiguous()
        own.cache.v = own.cache.v[:, :, :, :2].contiguous()
    native_draft = None if wrong == "no draft" else runner.native
    read = Past(own.cache, own.cross, own.cross_mask, runner.angles(40))
    with pytest.raises(ContractError):
        NativeRound(cache.native.stack, native_draft).run(  # type: ignore[attr-defined]
            newest, [SAMPLINGS[0]], uniforms, 12, Past(cache, memory.cross, memory.cross_mask, model.positions(40)),  # type: ignore[arg-type]
            (1, 2), Reading(limits, fresh, features, read),
        )  # fmt: skip
