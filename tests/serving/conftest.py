"""One tiny voice for all tests of serving; schedulers that are driven by hand, with a clock that is set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from spear_spec.pipeline import TTS
from spear_spec.serving.limits import Limits
from spear_spec.serving.scheduler import Scheduler
from tests.serving.driven import Clock
from tests.stubs.voice import make_voice


@pytest.fixture(scope="session")
def tts(tmp_path_factory: pytest.TempPathFactory) -> TTS:
    return TTS.load(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path, device="cpu", drafter="none")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def driven(tts: TTS, clock: Clock) -> Iterator[Callable[..., Scheduler]]:
    """Makes schedulers without threads."""
    made: list[Scheduler] = []

    def make(voice: TTS | None = None, *, observe: Any = None, **limits: Any) -> Scheduler:
        made.append(Scheduler(voice or tts, Limits(**limits), observe=observe, clock=clock, start=False))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()
