"""Who joins the batch, by the clock: functions of listeners alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spear_spec.acoustic.speaking import Voiced, sentence_noise
from spear_spec.config import SamplingConfig
from spear_spec.decoding import DecodeStats, Request
from spear_spec.engine import Utterance
from spear_spec.pipeline import TTS
from spear_spec.serving.limits import Limits
from spear_spec.serving.listener import Listener, Sentence
from spear_spec.serving.order import joining
from spear_spec.serving.scheduler import Scheduler
from spear_spec.serving.speech import Ask, Speech
from spear_spec.text import Segment
from tests.serving.driven import Clock, prepared, settle, there

NOW = 1000.0


def sentence(seconds: float = 5.0) -> Sentence:
    return Sentence(0, Segment("a", [1, 2]), seconds, NOW)


def listener(
    number: int, left: float | None = None, *, ready: int = 1, running: int = 0, unread: float = 0
) -> Listener:
    """One with so many seconds to hear (None: has heard nothing)."""
    speech = Speech(None, 0, 1000)  # type: ignore[arg-type]
    speech._unread = int(unread * 1000)
    one = Listener(number, speech, Ask("a"), "s", SamplingConfig(), NOW, NOW, NOW)
    one.ready.extend(sentence() for _ in range(ready))
    one.under_way.extend(sentence() for _ in range(running))
    if left is not None:
        one.dry, one.handed_s = NOW + left, 1.0
    return one


def joined(*there: Listener, rows: int = 0, **limits: Any) -> list[int]:
    return [one.number for one, _ in joining(there, rows, NOW, Limits(**limits))]


def test_who_has_heard_nothing_joins_at_once_in_order_of_arrival() -> None:
    assert joined(listener(3), listener(1, 0.5), listener(2)) == [2, 3, 1]
    assert joined(listener(3, ready=2), listener(2, running=1)) == [3]


@pytest.mark.parametrize("limit", [1, 4])
def test_no_row_is_too_many_for_a_first_sound(limit: int) -> None:
    new = [listener(n) for n in range(5)]
    assert [one.number for one, _ in joining(new, limit, NOW, Limits(rows=limit))] == [0, 1, 2, 3, 4]


def test_then_who_runs_dry_first() -> None:
    some = [listener(1, 3.0), listener(2, 2.0), listener(3, 3.5)]
    assert [one.number for one, _ in joining(some, 0, NOW, Limits(rows=2))] == [2, 1]


def test_who_has_much_to_hear_waits_for_who_is_pressed() -> None:
    assert joined(listener(1, 20.0), listener(2, 1.0)) == [2]
    assert joined(listener(1, 20.0), listener(2, 1.0, ready=0, running=1)) == []
    assert joined(listener(1, 20.0), listener(2, ready=0, running=1)) == []  # the other has heard nothing yet
    assert joined(listener(1, 20.0), listener(2, 1.0, ready=0)) == [1]  # nothing can be done for him
    assert joined(listener(1, 20.0), listener(2, 3.0)) == [2, 1]


def test_about_to_run_dry_is_above_the_rows() -> None:
    assert [one.number for one, _ in joining([listener(1, 0.2)], 4, NOW, Limits(rows=4))] == [1]
    assert [one.number for one, _ in joining([listener(1, 3.0)], 4, NOW, Limits(rows=4))] == []
    # but not with a second sentence, which keeps nobody else out
    both = [listener(1, -5.0, running=1), listener(2), listener(3, 0.2)]
    assert [one.number for one, _ in joining(both, 4, NOW, Limits(rows=4))] == [2, 3]
    assert [one.number for one, _ in joining([listener(1, -5.0, running=1)], 4, NOW, Limits(rows=4))] == []


def test_a_lone_listener_fills_the_rows_up_to_his_buffer() -> None:
    one = listener(1, 0.0, ready=9)
    assert len(joining([one], 0, NOW, Limits(rows=16, buffer_s=22))) == 5
    assert joined(listener(1, 20.0, unread=22.0), buffer_s=22) == []
    assert len(joining([listener(1, 0.0, ready=9)], 0, NOW, Limits(rows=3, buffer_s=100))) == 3


def test_the_front_end_goes_by_the_same_order(driven: Callable[..., Scheduler], clock: Clock) -> None:
    """First sentences before later ones, whoever came first."""
    scheduler = driven()
    early = scheduler.speak(Ask("One is one. Two is two. Three is three."))
    assert scheduler.work_front()
    late = scheduler.speak(Ask("Four is four. Five is five."))
    assert scheduler.work_front()
    one, two = scheduler._listeners[early], scheduler._listeners[late]
    assert (one.count, two.count) == (1, 1)
    one.dry, one.handed_s, two.dry, two.handed_s = clock.now + 9, 1.0, clock.now + 1, 1.0
    one.under_way.extend(one.ready), two.under_way.extend(two.ready)
    one.ready.clear(), two.ready.clear()
    assert scheduler.work_front() and (one.count, two.count) == (1, 2)


def test_a_new_request_is_heard_while_others_fill_the_batch(driven: Callable[..., Scheduler]) -> None:
    """Two rows, both taken by long sentences: the third is in the very next step, and heard before they end."""
    scheduler = driven(rows=2)
    long = [scheduler.speak(Ask("Ten small birds sat on a wire. " * 9, seed=n)) for n in range(2)]
    prepared(scheduler)
    scheduler.work_step()
    new = scheduler.speak(Ask("One.", seed=1))
    prepared(scheduler)
    scheduler.work_step()
    assert len(scheduler._engine.session.rows) == 3
    while not new.unread_s:
        assert scheduler.work_step()
        scheduler.work_sound()
    assert not any(speech.over for speech in long)
    settle(scheduler)


def test_sound_is_made_first_for_who_runs_dry_first(driven: Callable[..., Scheduler], clock: Clock) -> None:
    scheduler = driven()
    answers = [scheduler.speak(Ask("Ten small birds sat on a wire.", seed=n)) for n in range(3)]
    prepared(scheduler)
    while scheduler.work_step():
        pass
    rest = [scheduler._listeners[speech] for speech in answers]
    rest[0].dry, rest[1].dry = clock.now + 2, clock.now + 1
    order = []
    while scheduler.work_sound():
        order += [n for n, speech in enumerate(answers) if speech.unread_s and n not in order]
    assert order == [2, 1, 0]


def chunks(tts: TTS, hurry: bool) -> list[tuple[int, bytes]]:
    """The sound of 66 tokens that come two by two: how many were there, and what was taken."""
    utterance = Utterance(Request([1]), 0, [], DecodeStats())
    voiced = Voiced(tts.stage, Segment("a", [1], 0.1), utterance, "af_heart", sentence_noise(1, 0))
    out: list[tuple[int, bytes]] = []
    for n in range(33):
        utterance.tokens += [n % 16, (n * n) % 16]
        utterance.ended = "cap" if n == 32 else None
        voiced.see()
        while voiced.due(True, hurry):
            out.append((len(utterance.tokens), voiced.take()().tobytes()))
    assert voiced.ended == "cap" and not voiced.due(True, hurry)
    return out


def test_who_runs_dry_gets_a_small_chunk(tts: TTS) -> None:
    calm, pressed = chunks(tts, False), chunks(tts, True)
    assert b"".join(piece for _, piece in calm) == b"".join(piece for _, piece in pressed)
    assert sum(len(piece) for _, piece in calm) == 4 * (2400 + 66 * 960)
    first = 2 * -(-(8 + tts.stage.lookahead) // 2)  # type: ignore[operator]
    assert [at for at, _ in calm] == [2, first, first + 16, first + 48, 66][: len(calm)]
    assert [at for at, _ in pressed] == [2, *range(first, 66, 8), 66]


def test_a_listener_at_the_edge_is_in_a_hurry(driven: Callable[..., Scheduler], clock: Clock) -> None:
    scheduler = driven()
    speech = scheduler.speak(Ask("Ten small birds sat on a wire.", seed=4))
    prepared(scheduler)
    scheduler.work_step()
    one = scheduler._listeners[speech]
    told: list[bool] = []
    one.under_way[0].voiced.due = lambda heard, hurry: bool(told.append(hurry))  # type: ignore[union-attr, method-assign, func-returns-value]
    for left, handed in ((0.2, 1.0), (0.4, 1.0), (-5.0, 1.0), (0.2, 0.0)):
        one.dry, one.handed_s = clock.now + left, handed
        scheduler.work_sound()
    assert told == [True, False, True, False]


def test_everyone_is_served_to_the_end(driven: Callable[..., Scheduler], clock: Clock) -> None:
    """One who is far ahead beside others who keep coming: he waits, and gets his turn before he runs dry."""
    scheduler = driven(rows=2, streams=8, buffer_s=2)
    book = scheduler.speak(Ask(" ".join(f"This is sentence number {n}." for n in range(16)), seed=1))
    settle(scheduler)
    there(book)
    others = 0
    running: list[Speech] = []
    while not book.over and others < 2000:
        if len(running) < 4:
            running.append(scheduler.speak(Ask("Where were you? At the station, of course.", seed=others)))
            others += 1
        for _ in range(6):
            scheduler.work_front(), scheduler.work_step(), scheduler.work_sound()
        clock.now += 0.05
        there(book)
        for speech in [one for one in running if one.over]:
            there(speech)
            running.remove(speech)
    assert book.over and scheduler.state().totals.answered > 3


def test_underruns_are_counted_by_the_clock(driven: Callable[..., Scheduler], clock: Clock) -> None:
    seen: list[Any] = []
    scheduler = driven(observe=seen.append)
    speech = scheduler.speak(Ask("It rained all day. Nobody minded.", seed=1))
    prepared(scheduler)
    clock.now += 0.25
    listener = scheduler._listeners[speech]
    while listener.heard is None:
        scheduler.work_step(), scheduler.work_sound()
        there(speech)
    clock.now += listener.handed_s + 0.5  # all of it has been played, and half a second of silence
    before = listener.handed_s
    while listener.handed_s == before:
        scheduler.work_step(), scheduler.work_sound()
    assert listener.gaps == [pytest.approx(0.5)]
    settle(scheduler)
    there(speech)
    assert scheduler.state().totals.underruns == 1
    (told,) = seen
    assert told.first_sound_s == pytest.approx(0.25) and told.gaps_s == (pytest.approx(0.5),) and told.ended == "eos"


def test_sound_that_was_not_fetched_is_no_underrun(driven: Callable[..., Scheduler], clock: Clock) -> None:
    scheduler = driven()
    speech = scheduler.speak(Ask("It rained all day. Nobody minded.", seed=1))
    while not speech.over:
        scheduler.work_front(), scheduler.work_step(), scheduler.work_sound()
        clock.now += 1
    assert scheduler.state().totals.underruns == 0


def test_rows_of_the_engine_are_let_go(driven: Callable[..., Scheduler]) -> None:
    scheduler = driven(rows=3)
    for n in range(12):
        speech = scheduler.speak(Ask("Where were you? At the station, of course.", seed=n))
        settle(scheduler)
        there(speech)
    assert len(scheduler._engine.session.tokens) <= 3 and not scheduler._rows
    assert not any(isinstance(u, Utterance) for u in scheduler._leaving)
