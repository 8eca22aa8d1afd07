"""A tiny voice, its settings, and workers in this very process that can be made to die."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from spear_spec.bulk.crew import Done, Event, Gone, Ready, Refused
from spear_spec.bulk.lines import Line
from spear_spec.bulk.settings import Settings
from spear_spec.bulk.shards import Shard
from spear_spec.bulk.worker import Worker
from spear_spec.config import SpecConfig
from spear_spec.errors import SpearSpecError
from spear_spec.tuning.store import fingerprint
from tests.stubs.voice import SAMPLING, make_voice

TEXTS = ("Yes.", "Forty two.", "The cat sat. It was late!", "...", "No.", "We go north.", "One.", "Two, three.")


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    bundle = make_voice(tmp_path_factory.mktemp("bulk") / "tiny")
    return Settings(
        voice=str(bundle.path),
        name="tiny",
        fingerprint=fingerprint(bundle.path),
        speaker="af_heart",
        version="0",
        seed=3,
        sampling=SAMPLING.to_dict(),
        spec=SpecConfig(drafter="small", gamma=3).to_dict(),
        shard_lines=2,
        batch=3,
        max_tokens=40,
    )


@pytest.fixture(scope="session")
def worker(settings: Settings) -> Worker:
    return Worker(settings, "nowhere")


@pytest.fixture
def lines() -> list[Line]:
    return [Line(n + 1, f"{n:03d}", text, seed=n or None) for n, text in enumerate(TEXTS)]


class Inline:
    """A crew in this process. dies(worker, shard): whether, and how ("before" or "after" it was published)."""

    def __init__(self, worker: Worker, dies: Callable[[int, Shard], str | None] = lambda worker, shard: None) -> None:
        self.worker, self.dies = worker, dies
        self.hired, self.done = 0, []
        self.given: dict[int, Shard] = {}
        self._new: deque[int] = deque()

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def hire(self) -> int:
        self.hired += 1
        self._new.append(self.hired)
        return self.hired

    def give(self, worker: int, shard: Shard) -> None:
        assert worker not in self.given, "a worker has one shard at a time"
        self.given[worker] = shard

    def wait(self) -> list[Event]:
        if self._new:
            return [Ready(self._new.popleft(), 0, "here")]
        number, shard = next(iter(self.given.items()))  # AssertionError or StopIteration: the driver waits for nobody
        del self.given[number]
        how = self.dies(number, shard)
        if how == "before":
            return [Gone(number, "it was told to")]
        try:
            told = self.worker.do(shard)
        except SpearSpecError as error:
            return [Refused(number, error)]
        if how == "after":
            return [Gone(number, "it was told to")]
        self.done.append(shard.name)
        return [Done(number, told)]
