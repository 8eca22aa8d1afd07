"""Sound made behind the decoding: jobs of a stage in one worker thread, their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

_R = TypeVar("_R")
MOST_WAITING = 3  # jobs not yet taken back: the end of a sentence, a pause, the next beginning; bounds memory and delay


class Behind(Generic[_R]):
    """Runs jobs one after the other, in a thread of its own or, without one, at once.

    As a context: when it is left the thread has ended; jobs that had not begun are dropped.
    """

    def __init__(self, threaded: bool) -> None:
        self.threaded = threaded
        self._pool = ThreadPoolExecutor(1, "spear_spec-sound") if threaded else None
        self._jobs: deque[Future[_R]] = deque()

    def __enter__(self) -> Behind[_R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, job: Callable[[], _R]) -> None:
        """Hand a job over; there may be MOST_WAITING jobs that were not taken back, one where there is no thread."""
        if self._pool is not None:
            self._jobs.append(self._pool.submit(job))
            return
        done: Future[_R] = Future()
        done.set_result(job())
        self._jobs.append(done)

    @property
    def waiting(self) -> int:
        """Jobs that were not taken back."""
        return len(self._jobs)

    @property
    def ready(self) -> bool:
        """Whether `take` would not wait."""
        return bool(self._jobs) and self._jobs[0].done()

    @property
    def full(self) -> bool:
        """Whether a result must be taken before the next job."""
        return len(self._jobs) >= (1 if self._pool is None else MOST_WAITING)

    def take(self) -> _R:
        """The oldest job's result, or its exception."""
        return self._jobs.popleft().result()
