"""What listeners hear: the samples of `synthesize`, alone and under load, in threads and in asyncio."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from spear_spec.acoustic.unit.native import NativeStream
from spear_spec.errors import ConfigError, NumericsError, SpearSpecError, TextError
from spear_spec.pipeline import TTS
from spear_spec.serving.limits import Limits
from spear_spec.serving.scheduler import Scheduler, for_serving
from spear_spec.serving.speech import Ask, Busy, Done, Event, Sound, Speech, Written
from tests.serving.driven import Clock, prepared, settle, sound, there, usage

TEXTS = [
    "It rained all day. Nobody minded. The river rose.",
    "One.",
    "A letter came, and then another; nobody read them.",
    "Where were you? At the station, of course.",
    "Ten small birds sat on a wire and sang to the evening.",
]
Make = Callable[..., Scheduler]


def alone(tts: TTS, text: str, seed: int, **options: Any) -> np.ndarray:
    return tts.synthesize(text, seed=seed, **options).samples


def listen(speech: Speech, heard: list[Event]) -> None:
    for event in speech:
        heard.append(event)


# --- the same sound ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beside", [True, False])
def test_listeners_in_threads_hear_what_each_hears_alone(tts: TTS, beside: bool) -> None:
    asks = [Ask(TEXTS[n % 5], seed=n, sampling={"temperature": 0.8} if n % 3 else {}) for n in range(15)]
    heard: dict[int, list[Event]] = {}
    with Scheduler(tts, Limits(rows=4), beside=beside) as scheduler:
        answers = [scheduler.speak(ask) for ask in asks]

        def listen(n: int) -> None:
            heard[n] = list(answers[n])

        threads = [threading.Thread(target=listen, args=(n,)) for n in range(15)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert scheduler.drain(10)
        totals = scheduler.state().totals
    for n, ask in enumerate(asks):
        assert np.array_equal(sound(heard[n]), alone(tts, ask.text, n, **ask.sampling)), n
    assert (totals.requests, totals.answered, totals.failed) == (15, 15, 0)
    assert totals.tokens == sum(int(usage(heard[n])["tokens"]) for n in heard)  # type: ignore[call-overload]
    assert not [t.name for t in threading.enumerate() if t.name.startswith("spear_spec-")]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_strangers_come_go_and_fail_and_nobody_notices(
    tts: TTS, driven: Make, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Driven at random: which of the three works next, who joins, who is cancelled, whose stage breaks."""
    push, broken, stranger = NativeStream.push, set[int](), tts.stage.module.vector(1)

    def breaking(self: NativeStream, tokens: torch.Tensor) -> torch.Tensor:
        if torch.equal(self.who, stranger) and len(broken) < 3 and id(self) not in broken:
            broken.add(id(self))
            raise NumericsError("the stage of a stranger")
        return push(self, tokens)

    monkeypatch.setattr(NativeStream, "push", breaking)
    rng = random.Random(seed)
    scheduler = driven(rows=3)
    watched = [(n, scheduler.speak(Ask(TEXTS[n], seed=n))) for n in range(5)]
    strangers = []
    for turn in range(3000):
        if turn < 200 and rng.random() < 0.1:
            speaker = rng.choice(["af_heart", "am_michael"])
            strangers.append(
                scheduler.speak(Ask(rng.choice(TEXTS), speaker, turn, sampling={"top_k": rng.randint(0, 5)}))
            )
        if strangers and rng.random() < 0.05:
            strangers.pop(rng.randrange(len(strangers))).cancel()
        rng.choice([scheduler.work_front, scheduler.work_step, scheduler.work_step, scheduler.work_sound])()
    settle(scheduler)
    totals = scheduler.state().totals
    assert totals.failed >= 1 and totals.cancelled >= 1 and totals.restarts == 0
    for n, speech in watched:
        assert np.array_equal(sound(there(speech)), alone(tts, TEXTS[n], n)), n


def test_speculation_with_one_draft_length_changes_nothing_under_load(tts: TTS, driven: Make) -> None:
    fast = tts.using(drafter="small", verifier="rejection", gamma=3)
    scheduler = driven(fast)
    answers = [scheduler.speak(Ask(text, seed=n, tokens=True)) for n, text in enumerate(TEXTS)]
    settle(scheduler)
    for n, speech in enumerate(answers):
        events = there(speech)
        assert np.array_equal(sound(events), alone(fast, TEXTS[n], n))
        written = [event for event in events if isinstance(event, Written)]
        kinds = [kind for event in written for kind in event.kinds]
        told = usage(events)
        assert len(kinds) == told["tokens"] == written[-1].tokens_so_far
        assert len(written) == told["target_calls"] == written[-1].calls_so_far
        assert kinds.count("accepted") == told["accepted"]
        assert {"recovered", "bonus"} >= set(kinds) - {"accepted", "sampled"}
        for event in written:
            assert set(event.kinds[:-1]) <= {"accepted"}
    assert scheduler.state().totals.accepted > 0


def test_written_tokens_are_those_of_the_utterance(tts: TTS, driven: Make) -> None:
    scheduler = driven()
    speech = scheduler.speak(Ask(TEXTS[0], seed=3, tokens=True))
    settle(scheduler)
    events = there(speech)
    from spear_spec.acoustic.speaking import sentence_seed
    from spear_spec.decoding import Request

    for index, ids in enumerate(tts.texts([TEXTS[0]])):
        (want,) = tts.decoder.engine().run([Request(ids, seed=sentence_seed(3, index), sampling=tts.sampling)])
        got = [e for e in events if isinstance(e, Written) and e.sentence == index]
        assert [token for event in got for token in event.tokens] == want.tokens
        assert all(event.kinds == ["sampled"] for event in got)


def test_the_shipped_draft_lengths_do_not_follow_the_batch(tts: TTS) -> None:
    fast = tts.using(drafter="small", verifier="lenience", gamma=5, gammas={"2": 4, "8": 2})
    assert for_serving(fast).spec.gammas == {} and for_serving(fast).spec.gamma == 2
    assert for_serving(tts) is tts


def test_what_is_served_is_one_take_a_seed(tts: TTS, driven: Make) -> None:
    """Draft lengths follow the batch, and the sound is the autoregressive loop's."""
    served = for_serving(tts.using(drafter="small", verifier="block", gamma=4))
    assert len({served.spec.gamma_at(rows) for rows in (1, 8)}) == 2
    scheduler = driven(served)
    answers = [scheduler.speak(Ask(TEXTS[n % 5], seed=n)) for n in range(10)]
    settle(scheduler)
    for n, speech in enumerate(answers):
        assert np.array_equal(sound(there(speech)), alone(tts, TEXTS[n % 5], n))
    assert scheduler.state().totals.accepted > 0


def test_speed_is_that_of_synthesize(tts: TTS, driven: Make) -> None:
    scheduler = driven()
    slow, fast = (scheduler.speak(Ask(TEXTS[0], seed=1, speed=speed)) for speed in (0.5, 1.5))
    settle(scheduler)
    for speech, speed in ((slow, 0.5), (fast, 1.5)):
        assert np.array_equal(sound(there(speech)), alone(tts, TEXTS[0], 1, speed=speed))


def test_a_seed_is_drawn_where_none_is_given(tts: TTS, driven: Make) -> None:
    scheduler = driven()
    one, two = (scheduler.speak(Ask(TEXTS[0])) for _ in range(2))
    settle(scheduler)
    assert one.seed != two.seed
    events = there(one)
    assert usage(events)["seed"] == one.seed and np.array_equal(sound(events), alone(tts, TEXTS[0], one.seed))


def test_sound_of_one_stream_is_never_made_twice_at_once(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    push, inside, wrong = NativeStream.push, set[int](), []

    def watched(self: NativeStream, tokens: torch.Tensor) -> torch.Tensor:
        if id(self) in inside or threading.current_thread().name != "spear_spec-sound":
            wrong.append(threading.current_thread().name)
        inside.add(id(self))
        try:
            return push(self, tokens)
        finally:
            inside.discard(id(self))

    monkeypatch.setattr(NativeStream, "push", watched)
    with Scheduler(tts, beside=True) as scheduler:
        for speech in [scheduler.speak(Ask(text)) for text in TEXTS]:
            list(speech)
    assert not wrong


# --- asyncio ----------------------------------------------------------------------------------------------------------


def test_asyncio_listens_without_threads(tts: TTS) -> None:
    async def one(scheduler: Scheduler, n: int) -> list[Event]:
        return [event async for event in scheduler.speak(Ask(TEXTS[n], seed=n))]

    async def all_() -> list[list[Event]]:
        return await asyncio.gather(*[one(scheduler, n) for n in range(5)])

    with Scheduler(tts) as scheduler:
        before = threading.active_count()
        heard = asyncio.run(all_())
        assert threading.active_count() == before
    for n, events in enumerate(heard):
        assert np.array_equal(sound(events), alone(tts, TEXTS[n], n)) and usage(events)["ended"] == "eos"


def test_a_task_that_is_cancelled_leaves_the_batch(tts: TTS) -> None:
    async def listen(scheduler: Scheduler) -> None:
        async for _ in scheduler.open(Ask()):
            pass

    async def leave() -> None:
        task = asyncio.create_task(listen(scheduler))
        await asyncio.sleep(0.05)
        assert scheduler.state().streams == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with Scheduler(tts) as scheduler:
        asyncio.run(leave())
        assert scheduler.state().streams == 0 and scheduler.state().totals.cancelled == 1


# --- leaving ----------------------------------------------------------------------------------------------------------


def test_a_cancelled_row_is_free_before_the_next_step(tts: TTS, driven: Make) -> None:
    scheduler = driven()
    gone, stays = scheduler.speak(Ask(TEXTS[4], seed=1)), scheduler.speak(Ask(TEXTS[4], seed=2))
    prepared(scheduler)
    scheduler.work_step()
    assert len(scheduler._engine.session.rows) == 2
    gone.cancel()
    gone.cancel()
    scheduler.work_step()
    assert len(scheduler._engine.session.rows) == 1 and scheduler.state().rows == 1
    assert scheduler.state().streams == 1
    assert usage(there(gone))["ended"] == "cancelled"
    settle(scheduler)
    assert np.array_equal(sound(there(stays)), alone(tts, TEXTS[4], 2))


def test_leaving_the_loop_cancels(tts: TTS, driven: Make) -> None:
    scheduler = driven()
    speech = scheduler.speak(Ask(TEXTS[0], seed=1))
    while not speech.unread_s:
        scheduler.work_front(), scheduler.work_step(), scheduler.work_sound()
    for _ in speech:
        break
    assert scheduler.state().streams == 0 and scheduler.state().totals.cancelled == 1
    settle(scheduler)
    assert scheduler.state().rows == 0 and speech.unread_s == 0


def test_an_error_of_the_front_end_ends_its_request_alone(
    tts: TTS, driven: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = type(tts.front_end).segments

    def segments(self: Any, text: str, speaker: str) -> Any:
        for n, segment in enumerate(right(self, text, speaker)):
            if n == 1 and "river" in text:
                raise RuntimeError("a bug of the front end")
            yield segment

    monkeypatch.setattr(type(tts.front_end), "segments", segments)
    scheduler = driven()
    fails, stays, empty = (
        scheduler.speak(Ask(TEXTS[0], seed=1)),
        scheduler.speak(Ask(TEXTS[3], seed=2)),
        scheduler.speak(Ask("***")),
    )
    settle(scheduler)
    with pytest.raises(SpearSpecError, match="RuntimeError: a bug of the front end"):
        there(fails)
    with pytest.raises(TextError, match="nothing to speak"):
        there(empty)
    events = there(stays)
    monkeypatch.undo()
    assert np.array_equal(sound(events), alone(tts, TEXTS[3], 2))
    assert scheduler.state().totals.failed == 2 and scheduler.state().streams == 0


def test_what_was_made_before_an_error_is_heard(tts: TTS, driven: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    right, calls = NativeStream.push, []

    def push(self: NativeStream, tokens: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 3:
            raise NumericsError("damaged")
        return right(self, tokens)

    monkeypatch.setattr(NativeStream, "push", push)
    scheduler = driven()
    speech = scheduler.speak(Ask(TEXTS[0], seed=1))
    settle(scheduler)
    heard: list[Event] = []
    with pytest.raises(NumericsError, match="damaged"):
        listen(speech, heard)
    monkeypatch.undo()
    whole = alone(tts, TEXTS[0], speech.seed)
    assert 0 < len(sound(heard)) < len(whole) and np.array_equal(sound(heard), whole[: len(sound(heard))])


def test_after_nan_in_a_step_a_new_engine_goes_on(tts: TTS, driven: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in the batch end with the error; one whose sentence was not in it, and those who come later, are served."""
    scheduler = driven()
    running = scheduler.speak(Ask(TEXTS[0], seed=1))
    prepared(scheduler)
    for _ in range(3):
        scheduler.work_step()
    waiting = scheduler.speak(Ask(TEXTS[2], seed=2))
    broken = scheduler._engine
    monkeypatch.setattr(broken, "step", lambda: (_ for _ in ()).throw(NumericsError()))
    scheduler.work_step()
    with pytest.raises(NumericsError):
        there(running)
    later = scheduler.speak(Ask(TEXTS[3], seed=3))
    settle(scheduler)
    assert scheduler._engine is not broken
    assert np.array_equal(sound(there(waiting)), alone(tts, TEXTS[2], 2))
    assert np.array_equal(sound(there(later)), alone(tts, TEXTS[3], 3))
    state = scheduler.state()
    assert state.totals.restarts == 1 and state.rows == 0 and state.alive


def test_threads_never_die_silently(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    with Scheduler(tts) as scheduler:
        assert scheduler.state().alive and scheduler.state().accepting
        monkeypatch.setattr(scheduler, "_settle", lambda verdict: 1 / 0)
        with pytest.raises(SpearSpecError, match="stopped"):
            list(scheduler.speak(Ask(TEXTS[0], seed=1)))
        assert not scheduler.state().alive
        with pytest.raises(SpearSpecError, match="stopped"):
            scheduler.speak(Ask(TEXTS[0], seed=1))


# --- limits -----------------------------------------------------------------------------------------------------------


def test_what_cannot_be_asked_for(tts: TTS, driven: Make) -> None:
    scheduler = driven(characters=20)
    for wrong, kind in (
        (lambda: Ask(3), TextError),  # type: ignore[arg-type]
        (lambda: Ask("a", seed=-1), ConfigError),
        (lambda: Ask("a", speed=5), ConfigError),
        (lambda: Ask("a", speed=float("nan")), ConfigError),
        (lambda: Ask("a", max_tokens=0), ConfigError),
        (lambda: Ask("a", sampling=[1]), ConfigError),  # type: ignore[arg-type]
        (lambda: scheduler.speak(Ask("a" * 21)), TextError),
        (lambda: scheduler.speak(Ask(" \n")), TextError),
        (lambda: scheduler.speak(Ask("a", "nobody")), ConfigError),
        (lambda: scheduler.speak(Ask("a", sampling={"heat": 1})), ConfigError),
        (lambda: scheduler.speak(Ask("a", sampling={"temperature": -1})), ConfigError),
        (lambda: scheduler.open(Ask("a" * 21)), TextError),
        (lambda: Limits(rows=0), ConfigError),
        (lambda: Limits(buffer_s=float("nan")), ConfigError),
    ):
        with pytest.raises(kind):
            wrong()  # type: ignore[no-untyped-call]
    assert scheduler.state().streams == 0


def test_beyond_the_queue_and_the_streams_it_is_busy(tts: TTS, driven: Make, clock: Clock) -> None:
    scheduler = driven(streams=3, queue=2)
    first, second = (scheduler.speak(Ask(TEXTS[1], seed=n)) for n in range(2))
    with pytest.raises(Busy, match="2 requests wait") as busy:
        scheduler.speak(Ask(TEXTS[1]))
    assert busy.value.retry_after_s > 0
    settle(scheduler)  # all spoken, nothing fetched: the streams are still taken
    third = scheduler.speak(Ask(TEXTS[1], seed=2))
    with pytest.raises(Busy, match="all 3 streams"):
        scheduler.speak(Ask(TEXTS[1]))
    there(first), there(second)
    assert scheduler.state().streams == 1
    third.cancel()
    assert scheduler.state().streams == 0 and scheduler.state().totals.refused == 2


def test_while_somebody_waits_too_long_nobody_is_taken_in(driven: Make, clock: Clock) -> None:
    scheduler = driven(wait_s=2)
    silent = scheduler.open(Ask())  # has no text: it is he who is waited for
    clock.now += 3
    first = scheduler.speak(Ask(TEXTS[4], seed=1))
    clock.now += 1.9
    scheduler.speak(Ask(TEXTS[1]))
    clock.now += 0.2
    with pytest.raises(Busy, match="more than 2 s"):
        scheduler.speak(Ask(TEXTS[1]))
    settle(scheduler)
    assert first.unread_s and not silent.over
    scheduler.speak(Ask(TEXTS[1]))


def test_when_it_is_worth_another_try_is_measured(driven: Make, clock: Clock) -> None:
    scheduler = driven(streams=1)
    for _ in range(10):  # one ends every four seconds
        speech = scheduler.speak(Ask("One."))
        settle(scheduler)
        there(speech)
        clock.now += 4
    scheduler.speak(Ask("One."))
    with pytest.raises(Busy) as busy:
        scheduler.speak(Ask("One."))
    assert busy.value.retry_after_s == pytest.approx(4, rel=0.15)


def test_more_seconds_than_the_limit_end_it(driven: Make) -> None:
    scheduler = driven(seconds=1)
    speech = scheduler.speak(Ask(" ".join(TEXTS), seed=1))
    settle(scheduler)
    events: list[Event] = []
    with pytest.raises(TextError, match="more than 1 seconds"):
        listen(speech, events)
    assert 1 < len(sound(events)) / speech.sample_rate < 4
    assert scheduler.state().streams == 0


def test_a_slow_listener_costs_bounded_memory_and_nobody_else(tts: TTS, driven: Make, clock: Clock) -> None:
    book = " ".join(f"This is sentence number {n} of a long book." for n in range(24))
    scheduler = driven(buffer_s=4, patience_s=30)
    slow = scheduler.speak(Ask(book, seed=1))
    settle(scheduler)
    sentence_s = max(len(alone(tts, f"This is sentence number {n} of a long book.", 1)) for n in range(3)) / 24000
    assert 1 < slow.unread_s < 4 + 3 * max(sentence_s, 3)
    assert scheduler.state().rows == 0 and not slow.over
    other = scheduler.speak(Ask(TEXTS[0], seed=2))
    settle(scheduler)
    assert np.array_equal(sound(there(other)), alone(tts, TEXTS[0], 2))
    heard = there(slow)  # he fetches, and it goes on
    clock.now += 29
    while not slow.over:
        settle(scheduler)
        heard += there(slow)
    assert np.array_equal(sound(heard), alone(tts, book, 1))


def test_a_listener_who_never_fetches_is_ended(driven: Make, clock: Clock) -> None:
    book = " ".join(f"This is sentence number {n} of a long book." for n in range(24))
    scheduler = driven(buffer_s=4, patience_s=30)
    never, short = scheduler.speak(Ask(book, seed=1)), scheduler.speak(Ask(TEXTS[4], seed=1))
    settle(scheduler)
    clock.now += 29
    settle(scheduler)
    assert scheduler.state().streams == 2
    clock.now += 2
    settle(scheduler)
    assert scheduler.state().streams == 0 and never.unread_s == short.unread_s == 0
    for speech in (never, short):
        with pytest.raises(Busy, match="nothing was fetched"):
            there(speech)


def test_drain_waits_and_takes_nothing_more(tts: TTS) -> None:
    with Scheduler(tts) as scheduler:
        speech = scheduler.speak(Ask(TEXTS[0], seed=1))
        assert not scheduler.drain(0.0)
        with pytest.raises(Busy, match="shutting down"):
            scheduler.speak(Ask("One."))
        assert scheduler.state().alive and not scheduler.state().accepting
        heard = list(speech)
        assert scheduler.drain(20)
        assert np.array_equal(sound(heard), alone(tts, TEXTS[0], 1))


def test_close_ends_those_who_listen(tts: TTS) -> None:
    scheduler = Scheduler(tts)
    speech = scheduler.open(Ask())
    ended: list[Event] = []
    thread = threading.Thread(target=lambda: ended.extend(speech))
    thread.start()
    scheduler.close()
    scheduler.close()
    thread.join(20)
    assert isinstance(ended[-1], Done) and ended[-1].usage["ended"] == "cancelled"
    assert not scheduler.state().alive


# --- text in pieces ---------------------------------------------------------------------------------------------------


def test_whole_sentences_in_pieces_are_the_whole_text(tts: TTS, driven: Make) -> None:
    scheduler = driven()
    speech = scheduler.open(Ask(seed=7))
    for piece in ("It rained all day. ", "Nobody minded. ", "The river rose."):
        speech.feed(piece)
        settle(scheduler)
    assert scheduler.state().totals.sentences == 3  # they did not wait for the end of the text
    speech.finish()
    settle(scheduler)
    events = there(speech)
    assert np.array_equal(sound(events), alone(tts, TEXTS[0], 7))
    assert usage(events)["characters"] == len(TEXTS[0])


def test_speech_begins_at_the_first_clause(driven: Make) -> None:
    scheduler = driven()
    speech = scheduler.open(Ask(seed=7))
    for word in ["When", "the", "rain", "stopped", "at", "last", "in", "the", "evening,"]:
        assert not scheduler.state().totals.sentences
        speech.feed(word + " ")
        settle(scheduler)
    assert scheduler.state().totals.sentences == 1
    (text,) = {event.text for event in there(speech) if isinstance(event, Sound)}
    assert text == "When the rain stopped at last in the evening,"
    speech.feed("nobody minded. *** ")
    speech.finish()
    settle(scheduler)
    events = there(speech)
    assert {event.text for event in events if isinstance(event, Sound)} == {"nobody minded."}
    nothing = scheduler.open(Ask("***"))
    nothing.finish()
    settle(scheduler)
    with pytest.raises(TextError, match="nothing to speak"):
        there(nothing)


def test_waiting_for_text_is_no_underrun_and_has_an_end(driven: Make, clock: Clock) -> None:
    scheduler = driven(patience_s=30)
    speech = scheduler.open(Ask(seed=7))
    speech.feed("Nobody minded. ")
    settle(scheduler)
    there(speech)
    clock.now += 20
    speech.feed("The river rose. ")
    settle(scheduler)
    there(speech)
    assert scheduler.state().totals.underruns == 0 and scheduler.state().streams == 1
    clock.now += 31
    settle(scheduler)
    with pytest.raises(TextError, match="no text came"):
        there(speech)


def test_text_after_the_end_is_refused(driven: Make) -> None:
    scheduler = driven(characters=40)
    speech = scheduler.open(Ask("Nobody minded. "))
    with pytest.raises(TextError, match="at most 40"):
        speech.feed("a" * 30)
    speech.finish()
    with pytest.raises(TextError, match="no more text"):
        speech.feed("a")
    with pytest.raises(TextError, match="no more text"):
        scheduler.speak(Ask("One.")).feed("Two.")
