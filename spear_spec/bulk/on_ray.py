"""Workers as actors of a Ray cluster: of one that is there, or of one on this machine for the time of the run.

The driver keeps the queue, and an actor that dies is not restarted by Ray: what it was at goes to another, as with
processes. Every node needs this package and sees the folder of the run under the same path.
"""

from __future__ import annotations

import logging
import os
import socket
from itertools import count
from pathlib import Path
from typing import Any

import spear_spec
from spear_spec.bulk.crew import Done, Event, Gone, Ready, Refused
from spear_spec.bulk.settings import Settings
from spear_spec.bulk.shards import Shard
from spear_spec.errors import MissingExtraError, SpearSpecError, WorkerError

LOCAL = "local"
STORE = 100 * 2**20  # bytes of shared memory: nothing larger than a shard's texts passes through it
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_AUTH_MODE": "token"}
# said to be of other systems, but what it does is to keep every socket on 127.0.0.1
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def load_ray(*, alone: bool) -> Any:
    """The package; alone: for a cluster that nobody outside this machine can reach.

    Raises:
        MissingExtraError: it is not installed.
    """
    for name, value in {**QUIET, **(ALONE if alone else {})}.items():  # Ray reads them when it is imported
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise MissingExtraError("Ray is not installed: pip install 'spear_spec[ray]'") from None
    return ray


def start_ray(address: str, workers: int) -> Any:
    """Connect to a cluster, or start one on this machine: no dashboard, nothing sent anywhere, no socket but on
    127.0.0.1.

    $RAY_TMPDIR says where a cluster of one's own keeps its files (a short path: sockets are in it).

    Raises:
        MissingExtraError: Ray is not installed. WorkerError: there is no cluster at the address, or none starts.
    """
    _check_listening(address)
    ray = load_ray(alone=address == LOCAL)
    root = str(Path(spear_spec.__file__).parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "spear_spec"}
    try:
        if address != LOCAL:
            ray.init(address, **common)
        else:
            ray.init(
                "local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=STORE,
                _temp_dir=os.environ.get("RAY_TMPDIR"),
                **common,
            )
    except Exception as error:  # Ray has many; some are bare RuntimeErrors and AssertionErrors
        raise WorkerError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:200]}") from None
    return ray


def _check_listening(address: str) -> None:
    """Refuse HOST:PORT where nothing is: Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return  # "local", "auto", or a form that only Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkerError(f"no Ray cluster at {address}: {reason}") from None


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
