"""Utterances that leave out words are drawn again: the conditioned law, enumerated, and what it rests on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from spear_spec.config import SamplingConfig, T2SConfig
from spear_spec.decoding import Request, make_verifier
from spear_spec.decoding.chance import REDRAW, derive
from spear_spec.decoding.completeness import Tries, missed
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


PIECES: dict[str, Any] = {"sampling": SAMPLINGS["top_k"], "seed": 7, "first": 1, "cap": 3}


@pytest.mark.parametrize("piece", [{}, {"tries": 3}, {"margin": 1}, {"first": 2, "margin": 1}])
def test_the_plain_loop_has_the_law_of_pieces(piece: dict[str, Any]) -> None:
    assert error(**PIECES | piece) < 1e-9


@pytest.mark.parametrize(
    "piece",
    [
        {"drafter": "right", "cap": 2, "seed": 11},  # every call settles tokens behind the place that is looked at
        {"drafter": "random", "seed": 4, "gamma": 1, "cap": 2},
    ],
)
def test_the_speculative_loop_has_it_as_well(piece: dict[str, Any]) -> None:
    assert error(**PIECES | piece) < 1e-9


class Stops(Engine):
    """Forgets that the last try may be worse than one before it."""

    def _finish(self, row: int, ended: str, tokens: list[int] | None = None) -> None:
        super()._finish(row, ended, None if tokens is None else list(self._tries[row].looked[-1].tokens))


class Once(Engine):
    """Draws again only once."""

    def _look(self, row: int, ended: str | None) -> None:
        if self._tries[row].number:
            self.misses = lambda *_: 0
        super()._look(row, ended)
        self.misses = planted


class Blind(Engine):
    """Looks only at utterances that ended by the end token."""

    def _look(self, row: int, ended: str | None) -> None:
        self.misses = planted if ended == "eos" else lambda *_: 0
        super()._look(row, ended)


class Long(Engine):
    """Draws again behind the first token of the try before."""

    def _anew(self, row: int, ended: str | None, tokens: Sequence[int]) -> None:
        super()._anew(row, ended, [t for t in self.session.tokens[row][:1] if t != self.target.eos_id])


class Ahead(Engine):
    """Looks at all that calls have settled, wherever they happened to end."""

    def _look(self, row: int, ended: str | None) -> None:
        tries, right = self._tries[row], Tries.due

        def due(tokens: Sequence[int], why: str | None) -> Any:
            found = right(tries, tokens, why)
            return found if found is None else (list(tokens), why)

        tries.due = due  # type: ignore[method-assign]
        super()._look(row, ended)


class Sparing(Engine):
    """Counts the tries of the whole utterance, not those behind what is kept."""

    def _look(self, row: int, ended: str | None) -> None:
        self._tries[row]._count = self._tries[row].number
        super()._look(row, ended)


class Far(Engine):
    """Goes back to the beginning, whatever is kept."""

    def _anew(self, row: int, ended: str | None, tokens: Sequence[int]) -> None:
        super()._anew(row, ended, [])


@pytest.mark.parametrize(("fault", "tries"), [(Stops, 2), (Once, 3), (Blind, 2), (Long, 2)])
def test_seeded_faults_are_seen(fault: type[Engine], tries: int) -> None:
    assert error(SAMPLINGS["plain"], engine=fault, tries=tries) > 1e-3


@pytest.mark.parametrize(
    ("fault", "piece"),
    [
        (Ahead, {"drafter": "right", "cap": 2, "seed": 11}),
        (Sparing, {}),
        (Far, {"first": 2, "margin": 1}),
        (Blind, {}),
    ],
)
def test_seeded_faults_of_pieces_are_seen(fault: type[Engine], piece: dict[str, Any]) -> None:
    assert error(**PIECES | piece, engine=fault) > 1e-3


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


def after(*rounds: int) -> Callable[[object, Request, Sequence[int], int, bool], int]:
    """Misses by look."""
    told = iter(rounds)
    return lambda target, request, speech, kept, ended: next(told)


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


def test_it_goes_back_to_what_is_kept(model: TextToSemantic) -> None:
    """Looked at behind 4, 8 and 12 tokens: the second look finds a gap twice, the last takes the better of two."""

    torch.manual_seed(2)
    wide = TextToSemantic(T2SConfig(20, 60, dim=32, source_depth=1, target_depth=3, heads=2, dim_head=16)).eval()
    with torch.no_grad():
        wide.semantic_emb.weight.mul_(0.1)
    law = SamplingConfig(temperature=1.0, top_p=1.0)

    def goes_on(behind: list[int], seed: int) -> list[int]:
        [found] = Engine(wide).run([Request(IDS, behind, seed, law, 12)])
        return found.tokens

    def tries(seed: int) -> list[list[int]]:
        first = goes_on([], seed)
        seeds = [derive(seed, number, REDRAW) for number in range(1, 5)]
        again = [goes_on(first[:3], other) for other in seeds[:2]]  # kept are 3, a gap at 8, and again
        return [first, *again, *(goes_on(again[1][:7], other) for other in seeds[2:])]

    seed = next(seed for seed in range(50) if {len(tokens) for tokens in tries(seed)} == {12})  # none ends early
    first, second, third, *last = tries(seed)
    engine = Engine(wide, misses=after(0, 1, 2, 0, 2, 1, 2))
    [found] = engine.admit([Request(IDS, (), seed, law, 12, Whole(((1, 3), (3, 5)), 3, first=4, margin=1))])
    heard = []
    while engine.running:
        heard.append(list(found.tokens))
        engine.step()
    drawn = [first[:4], first[:8], second[:8], third[:8], third, *last]
    assert [look.tokens for look in found.looked] == drawn
    assert [look.begun for look in found.looked] == [0, 4, 3, 3, 8, 7, 7]
    assert [look.number for look in found.looked] == [0, 0, 1, 2, 2, 3, 4]
    assert (found.tokens, found.redrawn) == (last[0], 4)
    assert sorted({len(tokens) for tokens in heard}) == [0, 3, 7]  # settled before the end, and never taken back
    assert all(tokens == last[0][: len(tokens)] for tokens in heard)


def test_shared_numbers_give_the_loops_own_tokens(model: TextToSemantic) -> None:
    """With the rule `coupled` speculation gives the same tokens and goes back as often, sentence or pieces."""
    drafter = TableDrafter(lambda row, prefix: [1 / model.vocab_size] * model.vocab_size, model.dtype)
    for first in (0, 4):
        whole = Whole(((1, 3), (3, 5)), 3, first=first, margin=1)
        law = SamplingConfig(temperature=1.0, top_p=1.0)
        requests = [Request(IDS, seed=seed, sampling=law, cap=20, whole=whole) for seed in range(8)]
        plain = Engine(model, misses=low).run(requests)
        ahead = Engine(model, drafter, make_verifier("coupled"), 3, misses=low).run(requests)
        assert [(u.tokens, u.ended, u.redrawn) for u in plain] == [(u.tokens, u.ended, u.redrawn) for u in ahead]
        assert sum(u.redrawn for u in plain) > 4
        assert sum(u.stats.target_calls for u in ahead) < sum(u.stats.target_calls for u in plain)


def low(target: object, request: Request, speech: Sequence[int], kept: int, ended: bool) -> int:
    return sum(token < 4 for token in speech[kept:])


def test_places_of_looks() -> None:
    whole = Whole((), first=16)
    assert [whole.place_after(n) for n in (0, 16, 40, 64, 127, 128, 300)] == [16, 32, 64, 128, 128, 192, 320]
    assert Whole(()).place_after(0) is None


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


def test_what_is_missed_of_a_piece(model: TextToSemantic) -> None:
    """Not what lies in what is kept, and not what may still come."""
    speech = [n * n % 6 for n in range(40)]
    attention, words = letter_attention(model, IDS, speech), ((0, 1), (1, 2), (2, 3), (3, 4))
    for ended in (True, False):
        starts = letter_starts(attention, ended)
        ends = starts[1:5]
        assert np.all(np.diff(starts) > 0)
        for margin, kept in ((2, 0), (2, int(ends[0]) + 1), (int(40 - ends[2]) + 1, 0)):
            request = Request(IDS, whole=Whole(words, least=10, stray=100, margin=margin))
            counted = [end >= kept and (ended or end <= 40 - margin) for end in ends]
            assert missed(model, request, speech, kept, ended) == sum(counted)
    assert missed(model, asked(), [], ended=False) == 0
    free = letter_starts(np.log(np.full((10, 30), 1e-3)), ended=False)
    assert free[6] < 10 < free[-1] + 1e-9 and free[20] > 9.5  # nothing draws it to the end of the text
    away = np.log(np.full((24, 30), 1e-3))
    for token, letter in enumerate([*range(12), *[1] * 6, *range(12, 18)]):
        away[token, letter] = np.log(0.97)
    at = letter_starts(away)
    assert [strays(away, at, 5, kept) for kept in (0, 17, 18)] == [1, 1, 0]


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
