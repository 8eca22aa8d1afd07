"""Continuous batching: one engine, one decoding thread; front end and sound beside it.

    front end (thread) -> sentences -> [engine: rows join, step, leave] -> sound (thread) -> listeners

Everything that is shared is changed under one lock, which nobody holds while he computes.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from spear_spec.acoustic.prompt import check_hears
from spear_spec.acoustic.speaking import LARGEST_CHUNK, Voiced, in_one_go, sentence_noise, sentence_seed, warn_if_cut
from spear_spec.acoustic.speed import check_speed, open_at
from spear_spec.acoustic.takes import BestOf, SoundJudge, check_best_of, check_takes, take_seed
from spear_spec.audio import FloatArray
from spear_spec.config import SamplingConfig, whole
from spear_spec.decoding import Request
from spear_spec.decoding.proposal import Verdict
from spear_spec.engine import Engine, Utterance
from spear_spec.errors import ConfigError, SpearSpecError, TextError
from spear_spec.meter import AUDIBLE
from spear_spec.pipeline import TTS, whole_by
from spear_spec.serving.account import observation, usage
from spear_spec.serving.admission import Admission
from spear_spec.serving.choice import Choice
from spear_spec.serving.draft_lengths import for_serving
from spear_spec.serving.kinds import token_kinds
from spear_spec.serving.limits import Limits
from spear_spec.serving.listener import Listener, Sentence
from spear_spec.serving.order import joining, next_sound, next_text
from spear_spec.serving.pace import Pace
from spear_spec.serving.patience import out_of_patience
from spear_spec.serving.pieces import Cutter, Document, Part
from spear_spec.serving.speech import Ask, Busy, Done, Sound, Speech, Written
from spear_spec.serving.state import Observation, State, Totals
from spear_spec.text import Segment, check_reads, read
from spear_spec.voice.bundle import choose_speaker

__all__ = ["Scheduler", "for_serving"]

log = logging.getLogger("spear_spec")

_WORST = ("eos", "cap", "guard")
_TICK_S = 0.5  # how often patience is looked at


class Scheduler:
    """Speaks for many listeners at once; thread-safe.

    The samples of an answer are those of `tts.synthesize` with its seed, whoever else is served, as long as the draft
    length does not follow from the number of rows (see `for_serving`). The TTS must not be used elsewhere meanwhile.

    Args:
        observe: called with an `Observation` for each request that ends; must be quick and must not raise.
        beside: whether sound is made in a thread of its own; None: where the stage allows it and there are two cores.
        clock: seconds.
        start: False makes no thread: `work_front`, `work_sound` and `work_step` do what the threads would, when called.
        complete: as `TTS.stream` has it. `Written` then tells the tokens of every try.
        best_of: takes of each sentence where a request does not say; one with `tokens` or a temperature of 0 has one.
        judge: of takes, as `TTS.stream` has it.

    Raises:
        ConfigError: `complete`, `best_of` or `judge` cannot be used. MissingExtraError: the judge is not installed.
    """

    def __init__(
        self,
        tts: TTS,
        limits: Limits | None = None,
        *,
        observe: Callable[[Observation], None] | None = None,
        beside: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        start: bool = True,
        complete: bool | str = False,
        best_of: int = 1,
        judge: str | SoundJudge | None = None,
    ) -> None:
        self.tts, self.limits = tts, limits or Limits()
        self.sample_rate = tts.sample_rate
        self._observe, self._clock = observe, clock
        self._whole = whole_by(tts.front_end, tts.target, complete)
        whole("best_of", best_of, 1, self.limits.takes)
        self._takes, self._judge = best_of, judge
        check_takes(best_of, judge, 1.0)
        self._best_of: BestOf | None = None  # the judge, once somebody needs him
        able = bool(getattr(tts.stage, "overlaps", False))
        self._beside = able and (beside if beside is not None else (os.cpu_count() or 1) > 1)
        self._lock = threading.RLock()
        self._to_step = threading.Condition(self._lock)
        self._to_front = threading.Condition(self._lock)
        self._to_sound = threading.Condition(self._lock)
        self._to_idle = threading.Condition(self._lock)
        self._stage_lock = threading.Lock()
        self._listeners: dict[Speech, Listener] = {}
        self._leaving: list[Utterance] = []  # rows of those who are gone
        self._rows: dict[Utterance, tuple[Listener, Sentence]] = {}  # what is in the engine
        self._by_row: dict[int, tuple[Listener, Sentence, Utterance]] = {}
        self._numbers = 0
        self._totals: Counter[str] = Counter()
        self._audio_s = 0.0
        self._pace, self._admission = Pace(), Admission(self.limits)
        self._closing = self._draining = False
        self._dead: BaseException | None = None
        self._stepped = clock()
        self._engine: Engine = tts.decoder.engine()
        self._threads: list[threading.Thread] = []
        if start:
            workers = [("decode", self._decode), ("front", self._prepare)]
            workers += [("sound", self._sound)] if self._beside else []
            for name, work in workers:
                thread = threading.Thread(target=self._watched, args=(work,), name=f"spear_spec-{name}", daemon=True)
                self._threads.append(thread)
                thread.start()

    # --- what listeners ask for -------------------------------------------------------------------------------------

    def speak(self, ask: Ask) -> Speech:
        """Begin with an answer.

        Raises:
            Busy: a limit is reached, or it is shutting down. TextError: nothing to say, or too much. ConfigError: an
            option that cannot be used.
        """
        if not ask.text.strip():
            raise TextError("there is nothing to speak: give it at least one word")
        self._admission.check_length(len(ask.text))
        return self._enter(ask, opened=False).speech

    def open(self, ask: Ask) -> Speech:
        """Begin with an answer whose text comes by `Speech.feed`; a text in the ask is its beginning.

        Raises:
            As `speak`.
        """
        self._admission.check_length(len(ask.text))
        listener = self._enter(ask, opened=True)
        if ask.text:
            self.feed(listener.speech, ask.text)
        return listener.speech

    def _enter(self, ask: Ask, *, opened: bool) -> Listener:
        who, law = choose_speaker(self.tts.bundle, ask.speaker), self.tts.sampling.changed(**ask.sampling)
        check_reads(self.tts.front_end, ask.reading)
        if ask.voice is not None:
            check_hears(self.tts.stage, self.tts.speakers)
        if check_speed(ask.speed, self.tts.stage) != 1:
            with self._stage_lock:
                open_at(self.tts.stage, ask.voice or who, ask.speed, sentence_noise(0, 0))
        takes = self._takes_of(ask, law)
        seed = secrets.randbits(48) if ask.seed is None else ask.seed
        with self._lock:
            now = self._clock()
            self._check_room(now)
            speech = Speech(self, seed, self.sample_rate)
            self._numbers += 1
            listener = Listener(self._numbers, speech, ask, who, law, now, now, now, takes=takes)
            if opened:
                listener.cutter = Document() if ask.reading.ssml else Cutter(ask.reading.pauses)
            else:
                listener.parts.append(Part(ask.text))
                listener.characters = len(ask.text)
            self._listeners[speech] = listener
            self._totals["requests"] += 1
            self._to_front.notify()
        return listener

    def _takes_of(self, ask: Ask, law: SamplingConfig) -> int:
        """How many takes of each sentence.

        Raises:
            ConfigError: more than the limit, or such that do not differ or cannot be told.
        """
        if ask.best_of is None:
            return 1 if ask.tokens or law.temperature == 0 else self._takes
        if ask.best_of > self.limits.takes:
            raise ConfigError(f"best_of may be at most {self.limits.takes} here, not {ask.best_of}")
        if ask.best_of > 1 and ask.tokens:
            raise ConfigError(
                "tokens are told as they are written, and of several takes one is kept: leave best_of out"
            )
        check_takes(ask.best_of, self._judge, law.temperature)
        return ask.best_of

    def _check_room(self, now: float) -> None:
        if self._dead is not None:
            raise SpearSpecError(f"the scheduler has stopped after an error: {self._dead}")
        try:
            self._admission.check_room(self._listeners.values(), now, self._closing or self._draining)
        except Busy:
            self._totals["refused"] += 1
            raise

    # --- Control: what an answer tells --------------------------------------------------------------------------------

    def taken(self, speech: Speech) -> None:
        """Something of it was fetched."""
        with self._lock:
            listener = self._listeners.get(speech)
            if listener is None:
                return
            listener.fetched = self._clock()
            if listener.over:
                self._forget_if_fetched(listener)
            elif listener.ready:
                self._to_step.notify()

    def cancel(self, speech: Speech) -> None:
        """See `Speech.cancel`."""
        with self._lock:
            listener = self._listeners.get(speech)
            if listener is not None and not listener.over:
                self._end(listener, "cancelled")
                speech.drop()
                self._forget_if_fetched(listener, cancelled=True)

    def feed(self, speech: Speech, text: str) -> None:
        """See `Speech.feed`."""
        if not isinstance(text, str):
            raise TextError(f"a text must be a string, not {type(text).__name__}")
        with self._lock:
            listener = self._listeners.get(speech)
            if listener is None or listener.over:
                return  # it has ended: whoever listens is told
            if listener.cutter is None:
                raise TextError("this answer takes no more text")
            self._admission.check_length(listener.characters + len(text))
            listener.characters += len(text)
            listener.fed = self._clock()
            listener.parts.extend(listener.cutter.feed(text))
            self._to_front.notify()

    def finish(self, speech: Speech) -> None:
        """See `Speech.finish`."""
        with self._lock:
            listener = self._listeners.get(speech)
            if listener is None or listener.over or listener.cutter is None:
                return
            listener.parts.extend(listener.cutter.finish())
            listener.cutter = None
            self._to_front.notify()

    # --- ends -------------------------------------------------------------------------------------------------------

    def _end(self, listener: Listener, ended: str, error: BaseException | None = None) -> None:
        """Nothing more is made for a listener; `ended` "error" goes with one."""
        listener.over = True
        self._leaving += [take for sentence in listener.under_way for take in sentence.takes]
        for sentence in listener.under_way:
            if ended != "eos":
                listener.stats += sentence.stats
        listener.ready.clear()
        listener.under_way.clear()
        listener.parts.clear()
        listener.segments = listener.cutter = None
        now = self._clock()
        self._admission.ended(now)
        self._totals[{"cancelled": "cancelled", "error": "failed"}.get(ended, "answered")] += 1
        if error is None:
            listener.speech.put(Done(usage(listener, ended, now)))
        else:
            listener.speech.fail(error)
        self._to_step.notify()
        if self._observe is not None:
            self._observe(observation(listener, ended, now))

    def _fail(self, listener: Listener, error: BaseException) -> None:
        if listener.over:
            return
        if not isinstance(error, SpearSpecError):
            log.error("a request failed", exc_info=error)
            error = SpearSpecError(f"the request failed: {type(error).__name__}: {error}")
        self._end(listener, "error", error)
        self._forget_if_fetched(listener)

    def _forget_if_fetched(self, listener: Listener, cancelled: bool = False) -> None:
        """A stream is taken until its sound has been fetched."""
        if listener.over and (cancelled or listener.speech.fetched):
            self._listeners.pop(listener.speech, None)
            self._to_idle.notify_all()

    def _finish_if_done(self, listener: Listener) -> None:
        if not listener.over and listener.finished:
            if listener.count:
                self._end(listener, "eos")
            else:
                self._fail(listener, TextError("there is nothing to speak: give it at least one word"))

    # --- the front end ----------------------------------------------------------------------------------------------

    def _next_text(self) -> Listener | None:
        return next_text(self._listeners.values(), self._clock())

    def work_front(self) -> bool:
        """Work out one sentence; False where nobody needs one."""
        with self._lock:
            listener = self._next_text()
            if listener is None:
                return False
            listener.preparing = True
            part = None
            if listener.segments is None and listener.parts:
                part = listener.parts.popleft()
            pieces = listener.segments
        segment: Segment | None = None
        error: Exception | None = None
        try:
            if listener.takes > 1 and self._best_of is None:  # not while the lock is held: a network may be loaded
                self._best_of = check_best_of(listener.takes, self._judge, 1.0)
            if part is not None:
                pieces = read(self.tts.front_end, part.text, listener.speaker, listener.ask.reading)
            if pieces is not None:
                segment = next(pieces, None)
        except Exception as caught:
            # among the pieces of a text some may hold nothing to speak
            empty = isinstance(caught, TextError) and part is not None and part.piece
            error = None if empty else caught
            pieces = None
        with self._lock:
            listener.preparing = False
            if listener.over:
                return True
            if error is not None:
                self._fail(listener, error)
                return True
            if segment is not None:
                if part is not None and part.pause_s is not None and listener.count:
                    segment = replace(segment, pause_s=max(segment.pause_s, part.pause_s))
                self._ready(listener, segment)
            listener.segments = pieces if segment is not None else None
            if listener.segments is None and not listener.parts and listener.cutter is None:
                listener.written = True
                self._finish_if_done(listener)
        return True

    def _ready(self, listener: Listener, segment: Segment) -> None:
        length = self._pace.length_s(segment, listener.ask.speed)
        listener.ready.append(Sentence(listener.count, segment, length, self._clock()))
        listener.count += 1
        self._to_step.notify()

    def _prepare(self) -> None:
        while not self._closing:
            if not self.work_front():
                with self._lock:
                    if self._next_text() is None and not self._closing:
                        self._to_front.wait(_TICK_S)

    # --- decoding ---------------------------------------------------------------------------------------------------

    def work_step(self) -> bool:
        """Let rows leave and join, then one step of the engine; False where there was nothing to do."""
        with self._lock:
            leaving, self._leaving = self._leaving, []
            for utterance in leaving:
                self._rows.pop(utterance, None)
            now = self._clock()
            for listener in list(self._listeners.values()):
                self._look_at_patience(listener, now)
            new = joining(self._listeners.values(), len(self._rows), now, self.limits)
            if new:
                self._to_front.notify()
        try:
            self._engine.release(leaving)
            for listener, sentence in self._admit(new):
                for take in sentence.takes:
                    self._by_row[take.row] = (listener, sentence, take)  # type: ignore[index]
            if not self._engine.running:
                return bool(new or leaving)
            verdict = self._engine.step()
        except Exception as error:
            self._restart(error)
            return True
        with self._lock:
            choices = self._settle(verdict)
        for listener, choice in choices:
            self._weigh(listener, choice)
        return True

    def _weigh(self, listener: Listener, choice: Choice) -> None:
        """All takes of a sentence have ended."""
        error: Exception | None = None
        try:
            choice.weigh()
        except Exception as caught:
            error = caught
        with self._lock:
            if error is not None:
                self._fail(listener, error)
            elif self._beside:
                self._to_sound.notify()

    def _admit(self, new: list[tuple[Listener, Sentence]]) -> list[tuple[Listener, Sentence]]:
        """Rows join together; where one of them cannot, one by one."""
        if not new:
            return []
        requests = [[self._request(*one, take) for take in range(one[0].takes)] for one in new]
        try:
            utterances = self._admitted(requests)
        except Exception as error:
            if len(new) == 1:
                with self._lock:
                    self._fail(new[0][0], error)
                return []
            return [pair for one in new for pair in self._admit([one])]
        for (listener, sentence), takes in zip(new, utterances):
            try:
                with self._stage_lock:
                    voiced = self._voiced(listener, sentence, takes)
            except Exception as error:
                self._engine.release(takes)
                with self._lock:
                    self._fail(listener, error)
                continue
            with self._lock:
                sentence.takes, sentence.voiced = takes, voiced
                if listener.over:  # meanwhile
                    self._leaving += takes
                else:
                    self._rows |= dict.fromkeys(takes, (listener, sentence))
        return [pair for pair in new if pair[1].takes]

    def _request(self, listener: Listener, sentence: Sentence, take: int) -> Request:
        return Request(
            sentence.segment.ids,
            seed=sentence_seed(take_seed(listener.speech.seed, take), sentence.index),
            sampling=listener.law,
            cap=listener.ask.max_tokens,
            whole=None if self._whole is None else self._whole(sentence.segment.ids),
        )

    def _admitted(self, requests: list[list[Request]]) -> list[tuple[Utterance, ...]]:
        """The takes of each sentence, in the engine: all of them or none."""
        if all(len(takes) == 1 for takes in requests):
            return [(utterance,) for utterance in self._engine.admit([takes[0] for takes in requests])]
        there: list[tuple[Utterance, ...]] = []
        try:
            for takes in requests:  # one at a time: in a common call the rounding of a text could depend on the others
                for take in takes:
                    there.append(tuple(self._engine.admit([take])))
        except Exception:
            self._engine.release([utterance for [utterance] in there])
            raise
        flat = iter(utterance for [utterance] in there)
        return [tuple(next(flat) for _ in takes) for takes in requests]

    def _voiced(self, listener: Listener, sentence: Sentence, takes: tuple[Utterance, ...]) -> Voiced | Choice:
        stage, segment, speed = self.tts.stage, sentence.segment, listener.ask.speed

        def one(take: int) -> Voiced:
            noise = sentence_noise(take_seed(listener.speech.seed, take), sentence.index)
            return Voiced(stage, segment, takes[take], listener.voice, noise, speed)

        if len(takes) == 1:
            return one(0)
        assert self._best_of is not None

        def sound(take: int) -> tuple[FloatArray, FloatArray]:
            with self._stage_lock:
                voiced = one(take)
            return in_one_go(voiced)

        rate = self.tts.decoder.frame_rate * segment.rate * speed
        return Choice(self._best_of, self.tts.target, segment, takes, rate, sound, self.sample_rate)

    def _settle(self, verdict: Verdict) -> list[tuple[Listener, Choice]]:
        """Count what a step kept, and tell who wants to know; sentences of which all takes have ended now."""
        choices: list[tuple[Listener, Choice]] = []
        decoded: set[int] = set()  # takes may end in one step
        self._stepped = self._clock()
        totals = self._totals
        totals["steps"] += 1
        totals["target_calls"] += len(verdict.rows)
        totals["tokens"] += sum(map(len, verdict.tokens))
        totals["drafted"] += sum(verdict.num_drafted)
        totals["accepted"] += sum(verdict.num_accepted)
        for place, row in enumerate(verdict.rows):
            listener, sentence, take = self._by_row[row]
            voiced = sentence.voiced
            assert voiced is not None
            voiced.see()
            if take.ended is not None:  # not only a try of it, which a verdict tells too
                self._rows.pop(take, None)
                if sentence.decoded and id(sentence) not in decoded:
                    decoded.add(id(sentence))
                    totals["sentences"] += 1
                    if isinstance(voiced, Choice):
                        choices.append((listener, voiced))
            if listener.over:
                continue
            listener.calls += 1
            listener.tokens += len(verdict.tokens[place])
            if listener.ask.tokens:
                kinds = token_kinds(len(verdict.tokens[place]), verdict.num_accepted[place], verdict.num_drafted[place])
                tokens = list(verdict.tokens[place])
                listener.speech.put(Written(sentence.index, tokens, kinds, listener.calls, listener.tokens))
        if self._beside and self._next_sound() is not None:
            self._to_sound.notify()
        return choices

    def _restart(self, error: Exception) -> None:
        """A step failed. Those in the batch end with it, the others go on in a new engine."""
        log.error("a step of the engine failed: %s", error)
        engine = self.tts.decoder.engine()
        with self._lock:
            gone = {id(listener): listener for listener, _ in self._rows.values()}
            gone |= {
                id(one): one
                for one in self._listeners.values()
                if any(not sentence.decoded for sentence in one.under_way)
            }
            self._engine = engine
            self._rows, self._by_row = {}, {}
            for listener in gone.values():
                self._fail(listener, error)
            self._leaving = []
            self._totals["restarts"] += 1

    def _look_at_patience(self, listener: Listener, now: float) -> None:
        error = out_of_patience(listener, now, self.limits)
        if error is None:
            return
        if not listener.over:
            self._fail(listener, error)
        if isinstance(error, Busy):
            listener.speech.abandon(error)
            self._forget_if_fetched(listener)

    def _decode(self) -> None:
        while not self._closing:
            worked = self.work_step()
            if not self._beside:
                while self.work_sound():
                    worked = True
            if not worked:
                with self._lock:
                    if not self._leaving and not self._rows and not self._closing:
                        self._to_step.wait(_TICK_S)

    # --- sound ------------------------------------------------------------------------------------------------------

    def _next_sound(self) -> Listener | None:
        return next_sound(self._listeners.values(), self._clock())

    def work_sound(self) -> bool:
        """Make one piece of sound; False where none is due."""
        with self._lock:
            listener = self._next_sound()
            if listener is None:
                return False
            sentence = listener.under_way[0]
            voiced = sentence.voiced
            assert voiced is not None
            make = voiced.take(LARGEST_CHUNK)
            listener.sounding = True
        samples: FloatArray | None = None
        error: Exception | None = None
        try:
            samples = make()
        except Exception as caught:
            error = caught
        with self._lock:
            listener.sounding = False
            if listener.over:
                return True
            if error is not None:
                self._fail(listener, error)
            else:
                assert samples is not None
                self._hand(listener, sentence, voiced, samples)
        return True

    def _hand(self, listener: Listener, sentence: Sentence, voiced: Voiced | Choice, samples: FloatArray) -> None:
        now, seconds = self._clock(), len(samples) / self.sample_rate
        ended = voiced.ended
        if seconds:
            if listener.hand(seconds, now, sentence.came):
                self._totals["underruns"] += 1
            sentence.spoken_s += seconds
            self._audio_s += seconds
            if listener.heard is None and float(np.abs(samples).max()) > AUDIBLE:
                listener.heard = now
        if seconds or ended is not None:
            if not listener.speech.unread_s:
                listener.fetched = now
            listener.speech.put(Sound(samples, sentence.index, sentence.segment.text, ended))
        if listener.handed_s > self.limits.seconds:
            most = self.limits.seconds
            self._fail(listener, TextError(f"this is more than {most:g} seconds of speech: send the text in parts"))
        elif ended is not None:
            listener.under_way.popleft()
            listener.stats += sentence.stats
            if isinstance(voiced, Choice) and voiced.kept is not None:
                listener.chosen.append(voiced.kept.chosen(sentence.index, listener.speech.seed))
            listener.worst = max(listener.worst, ended, key=_WORST.index)
            warn_if_cut(voiced.utterance)
            self._pace.learn(sentence, listener.ask.speed)
            self._finish_if_done(listener)
            self._to_step.notify()

    def _sound(self) -> None:
        while not self._closing:
            if not self.work_sound():
                with self._lock:
                    if self._next_sound() is None and not self._closing:
                        self._to_sound.wait(_TICK_S)

    # --- its own life -----------------------------------------------------------------------------------------------

    def _watched(self, work: Callable[[], None]) -> None:
        """A thread never dies silently: whoever listens is told, and `state` says so."""
        try:
            work()
        except BaseException as error:
            log.critical("the scheduler has stopped", exc_info=error)
            with self._lock:
                self._dead = error
                self._closing = True
                for listener in list(self._listeners.values()):
                    self._fail(listener, SpearSpecError(f"the scheduler has stopped after an error: {error}"))
                self._wake_all()

    def _wake_all(self) -> None:
        for condition in (self._to_step, self._to_front, self._to_sound, self._to_idle):
            condition.notify_all()

    def state(self) -> State:
        """See `State`."""
        with self._lock:
            there = self._listeners.values()
            totals = {name: self._totals[name] for name in Totals.__dataclass_fields__ if name != "audio_s"}
            alive = self._dead is None and not self._closing and all(t.is_alive() for t in self._threads)
            return State(
                alive=alive,
                accepting=alive and not self._draining,
                queued=sum(one.heard is None and not one.over for one in there),
                waiting=sum(len(one.ready) for one in there),
                rows=len(self._rows),
                streams=len(there),
                stalled_s=max(0.0, self._clock() - self._stepped) if self._rows else 0.0,
                totals=Totals(**totals, audio_s=self._audio_s),
            )

    def drain(self, timeout_s: float) -> bool:
        """Take nothing more and wait until everything has been fetched; False where that took too long."""
        ends = time.monotonic() + timeout_s
        with self._lock:
            self._draining = True
            while self._listeners:
                left = ends - time.monotonic()
                if left <= 0 or self._closing:
                    return not self._listeners
                self._to_idle.wait(min(left, _TICK_S))
            return True

    def close(self) -> None:
        """Cancel what is left and end the threads. Any number of times."""
        with self._lock:
            self._closing = True
            for listener in list(self._listeners.values()):
                if not listener.over:
                    self._end(listener, "cancelled")
            self._listeners.clear()
            self._wake_all()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
