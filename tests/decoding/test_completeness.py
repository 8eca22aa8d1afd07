"""Utterances that leave out words are drawn again: the conditioned law, enumerated, and what it rests on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch

from spear_spec.config import SamplingConfig, T2SConfig
from spear_spec.decoding import Request, make_verifier
from spear_spec.decoding.chance import REDRAW, derive
from spear_spec.decoding.completeness import missed
from spear_spec.decoding.request import Whole
from spear_spec.engine import Engine, Utterance
from spear_spec.errors import ConfigError
from spear_spec.exactness.oracles import (
    SAMPLINGS,
    TEXTS,
    Enumerating,
    TableDrafter,
    UncachedTarget,
    distance,
    draft_laws,
    tiny_model,
    walk,
)
from spear_spec.models.alignment import letter_attention, letter_starts, strays
from spear_spec.models.spear_tts import TextToSemantic

Law = dict[tuple[int, ...], float]


def planted(target: object, request: Request, speech: Sequence[int], kept: int = 0, ended: bool = True) -> int:
    """A rule on tokens in the place of attention: each text leaves out a word for every token 0, and ends too early
    without any.
    """
    assert request.whole is not None
    seen = speech[kept : len(speech) if ended else max(0, len(speech) - request.whole.margin)]
    return sum(token == 0 for token in seen) + (ended and not speech)


def conditioned(law: Law, eos: int, tries: int) -> Law:
    """The oracle, try by try: every tuple of whole utterances, and the one of them that is kept."""
    out: Law = defaultdict(float)
    asked = Request([1], whole=Whole(()))
    words = {tokens: planted(None, asked, [t for t in tokens if t != eos]) for tokens in law}
    for drawn in product(law, repeat=tries):
        weight = 1.0
        for tokens in drawn:
            weight *= law[tokens]
        first = next((tokens for tokens in drawn if words[tokens] == 0), None)
        out[min(drawn, key=words.__getitem__) if first is None else first] += weight
    return dict(out)


def piecewise(target: UncachedTarget, request: Request, cap: int) -> Law:
    """The oracle of utterances that are looked at on their way: the definition, branch by branch, without any loop."""
    whole, eos = request.whole, target.model.eos_id
    assert whole is not None
    places = [2**n * whole.first for n in range(9)]
    out: Law = defaultdict(float)

    def on(drawn: tuple[int, ...], kept: int, failed: list[tuple[tuple[int, ...], bool, int]], weight: float) -> None:
        """drawn: tokens that no end follows yet; what is wrong is drawn again behind the first `kept` of them."""
        place = next(n for n in places if n > last[kept])
        if len(drawn) < min(place, cap):
            for token, p in enumerate(target(drawn)):
                if p > 0 and token == eos:
                    look((*drawn, token), True, kept, failed, weight * p)
                elif p > 0:
                    on((*drawn, token), kept, failed, weight * p)
        else:
            look(drawn, len(drawn) == cap, kept, failed, weight)

    def look(
        drawn: tuple[int, ...], ended: bool, kept: int, failed: list[tuple[tuple[int, ...], bool, int]], weight: float
    ) -> None:
        wrong = planted(None, request, [t for t in drawn if t != eos], kept, ended)
        failed = [*failed, (drawn, ended, wrong)]
        if wrong and len(failed) < whole.tries:
            on(drawn[:kept], kept, failed, weight)
            return
        best, over, _ = min(failed, key=lambda entry: entry[2])
        if over:
            out[best] += weight
            return
        now = max(kept, len(best) - whole.margin)
        before, last[now] = last.get(now), len(best)
        on(best, now, [], weight)
        del last[now]
        if before is not None:
            last[now] = before

    last = {0: 0}  # by number of kept tokens: the place where they were found to be well
    on((), 0, [], 1.0)
    return dict(out)


def error(
    sampling: SamplingConfig,
    *,
    drafter: str | None = None,
    rule: str = "rejection",
    tries: int = 2,
    batch: int = 1,
    watch: int = 0,
    gamma: int = 2,
    engine: type[Engine] = Engine,
    cap: int = 2,
    first: int = 0,
    margin: int = 0,
    seed: int = 3,
) -> float:
    """Largest error of the law of utterance `watch`, by enumeration in float64 of all branches of all tries."""
    model = tiny_model(semantic=2, seed=seed)
    targets = [UncachedTarget(model, text, sampling) for text in TEXTS[:batch]]
    whole = Whole(((0, 1),), tries, first=first, margin=margin)
    asked = [
        Request([i for i in text if i != model.text_eos_id], sampling=sampling, cap=cap, whole=whole)
        for text in TEXTS[:batch]
    ]

    def run(chance: Enumerating) -> tuple[int, ...]:
        drafts: Any = (None, None)
        if drafter is not None:
            drafts = TableDrafter(draft_laws(drafter, targets)), make_verifier(rule)
        found = engine(model, *drafts, gamma=gamma, chance=chance, misses=planted).run(asked)
        return tuple(found[watch].tokens)

    if first:
        law = piecewise(targets[watch], asked[watch], cap)
    else:
        law = conditioned(targets[watch].sequences(cap), model.eos_id, tries)
    return distance(walk(run, watch), law)


@pytest.fixture(autouse=True)
def _untied(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model has two layers: whether it can tell letters does not matter where the rule is planted."""
    monkeypatch.setattr("spear_spec.engine.check_whole", lambda target, request: None)


@pytest.mark.parametrize(("tries", "cap"), [(1, 3), (2, 2), (3, 2)])
def test_the_plain_loop_has_the_conditioned_law(tries: int, cap: int) -> None:
    assert error(SAMPLINGS["plain"], tries=tries, cap=cap) < 1e-9


@pytest.mark.parametrize(("rule", "gamma"), [("rejection", 1), ("block", 2)])
def test_the_speculative_loop_has_it_too(rule: str, gamma: int) -> None:
    assert error(SAMPLINGS["plain"], drafter="random", rule=rule, gamma=gamma) < 1e-9


@pytest.mark.parametrize("sampling", ["top_p", "top_k"])
def test_under_other_sampling(sampling: str) -> None:
    assert error(SAMPLINGS[sampling], drafter="random") < 1e-9


@pytest.mark.parametrize("watch", [1])
def test_beside_others(watch: int) -> None:
    """Rows that are drawn again leave and join beside rows that are decoded on."""
    assert error(SAMPLINGS["plain"], batch=2, watch=watch) < 1e-9
    assert error(SAMPLINGS["plain"], drafter="random", batch=2, watch=watch) < 1e-9


class Stops(Engine):
    """Forgets that the last try may be worse than one before it."""

    def _finish(self, row: int, ended: str) -> None:
        if row in self._tries:
            self._tries[row].tokens = list(self.session.tokens[row])
        super()._finish(row, ended)


class Once(Engine):
    """Draws again only once."""

    def _again(self, row: int, ended: str) -> bool:
        return self._tries[row].count < 1 and super()._again(row, ended)


class Blind(Engine):
    """Looks only at utterances that ended by the end token."""

    def _again(self, row: int, ended: str) -> bool:
        return ended == "eos" and super()._again(row, ended)


class Long(Engine):
    """Draws again behind the first token of the try before."""

    def _again(self, row: int, ended: str) -> bool:
        first = [t for t in self.session.tokens[row][:1] if t != self.target.eos_id]
        utterance = self._running[row]
        old = utterance.request
        utterance.request = Request(old.ids, first, sampling=old.sampling, cap=old.cap, whole=old.whole)
        again = super()._again(row, ended)
        utterance.request = old
        return again


@pytest.mark.parametrize(("fault", "tries"), [(Stops, 2), (Once, 3), (Blind, 2), (Long, 2)])
def test_seeded_faults_are_seen(fault: type[Engine], tries: int) -> None:
    assert error(SAMPLINGS["plain"], engine=fault, tries=tries) > 1e-3


# --- the streams, and what an utterance shows of it ------------------------------------------------------------------

SHAPE = T2SConfig(20, 6, dim=32, source_depth=1, target_depth=3, heads=2, dim_head=16)
IDS = [3, 5, 7, 9, 11]


@pytest.fixture(scope="module")
def model() -> TextToSemantic:
    torch.manual_seed(1)
    model = TextToSemantic(SHAPE).eval()
    with torch.no_grad():
        model.semantic_emb.weight.mul_(0.1)
    return model


def after(*rounds: int) -> Callable[[object, Request, Sequence[int]], int]:
    """Misses by try."""
    told = iter(rounds)
    return lambda target, request, speech: next(told)


def asked(seed: int = 5, tries: int = 4, temperature: float = 1.0) -> Request:
    law = SamplingConfig(temperature=temperature, top_p=1.0)
    return Request(IDS, seed=seed, sampling=law, cap=12, whole=Whole(((1, 3), (3, 5)), tries))


def bare(model: TextToSemantic, seed: int) -> Utterance:
    [found] = Engine(model).run([Request(IDS, seed=seed, sampling=SamplingConfig(temperature=1.0, top_p=1.0), cap=12)])
    return found


def test_each_try_has_a_stream_of_its_own(model: TextToSemantic) -> None:
    tries = [bare(model, seed) for seed in (5, derive(5, 1, REDRAW), derive(5, 2, REDRAW))]
    assert len({tuple(one.tokens) for one in tries}) == 3
    [found] = Engine(model, misses=after(2, 1, 0)).run([asked()])
    assert found.tokens == tries[2].tokens
    assert (found.redrawn, found.ended) == (2, tries[2].ended)
    assert found.stats.tokens == sum(one.stats.tokens for one in tries)
    assert found.stats.target_calls == sum(one.stats.target_calls for one in tries)
    [kept] = Engine(model, misses=after(2, 1, 1)).run([asked(tries=3)])
    assert kept.tokens == tries[1].tokens
    assert kept.redrawn == 2


def test_nothing_is_handed_out_before_it_is_settled(model: TextToSemantic) -> None:
    engine = Engine(model, misses=after(1, 0))
    [found] = engine.admit([asked()])
    rows = set()
    while engine.running:
        assert found.tokens == []
        assert found.ended is None
        rows.add(found.row)
        engine.step()
    assert rows == {0}
    assert found.tokens == bare(model, derive(5, 1, REDRAW)).tokens


def test_greedy_is_not_drawn_again(model: TextToSemantic) -> None:
    [found] = Engine(model, misses=after(3)).run([asked(temperature=0.0)])
    assert found.redrawn == 0
    assert found.tokens


def test_cancelled_between_two_tries(model: TextToSemantic) -> None:
    engine = Engine(model, misses=after(1))
    one, other = engine.admit([asked(), Request(IDS, seed=9, cap=40)])
    while not one.redrawn:
        engine.step()
    engine.release([one])
    assert (one.ended, one.tokens) == ("cancelled", [])
    while engine.running:
        engine.step()
    [alone] = Engine(model).run([Request(IDS, seed=9, cap=40)])
    assert other.tokens == alone.tokens


def test_words_that_take_no_time_are_missed(model: TextToSemantic) -> None:
    """The rule itself, against the alignment that it reads."""
    speech = bare(model, 5).speech
    starts = letter_starts(letter_attention(model, IDS, speech))
    pace = [(starts[last] - starts[first]) / (last - first) for first, last in ((1, 3), (3, 5))]
    between = sum(pace) / 2
    for least, count in ((0.0, 0), (between, 1), (max(pace) + 0.01, 2)):
        request = Request(IDS, whole=Whole(((1, 3), (3, 5)), least=least, stray=100))
        assert missed(model, request, speech) == count
    assert missed(model, asked(), []) == 2
    assert missed(model, Request(IDS), speech) == 0
    lost = strays(letter_attention(model, IDS, speech), starts, 1)
    assert missed(model, Request(IDS, whole=Whole(((1, 3),), least=0.0, stray=1)), speech) == lost


def test_what_cannot_be_asked(model: TextToSemantic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for wrong in ({"tries": 0}, {"least": -1.0}, {"tries": 1.5}):
        with pytest.raises(ConfigError):
            Whole(((1, 2),), **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="past its last"):
        Whole(((2, 2),))
    with pytest.raises(ConfigError, match="outside a text"):
        Engine(model).admit([Request(IDS, whole=Whole(((4, 6),)))])
    with pytest.raises(ConfigError, match="3 decoder layers"):
        Engine(tiny_model(semantic=2, seed=3)).admit([Request([1, 2], whole=Whole(((0, 1),)))])
