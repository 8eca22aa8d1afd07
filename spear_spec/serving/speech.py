"""What a listener asks for, and the answer under way: events that one thread puts in, another or asyncio takes out."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from spear_spec.acoustic.contract import Heard
from spear_spec.acoustic.takes import MOST_TAKES
from spear_spec.audio import FloatArray
from spear_spec.config import is_number, require, shown, whole
from spear_spec.decoding.chance import check_seed
from spear_spec.decoding.request import check_cap
from spear_spec.errors import SpearSpecError, TextError
from spear_spec.text import Reading

SLOWEST, FASTEST = 0.25, 4.0


class Busy(SpearSpecError):
    """There is no room for another request now; it is worth another try after `retry_after_s` seconds."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Ask:
    """What one listener asks for.

    voice: whose sound it is, where that is not the speaker's. seed: None: the scheduler draws one; it is in the answer.
    speed: .25 to 4; what the voice can do is checked when it is asked. sampling: fields of `SamplingConfig` that differ
    from the voice's. max_tokens: of a sentence. tokens: whether `Written` events are wanted.
    reading: with which pauses and lexicon the text is read, and whether it is SSML. best_of: so many takes of each
    sentence, of which the best is heard; None: as the scheduler was told.

    Raises:
        TextError: a text that is none. ConfigError: a value that cannot be used.
    """

    text: str = ""
    speaker: str | None = None
    seed: int | None = None
    speed: float = 1.0
    sampling: Mapping[str, Any] = field(default_factory=dict)
    max_tokens: int | None = None
    tokens: bool = False
    voice: Heard | None = None
    reading: Reading = Reading()  # noqa: RUF009  it is frozen
    best_of: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TextError(f"a text must be a string, not {type(self.text).__name__}")
        if self.seed is not None:
            check_seed(self.seed)
        ok = is_number(self.speed) and SLOWEST <= self.speed <= FASTEST
        require(ok, f"speed must lie in {SLOWEST:g} to {FASTEST:g}, not {shown(self.speed)}")
        ok = isinstance(self.sampling, Mapping) and all(isinstance(name, str) for name in self.sampling)
        require(ok, f"sampling must be an object of options, not {shown(self.sampling)}")
        check_cap(self.max_tokens)
        require(isinstance(self.voice, Heard | None), "voice must be one that was heard (TTS.hear)")
        if self.best_of is not None:
            whole("best_of", self.best_of, 1, MOST_TAKES)
        require(isinstance(self.reading, Reading), f"reading must be a Reading, not {type(self.reading).__name__}")


@dataclass(frozen=True)
class Sound:
    """Samples float32 [T] of the sentence with this index and text. ended: None but for its last piece, as in
    `AudioChunk`.
    """

    samples: FloatArray
    sentence: int
    text: str
    ended: str | None = None


@dataclass(frozen=True)
class Written:
    """What one target call kept of a sentence. kinds: for each token "accepted", "recovered", "bonus" or "sampled".

    calls_so_far, tokens_so_far: of the whole answer.
    """

    sentence: int
    tokens: list[int]
    kinds: list[str]
    calls_so_far: int
    tokens_so_far: int


@dataclass(frozen=True)
class Done:
    """The last event.

    usage: characters, sentences, tokens, target_calls, tokens_per_call, drafted, accepted, acceptance (of draft tokens;
    None without any), audio_s, seed, ended ("eos"; "cap" or "guard" where a sentence was cut off; "cancelled"),
    first_sound_s (None if there was none), wall_s, underruns; with several takes also best_of: `Chosen.to_dict` of each
    sentence.
    """

    usage: dict[str, Any]


Event = Sound | Written | Done


class Control(Protocol):
    """What an answer tells whoever makes it."""

    def taken(self, speech: Speech) -> None:
        """Something was fetched."""
        ...

    def cancel(self, speech: Speech) -> None: ...

    def feed(self, speech: Speech, text: str) -> None: ...

    def finish(self, speech: Speech) -> None: ...


class Speech:
    """One answer under way. Iterate it once, in any thread or in asyncio; leaving the loop early cancels it.

    An error of this request is raised after what came before it: TextError, ConfigError, NumericsError, Busy (nobody
    fetched anything for too long).
    """

    def __init__(self, control: Control, seed: int, sample_rate: int) -> None:
        self.seed, self.sample_rate = seed, sample_rate
        self._control = control
        self._lock = threading.Condition()
        self._events: deque[Event] = deque()
        self._unread = 0  # samples
        self._error: BaseException | None = None
        self._over = False  # nothing more is put in
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    # --- whoever makes it -------------------------------------------------------------------------------------------

    def put(self, event: Event) -> None:
        """Another event; `Done` is the last one. After the end it is dropped."""
        with self._lock:
            if self._over:
                return
            self._events.append(event)
            if isinstance(event, Sound):
                self._unread += len(event.samples)
            self._over = isinstance(event, Done)
            self._wake()

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        with self._lock:
            if not self._over:
                self._over, self._error = True, error
                self._wake()

    def drop(self, *, all_of_it: bool = False) -> None:
        """Forget what was not fetched, but for the last event."""
        with self._lock:
            self._events = deque(event for event in self._events if isinstance(event, Done) and not all_of_it)
            self._unread = 0

    def abandon(self, error: BaseException) -> None:
        """It was over, and nobody fetched it: forget it; whoever comes late is told."""
        with self._lock:
            self._events.clear()
            self._unread, self._error = 0, error

    @property
    def unread_s(self) -> float:
        """Sound that nobody has fetched."""
        return self._unread / self.sample_rate

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return self._over

    @property
    def fetched(self) -> bool:
        """Whether all of it has been fetched."""
        return self._over and not self._events

    def _wake(self) -> None:
        self._lock.notify_all()
        if self._waiter is not None:
            (loop, future), self._waiter = self._waiter, None
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more, patience ends it
                loop.call_soon_threadsafe(_set, future)

    # --- whoever listens --------------------------------------------------------------------------------------------

    def _next(self) -> Event | None:
        """The next event, None where there is none yet; `_lock` is held.

        Raises:
            StopIteration: that was all. The error that ended it.
        """
        if self._events:
            event = self._events.popleft()
            if isinstance(event, Sound):
                self._unread -= len(event.samples)
            return event
        if self._error is not None:
            raise self._error
        if self._over:
            raise StopIteration
        return None

    def __iter__(self) -> Iterator[Event]:
        try:
            while True:
                with self._lock:
                    try:
                        while (event := self._next()) is None:
                            self._lock.wait()
                    except StopIteration:
                        return
                self._control.taken(self)
                yield event
        finally:
            self._left()

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            while True:
                with self._lock:
                    try:
                        event = self._next()
                    except StopIteration:
                        return
                    if event is None:
                        loop = asyncio.get_running_loop()
                        future: asyncio.Future[None] = loop.create_future()
                        self._waiter = (loop, future)
                if event is None:
                    await future
                    continue
                self._control.taken(self)
                yield event
        finally:
            self._left()

    def _left(self) -> None:
        if not self._over:
            self.cancel()
        self.drop(all_of_it=True)
        self._control.taken(self)

    def cancel(self) -> None:
        """End it; its rows are free before the next step. From any thread, any number of times."""
        self._control.cancel(self)

    def feed(self, text: str) -> None:
        """More text of an answer that was opened; speech begins at the first clause.

        Raises:
            TextError: more characters than the limit, or text after `finish`.
        """
        self._control.feed(self, text)

    def finish(self) -> None:
        """There is no more text."""
        self._control.finish(self)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
