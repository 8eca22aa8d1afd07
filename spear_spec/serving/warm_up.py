"""Everything that is made when it is first used, made before the first listener is there."""

from __future__ import annotations

from spear_spec.serving.encode import ENCODERS
from spear_spec.serving.scheduler import Scheduler
from spear_spec.serving.speech import Ask, Sound
from spear_spec.text import Reading

TEXT = "Ready, 1 of 2."  # a number, so that every part of the front end is there


def warm_up(scheduler: Scheduler, reading: Reading) -> None:
    """Speak a text, read as texts will be, and encode it in every format.

    Raises:
        ConfigError: the voice cannot read so.
    """
    spoken = [event for event in scheduler.speak(Ask(TEXT, seed=0, reading=reading)) if isinstance(event, Sound)]
    for make in ENCODERS.values():
        encoder = make(scheduler.sample_rate)
        encoder.feed(spoken[-1].samples)
        encoder.finish()
