"""The training loop: steps, log, checkpoints, going on, a stop by SIGTERM. What is learnt, and how, is a `Learner`'s.

A run is bounded by steps, by minutes of training, or by both. One loop can carry several runs that share their batches.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from tqdm import tqdm

from spear_spec.errors import SpearSpecError
from spear_spec.training.checkpoint import Work, load_checkpoint, save_checkpoint

PAUSE_S = 60.0  # a step that took longer was stopped in between (SIGSTOP): no more than this counts


class Stopped(SpearSpecError):
    """A run was told to stop (SIGTERM) and has left a checkpoint."""


class Learner(Protocol):
    """What a run teaches."""

    def load(self, state: Mapping[str, Any], checkpoint: Path) -> None:
        """Go on from what `state` gave. Raises SpearSpecError: it is of something else."""
        ...

    def begin(self, step: int) -> None:
        """The run starts, or goes on, with this step (0 is the first)."""
        ...

    def learn(self, step: int, progress: float, shared: Any) -> Mapping[str, Tensor | float]:
        """One step; progress: share of the run that is over. Returns losses and the like, one number each."""
        ...

    def report(self, progress: float) -> Mapping[str, Any]:
        """How it does on held-out data, ready for JSON."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What a checkpoint keeps."""
        ...

    def export(self, work: Work, about: Mapping[str, Any]) -> None:
        """Leave what a voice is made of in the folder; about: the line of the log."""
        ...


class Run:
    """A learner in its folder: where it stands, its log, its checkpoints."""

    def __init__(
        self,
        name: str,
        learner: Learner,
        folder: Path,
        *,
        steps: int | None,
        minutes: float = 0.0,
        every: int,
        save_s: float = 0.0,
    ) -> None:
        """Go on from the folder's checkpoint, where there is one.

        Args:
            steps, minutes: the run is over when either is reached (None, 0: no bound).
            every: steps between two lines of the log. save_s: seconds between two checkpoints, which come with a line.

        Raises:
            SpearSpecError: the checkpoint is damaged, or of another learner.
        """
        self.name, self.learner, self.work = name, learner, Work(folder)
        self.steps, self.minutes, self.every, self.save_s = steps, minutes, every, save_s
        self.step, self.seconds = 0, 0.0
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, int] = {}
        self._told, self._saved = -1, time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        if self.work.checkpoint.exists():
            state = load_checkpoint(self.work.checkpoint, ("step",))
            learner.load(state, self.work.checkpoint)
            self.step, self.seconds = int(state["step"]), float(state.get("seconds", 0.0))
        learner.begin(self.step)

    @property
    def progress(self) -> float:
        """Share of the run that is over."""
        by_steps = self.step / self.steps if self.steps else 0.0
        return max(by_steps, self.seconds / 60 / self.minutes if self.minutes else 0.0)

    @property
    def finished(self) -> bool:
        return self.progress >= 1

    def advance(self, shared: Any = None) -> None:
        """One step."""
        began = time.monotonic()
        for key, value in self.learner.learn(self.step, self.progress, shared).items():
            value = value.detach() if isinstance(value, Tensor) else value
            self._sums[key] = self._sums.get(key, 0.0) + value
            self._counts[key] = self._counts.get(key, 0) + 1
        self.step += 1
        self.seconds += min(time.monotonic() - began, PAUSE_S)

    def tell(self) -> dict[str, Any] | None:
        """A line of the log, and a checkpoint with the export, where they are due; the line."""
        if self.step == self._told or (self.step % self.every and not self.finished):
            return None
        self._told = self.step
        about = {"step": self.step, "minutes": round(self.seconds / 60, 1), **self.learner.report(self.progress)}
        means = {f"train_{k}": round(float(v) / self._counts[k], 4) for k, v in self._sums.items()}
        self._sums, self._counts = {}, {}
        with self.work.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps({**about, **means}) + "\n")
        if self.finished or time.monotonic() - self._saved >= self.save_s:
            self.save()
            self.learner.export(self.work, about)
        return {**about, **means}

    def save(self) -> None:
        """Write a checkpoint."""
        state = {**self.learner.state(), "step": self.step, "seconds": self.seconds}
        save_checkpoint(self.work.checkpoint, state)
        self._saved = time.monotonic()


def carry_out(runs: Sequence[Run], *, progress: bool, draw: Callable[[], Any] | None = None) -> None:
    """Carry every run to its end; draw: what all of them learn from in the next step.

    Raises:
        Stopped: SIGTERM; checkpoints are left.
    """
    total = max((run.steps or 0 for run in runs), default=0) or None
    first = min((run.step for run in runs), default=0)
    name = runs[0].name if len(runs) == 1 else "drafts"
    with stopping() as stop, tqdm(total=total, initial=first, disable=not progress, desc=name, mininterval=5) as bar:
        while True:
            for run in runs:
                if (line := run.tell()) is not None:
                    bar.write(f"{run.name} {json.dumps(line)}")
            busy = [run for run in runs if not run.finished]
            if not busy:
                return
            if stop:
                for run in busy:
                    run.save()
                where = ", ".join(f"{run.name} at step {run.step}" for run in busy)
                raise Stopped(f"stopped: {where}; run it again to go on")
            shared = None if draw is None else draw()
            for run in busy:
                run.advance(shared)
            bar.update(1)


@contextmanager
def stopping() -> Iterator[list[int]]:
    """While it is open, SIGTERM fills the list instead of ending the process (in the main thread; elsewhere no signal
    arrives).
    """
    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, previous)
