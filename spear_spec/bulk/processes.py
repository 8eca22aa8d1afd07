"""Workers as processes of this machine: programs of their own, that are told and answer in lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import spear_spec
from spear_spec.bulk.crew import Done, Event, Gone, Ready, Refused, error_of
from spear_spec.bulk.settings import Settings
from spear_spec.bulk.shards import Shard
from spear_spec.errors import WorkerError


@dataclass(eq=False)
class _Process:
    number: int
    run: subprocess.Popen[bytes]
    heard: bytes = b""  # of a line that is not whole yet
    crash: str | None = None


class Processes:
    """See `Crew`."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._order = {"settings": settings.to_dict(), "folder": str(folder.resolve())}
        self._threads = settings.threads
        self._numbers = count()
        self._there: dict[int, _Process] = {}
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in list(self._there.values()):
            process.run.kill()  # what it was at was not published: a resumed run does it again
        for process in list(self._there.values()):
            self._bury(process)
        self._selector.close()

    def hire(self) -> int:
        number, root = next(self._numbers), str(Path(spear_spec.__file__).parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        env = {
            **os.environ,
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": str(self._threads),
            "TOKENIZERS_PARALLELISM": "false",
        }
        try:
            run = subprocess.Popen(
                [sys.executable, "-m", "spear_spec.bulk.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=env,
                process_group=0,  # Ctrl-C is for the driver
            )
        except OSError as error:
            raise WorkerError(f"cannot start a worker: {error.strerror or error}") from None
        process = self._there[number] = _Process(number, run)
        assert run.stdout is not None
        os.set_blocking(run.stdout.fileno(), False)
        self._selector.register(run.stdout, selectors.EVENT_READ, process)
        self._tell(process, self._order)
        return number

    def give(self, worker: int, shard: Shard) -> None:
        self._tell(self._there[worker], shard.to_dict())

    def wait(self) -> list[Event]:
        events: list[Event] = []
        while not events:
            for key, _ in self._selector.select():
                events += self._hear(key.data)
        return events

    def _tell(self, process: _Process, order: dict[str, Any]) -> None:
        assert process.run.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has gone, which `wait` will tell
            process.run.stdin.write(json.dumps(order).encode() + b"\n")
            process.run.stdin.flush()

    def _hear(self, process: _Process) -> list[Event]:
        assert process.run.stdout is not None
        data = process.run.stdout.read()
        if data is None:
            return []
        *lines, process.heard = (process.heard + data).split(b"\n")
        events: list[Event] = []
        for line in lines:
            message = json.loads(line)
            if "ready" in message:
                events.append(Ready(process.number, message["ready"]["pid"], message["ready"]["host"]))
            elif "done" in message:
                events.append(Done(process.number, message["done"]))
            elif "error" in message:
                events.append(Refused(process.number, error_of(**message["error"])))
            else:
                process.crash = message["crash"]
        if not data:
            why = self._bury(process)
            events.append(Gone(process.number, process.crash or why))
        return events

    def _bury(self, process: _Process) -> str:
        """Of a process that has ended or is ending; how it ended."""
        del self._there[process.number]
        assert process.run.stdout is not None and process.run.stdin is not None
        self._selector.unregister(process.run.stdout)
        process.run.stdout.close()
        with contextlib.suppress(OSError):  # what was not written has nobody to read it
            process.run.stdin.close()
        status = process.run.wait()
        if status >= 0:
            return f"it left with status {status}"
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
        return f"killed by signal {-status}"
