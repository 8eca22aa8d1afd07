"""Workers as actors of a Ray cluster: of one that is there, or of one on this machine for the time of the run.

The driver keeps the queue, and an actor that dies is not restarted by Ray: what it was at goes to another, as with
processes. Every node needs this package and sees the folder of the run under the same path.
"""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from spear_spec.bulk.crew import Done, Event, Gone, Ready, Refused
from spear_spec.bulk.settings import Settings
from spear_spec.bulk.shards import Shard
from spear_spec.cluster import LOCAL, start_ray
from spear_spec.errors import SpearSpecError, WorkerError


class RayCrew:
    """See `Crew`."""

    def __init__(self, settings: Settings, folder: Path, address: str, workers: int) -> None:
        self._settings, self._folder = settings.to_dict(), str(folder.resolve())
        self._address, self._workers, self._threads = address, workers, settings.threads
        self._gpus = 1 if settings.device.startswith("cuda") else 0
        self._numbers = count()
        self._actors: dict[int, Any] = {}
        self._pending: dict[Any, tuple[int, str]] = {}  # reference to what it is of

    def __enter__(self) -> RayCrew:
        self._ray = start_ray(self._address, self._workers)
        self._kind = self._ray.remote(
            num_cpus=self._threads if self._address != LOCAL else 1,
            num_gpus=self._gpus,
            max_restarts=0,
            max_task_retries=0,
        )(_Actor)
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._ray.shutdown()

    def hire(self) -> int:
        number = next(self._numbers)
        actor = self._actors[number] = self._kind.remote(self._settings, self._folder)
        self._pending[actor.about.remote()] = number, "about"
        return number

    def give(self, worker: int, shard: Shard) -> None:
        self._pending[self._actors[worker].do.remote(shard.to_dict())] = worker, "do"

    def wait(self) -> list[Event]:
        errors = self._ray.exceptions
        try:
            ready, _ = self._ray.wait(list(self._pending), num_returns=1)
        except errors.RayError as error:
            raise WorkerError(_lost(error)) from None
        [reference] = ready
        worker, what = self._pending.pop(reference)
        try:
            told = self._ray.get(reference)
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, SpearSpecError):
                return [Refused(worker, cause)]
            return [self._gone(worker, f"{type(cause).__name__}: {cause}")]
        except (errors.ActorDiedError, errors.ActorUnavailableError, errors.WorkerCrashedError) as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, SpearSpecError):
                return [Refused(worker, cause)]
            return [self._gone(worker, " ".join(str(error).split())[:300])]
        except errors.RayError as error:
            raise WorkerError(_lost(error)) from None
        if what == "about":
            return [Ready(worker, told["pid"], told["host"])]
        return [Done(worker, told)]

    def _gone(self, worker: int, why: str) -> Gone:
        actor = self._actors.pop(worker)
        self._ray.kill(actor)
        return Gone(worker, why)


class _Actor:
    """`Worker` on another machine."""

    def __init__(self, settings: dict[str, Any], folder: str) -> None:
        from spear_spec.bulk.worker import Worker

        self._error: SpearSpecError | None = None
        try:
            self._worker = Worker(Settings.from_dict(settings), folder)
        except SpearSpecError as error:  # told by the first call: Ray would tell of a constructor's as text only
            self._error = error

    def about(self) -> dict[str, Any]:
        """See `Worker`."""
        if self._error is not None:
            raise self._error
        return self._worker.about()

    def do(self, shard: dict[str, Any]) -> dict[str, Any]:
        """See `Worker`."""
        return self._worker.do(Shard.from_dict(shard))


def _lost(error: Exception) -> str:
    return f"the Ray cluster was lost ({' '.join(str(error).split())[:200]}): run the same command again to go on"
