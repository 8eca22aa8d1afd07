"""What drives a scheduler without threads, and what reads its answers."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from spear_spec.audio import FloatArray
from spear_spec.serving.scheduler import Scheduler
from spear_spec.serving.speech import Done, Event, Sound, Speech


class Clock:
    """Seconds that stand still until somebody moves them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def settle(scheduler: Scheduler) -> None:
    """Work until there is nothing to do."""
    while any([scheduler.work_front(), scheduler.work_step(), scheduler.work_sound()]):
        pass


def prepared(scheduler: Scheduler) -> None:
    """The front end works until it has nothing to do."""
    while scheduler.work_front():
        pass


def there(speech: Speech) -> list[Event]:
    """What can be fetched without waiting."""
    out: list[Event] = []
    try:
        with speech._lock, suppress(StopIteration):
            while (event := speech._next()) is not None:
                out.append(event)
    finally:
        speech._control.taken(speech)
    return out


def sound(events: Iterable[Event]) -> FloatArray:
    pieces = [event.samples for event in events if isinstance(event, Sound)]
    return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)


def usage(events: list[Event]) -> dict[str, object]:
    assert isinstance(events[-1], Done), events[-1:]
    return events[-1].usage
