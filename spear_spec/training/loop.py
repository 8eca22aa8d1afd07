"""The training loop: steps, log, checkpoints, going on, a stop by SIGTERM. What is learnt, and how, is a `Learner`'s.

A run is bounded by steps, by minutes of training, or by both. One loop can carry several runs that share their batches.
A run that is bounded by steps and was stopped or killed anywhere ends with the same weights as one that was not: what a
learner draws is told from the step (`order.py`), and the rest is in the checkpoint.
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

from spear_spec.audio import write_atomically
from spear_spec.errors import SpearSpecError
from spear_spec.training.checkpoint import Work, load_checkpoint, save_checkpoint
from spear_spec.training.processes import Processes

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
        main: bool = True,
    ) -> None:
        """Go on from the folder's checkpoint, where there is one.

        Args:
            steps, minutes: the run is over when either is reached (None, 0: no bound).
            every: steps between two lines of the log. save_s: seconds between two checkpoints; 0: one with every line.
                The export comes with a line.
            main: whether this process writes (see `processes.py`).

        Raises:
            SpearSpecError: the checkpoint is damaged, or of another learner.
        """
        self.name, self.learner, self.work, self.main = name, learner, Work(folder), main
        self.steps, self.minutes, self.every, self.save_s = steps, minutes, every, save_s
        self.step, self.seconds = 0, 0.0
        self._sums: dict[str, Tensor | float] = {}
        self._counts: dict[str, int] = {}
        self._told, self._last = -1, dict[str, Any]()
        self._saved = self._exported = time.monotonic()
        if main:
            folder.mkdir(parents=True, exist_ok=True)
        if self.work.checkpoint.exists():
            state = load_checkpoint(self.work.checkpoint, ("step",))
            learner.load(state, self.work.checkpoint)
            self.step, self.seconds = int(state["step"]), float(state.get("seconds", 0.0))
            self._sums, self._counts = dict(state.get("sums", {})), dict(state.get("counts", {}))
            self._resume_log(self.step)
        else:
            self._resume_log(-1)
        learner.begin(self.step)

    def _resume_log(self, step: int) -> None:
        """Lines behind the checkpoint's step are written again."""
        if not self.main or not self.work.log.exists():
            return
        lines = self.work.log.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        if kept != lines:
            write_atomically(self.work.log, "".join(kept).encode())
        if kept and (last := json.loads(kept[-1]))["step"] == self.step:
            self._told, self._last = self.step, last

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
        """A line of the log, and the export, where they are due, and a checkpoint where that is; the line."""
        if not self.main:
            return None
        if self.step == self._told:
            if self._last and self.finished:  # finished before; what it left may be gone
                about, self._last = {k: v for k, v in self._last.items() if not k.startswith("train_")}, {}
                self.learner.export(self.work, about)
            return None
        if self.step % self.every and not self.finished:
            if self.save_s and time.monotonic() - self._saved >= self.save_s:
                self.save()
            return None
        self._told, self._last = self.step, {}
        about = {"step": self.step, "minutes": round(self.seconds / 60, 1), **self.learner.report(self.progress)}
        means = {f"train_{k}": round(float(v) / self._counts[k], 4) for k, v in self._sums.items()}
        self._sums, self._counts = {}, {}
        with self.work.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps({**about, **means}) + "\n")
        # the checkpoint comes last: with it, the line and the export are there
        if self.finished or time.monotonic() - self._exported >= self.save_s:
            self.learner.export(self.work, about)
            self._exported = time.monotonic()
        if self.finished or time.monotonic() - self._saved >= self.save_s:
            self.save()
        return {**about, **means}

    def save(self) -> None:
        """Write a checkpoint."""
        if not self.main:
            return
        sums = {key: value.cpu() if isinstance(value, Tensor) else value for key, value in self._sums.items()}
        own = {"step": self.step, "seconds": self.seconds, "sums": sums, "counts": self._counts}
        save_checkpoint(self.work.checkpoint, {**self.learner.state(), **own})
        self._saved = time.monotonic()


def carry_out(
    runs: Sequence[Run],
    *,
    progress: bool,
    draw: Callable[[int], Any] | None = None,
    processes: Processes | None = None,
) -> None:
    """Carry every run to its end; draw: what all of them learn from in a step. Those that are behind come first, so
    that the same step brings the same to each.

    Raises:
        Stopped: SIGTERM (to any of the processes); checkpoints are left.
    """
    together = processes or Processes()
    total = max((run.steps or 0 for run in runs), default=0) or None
    first = min((run.step for run in runs), default=0)
    name = runs[0].name if len(runs) == 1 else "drafts"
    hidden = not (progress and together.main)
    together.wait()
    with stopping() as stop, tqdm(total=total, initial=first, disable=hidden, desc=name, mininterval=5) as bar:
        while True:
            stops, *seconds = together.most(len(stop), *(run.seconds for run in runs))
            for run, value in zip(runs, seconds):
                run.seconds = value
                if (line := run.tell()) is not None:
                    bar.write(f"{run.name} {json.dumps(line)}")
            busy = [run for run in runs if not run.finished]
            if not busy:
                break
            if stops:
                for run in busy:
                    run.save()
                where = ", ".join(f"{run.name} at step {run.step}" for run in busy)
                raise Stopped(f"stopped: {where}; run it again to go on")
            step = min(run.step for run in busy)
            shared = None if draw is None else draw(step)
            for run in busy:
                if run.step == step:
                    run.advance(shared)
            bar.update(1)
    together.wait()  # what it left is there for all


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
