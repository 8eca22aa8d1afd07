"""The engine: utterances that join, leave and are cancelled say what they say alone; its faults are seen."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from spear_spec.config import SamplingConfig
from spear_spec.decoding import Request, Session, make_drafter, make_verifier
from spear_spec.decoding.chance import SENTENCE, Uniforms, derive, device_uniforms, uniforms
from spear_spec.decoding.loop import Speculative
from spear_spec.engine import Engine, Utterance
from spear_spec.errors import ConfigError, ContractError, TextError
from spear_spec.exactness.oracles import SAMPLINGS, UncachedTarget, chi_square, distance, tiny_draft, tiny_model, walk
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.cache import KVCache
from spear_spec.runtime.eager import EagerRuntime

TEXTS = [[3, 1, 4], [2], [5, 5, 6, 2, 1], [6], [1, 2, 3], [4, 4], [2, 6, 1, 5], [3]]
MIXED = [
    SamplingConfig(temperature=1.0, top_p=1.0),
    SamplingConfig(temperature=1.2, top_p=0.9, guidance=2.0),
    SamplingConfig(temperature=0.5, top_k=4, top_p=1.0),
    SamplingConfig(temperature=0.0),
]


def requests(count: int, seed: int = 0) -> list[Request]:
    """Of all kinds: texts of several lengths, four samplings, prefixes, caps."""
    rng = random.Random(seed)
    return [
        Request(
            TEXTS[n % len(TEXTS)],
            prefix=tuple(rng.randrange(20) for _ in range(rng.choice((0, 0, 1, 4)))),
            seed=derive(seed, n, SENTENCE),
            sampling=MIXED[rng.randrange(4)],
            cap=rng.randint(6, 24),
        )
        for n in range(count)
    ]


def engine(model: TextToSemantic, rule: str | None, **options: Any) -> Engine:
    if rule is None:
        return Engine(model, **options)
    return Engine(model, make_drafter("eagle", tiny_draft(model)), make_verifier(rule), 4, **options)


def restless(engine: Engine, wanted: list[Request], seed: int) -> list[Utterance]:
    """Requests that join at random steps; every fourth is cancelled on the way."""
    rng, waiting, all_ = random.Random(seed), list(wanted), []
    doomed: list[Utterance] = []
    while waiting or engine.running:
        for _ in range(min(len(waiting), rng.randint(0 if engine.running else 1, 3))):
            (utterance,) = engine.admit([waiting.pop(0)])
            all_.append(utterance)
            if len(all_) % 4 == 0:
                doomed.append(utterance)
        if engine.running:
            engine.step()
        if doomed and rng.random() < 0.3:
            engine.release([doomed.pop(rng.randrange(len(doomed)))])
    return all_


@pytest.fixture(scope="module")
def model() -> TextToSemantic:
    return tiny_model(semantic=20, seed=4)  # in float64 rounding moves no draw


@pytest.mark.parametrize("rule", [None, "rejection", "block"])
@pytest.mark.parametrize("seed", [0, 1])
def test_an_utterance_does_not_notice_who_comes_and_goes(model: TextToSemantic, rule: str | None, seed: int) -> None:
    wanted = requests(20, seed)
    together = restless(engine(model, rule), wanted, seed)
    cancelled = 0
    for request, utterance in zip(wanted, together):
        (alone,) = engine(model, rule).run([request])
        if utterance.ended == "cancelled":
            cancelled += 1
            assert utterance.tokens == alone.tokens[: len(utterance.tokens)]
        else:
            assert (utterance.tokens, utterance.ended) == (alone.tokens, alone.ended)
            assert vars(utterance.stats) == vars(alone.stats)
        assert utterance.tokens[: len(request.prefix)] == list(request.prefix)
    assert cancelled >= 1


@pytest.mark.parametrize("rule", ["rejection", "block", "tolerance", "lenience", "matching", "typical"])
def test_rules_on_tensors_say_the_same(model: TextToSemantic, rule: str) -> None:
    wanted = requests(12, 3)
    lists = restless(engine(model, rule), wanted, 3)
    tensors = restless(engine(model, rule, runtime=EagerRuntime(model, on_tensors=True)), wanted, 3)
    assert [u.tokens for u in lists] == [u.tokens for u in tensors]
    assert any(u.stats.accepted for u in lists)


def test_the_law_of_a_row_that_joined_late() -> None:
    """Enumerated: the watched row joins after a step of two others, one of which is cancelled beside it."""
    tiny = tiny_model(semantic=2, seed=3)
    target = UncachedTarget(tiny, [3, 1, 4, 7], SAMPLINGS["plain"])

    def run(chance: Any) -> tuple[int, ...]:
        busy = engine(tiny, "block", chance=chance)
        plain = SAMPLINGS["plain"]
        gone, _ = busy.admit([Request([5, 5], sampling=plain, cap=4), Request([2], sampling=SAMPLINGS["all"], cap=3)])
        busy.step()
        (watched,) = busy.admit([Request([3, 1, 4], sampling=plain, cap=3)])
        assert watched.row == 2
        busy.step() if busy.running else None
        busy.release([gone])
        while busy.running:
            busy.step()
        return tuple(watched.tokens)

    assert distance(walk(run, watch=2, seed=5), target.sequences(3)) < 1e-9


def test_a_prefix_goes_on_by_the_law_of_what_follows_it() -> None:
    tiny = tiny_model(semantic=2, seed=3)
    target, prefix = UncachedTarget(tiny, [3, 1, 4, 7], SAMPLINGS["plain"]), (1, 0)
    want: dict[tuple[int, ...], float] = {}

    def grow(tokens: tuple[int, ...], weight: float) -> None:
        if len(tokens) == 4 or tokens[-1] == tiny.eos_id:
            want[tokens] = want.get(tokens, 0.0) + weight
            return
        for token, p in enumerate(target(tokens)):
            grow((*tokens, token), weight * p)

    grow(prefix, 1.0)
    for rule in (None, "rejection"):

        def run(chance: Any, rule: str | None = rule) -> tuple[int, ...]:
            (spoken,) = engine(tiny, rule, chance=chance).run(
                [Request([3, 1, 4], prefix, sampling=SAMPLINGS["plain"], cap=4)]
            )
            return tuple(spoken.tokens)

        assert distance(walk(run), want) < 1e-9


def test_the_law_under_load_by_sampling() -> None:
    """Utterances of one text among others of other samplings, against the enumerated law: chi-square."""
    from collections import Counter

    tiny = tiny_model(semantic=3, dtype=torch.float32, seed=3)
    law = UncachedTarget(tiny_model(semantic=3, seed=3), [3, 1, 4, 7], MIXED[0]).sequences(3)
    busy, rng, counts = engine(tiny, "block"), random.Random(0), Counter[tuple[int, ...]]()
    running: list[Utterance] = []
    number = 0
    while sum(counts.values()) < 900:
        while len(running) < 6:
            ours = rng.random() < 0.6
            text, sampling = ([3, 1, 4], MIXED[0]) if ours else (rng.choice(TEXTS), rng.choice(MIXED))
            running += busy.admit(
                [Request(text, seed=derive(7, number, SENTENCE), sampling=sampling, cap=3 if ours else 9)]
            )
            number += 1
        busy.step()
        for utterance in [u for u in running if u.ended is not None]:
            running.remove(utterance)
            if utterance.request.cap == 3:
                counts[tuple(utterance.tokens)] += 1
    # those still under way are left out: an utterance has at most three tokens, so none is left out for long
    assert chi_square(counts, law, sum(counts.values())) > 0.001


def test_rows_are_used_again_and_nothing_grows(model: TextToSemantic) -> None:
    busy = engine(model, "block")
    kept = []
    for n in range(60):
        kept += busy.admit([Request(TEXTS[n % 8], seed=n, cap=5)])
        while len(busy.session.rows) > 3:
            busy.step()
    while busy.running:
        busy.step()
    assert len(busy.session.tokens) <= 5 and all(len(u.tokens) for u in kept)
    assert busy.session.runtime.cache.k.shape[1] <= 5


def test_what_cannot_be_asked_for_is_refused_and_changes_nothing(model: TextToSemantic) -> None:
    busy = engine(model, "block")
    (one,) = busy.admit([Request(TEXTS[0], seed=1, cap=20)])
    busy.step()
    for wrong in (
        lambda: Request(TEXTS[0], seed=-1),
        lambda: Request(TEXTS[0], seed=2**64),
        lambda: Request(TEXTS[0], seed="a"),  # type: ignore[arg-type]
        lambda: Request(TEXTS[0], cap=0),
        lambda: Request(TEXTS[0], sampling={"temperature": 1}),  # type: ignore[arg-type]
        lambda: busy.admit([Request(TEXTS[0], prefix=(1, 20))]),  # the end token
        lambda: busy.admit([Request(TEXTS[0], prefix=(1, 2, 3), cap=3)]),
    ):
        with pytest.raises(ConfigError):
            wrong()
    for ids in ([], [0], [7], [1, 99]):
        with pytest.raises(TextError):
            busy.admit([Request(TEXTS[1], seed=2), Request(ids)])
    while busy.running:
        busy.step()
    (alone,) = engine(model, "block").run([Request(TEXTS[0], seed=1, cap=20)])
    assert one.tokens == alone.tokens
    with pytest.raises(ContractError, match="admit"):
        busy.step()


def test_a_step_that_was_broken_off_ends_the_session(model: TextToSemantic, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = engine(model, "rejection")
    busy.admit([Request(TEXTS[0], seed=1, cap=20)])
    right = KVCache.crop
    for error in (KeyboardInterrupt, RuntimeError):
        monkeypatch.setattr(KVCache, "crop", lambda self, lengths, error=error: (_ for _ in ()).throw(error()))
        with pytest.raises(error if error is KeyboardInterrupt else (RuntimeError, ContractError)):
            busy.step()
        monkeypatch.setattr(KVCache, "crop", right)
        for act in (busy.step, lambda: busy.admit([Request(TEXTS[1])])):
            with pytest.raises(ContractError, match="broken off"):
                act()


def test_streams_are_the_same_however_they_are_made() -> None:
    seeds, first = [0, 7, 2**63 + 5, 2**64 - 1], [0, 1, 511, 2**40 + 1]
    for start in first:
        want = torch.stack([torch.from_numpy(uniforms(seed, start, 9)) for seed in seeds])
        signed = torch.tensor([seed - 2**64 if seed >= 2**63 else seed for seed in seeds])
        assert torch.equal(device_uniforms(signed, torch.full((4,), start), 9), want)
    chance = Uniforms([7, 2**64 - 1])
    assert chance.ahead(1, 600) == uniforms(2**64 - 1, 0, 600).tolist()
    chance.passed(1, 300)
    assert chance.ahead(1, 4) == uniforms(2**64 - 1, 300, 4).tolist()
    assert len({derive(5, n, use) for n in range(100) for use in (1, 2)} | {derive(5 + 2**32, 0, 1)}) == 201
    big = torch.from_numpy(uniforms(3, 0, 200_000))
    assert float(big.min()) >= 0 and float(big.max()) < 1
    assert abs(float(big.mean()) - 0.5) < 4 * (1 / 12 / 200_000) ** 0.5


# --- seeded faults ---------------------------------------------------------------------------------------------------


def neighbours_cache(patch: pytest.MonkeyPatch) -> None:
    """A row that joins gets the keys of the row before it."""
    right = KVCache.join

    def join(self: KVCache, other: KVCache) -> None:
        before = self.batch
        right(self, other)
        if before:
            self.lengths[before] = self.lengths[before - 1]
            self.k[:, before], self.v[:, before] = self.k[:, before - 1], self.v[:, before - 1]

    patch.setattr(KVCache, "join", join)


def a_counter_used_twice(patch: pytest.MonkeyPatch) -> None:
    """A trial looks at a number without taking it: the next draw has it again."""
    patch.setattr(Uniforms, "bernoulli", lambda self, p, row: self.ahead(row, 1)[0] < p)


def a_cancelled_row_that_still_writes(patch: pytest.MonkeyPatch) -> None:
    """It leaves the session, and its lane stays in front of the others."""
    patch.setattr(EagerRuntime, "leave", lambda self, stay: None)


def sampling_of_the_wrong_row(patch: pytest.MonkeyPatch) -> None:
    right = Session.laws_of

    def laws_of(self: Session, *args: Any) -> torch.Tensor:
        mine = self.samplings
        self.samplings = [*mine[1:], mine[0]]
        try:
            return right(self, *args)
        finally:
            self.samplings = mine

    patch.setattr(Session, "laws_of", laws_of)


def a_drafter_that_does_not_release(patch: pytest.MonkeyPatch) -> None:
    right = Speculative._tell
    patch.setattr(
        Speculative, "_tell", lambda self, what, argument: None if what == "release" else right(self, what, argument)
    )


def the_prefix_is_not_read(patch: pytest.MonkeyPatch) -> None:
    right = EagerRuntime.admit
    patch.setattr(
        EagerRuntime, "admit", lambda self, memory, guided, prefixes: right(self, memory, guided, [()] * len(prefixes))
    )


def a_stream_is_not_opened_anew(patch: pytest.MonkeyPatch) -> None:
    """A row number that is used again goes on with the stream of the row before."""
    right = Uniforms.open
    patch.setattr(Uniforms, "open", lambda self, row, seed: None if row in self._seeds else right(self, row, seed))


FAULTS: list[Callable[[pytest.MonkeyPatch], None]] = [
    neighbours_cache,
    a_counter_used_twice,
    a_cancelled_row_that_still_writes,
    sampling_of_the_wrong_row,
    a_drafter_that_does_not_release,
    the_prefix_is_not_read,
    a_stream_is_not_opened_anew,
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_engine_is_seen(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes out is compared with what each utterance says alone, without the fault."""
    exact = tiny_model(semantic=20, seed=4)
    wanted = requests(20, 1)
    alone = [engine(exact, "block").run([request])[0].tokens for request in wanted]
    fault(monkeypatch)
    try:
        together = restless(engine(exact, "block"), wanted, 1)
    except Exception:
        return  # it did not get away with it
    same = [u.tokens == tokens[: len(u.tokens)] for u, tokens in zip(together, alone)]
    assert not all(same), f"{fault.__name__} went unnoticed"
