"""The training loop, with a learner whose every step can be told from its number."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from spear_spec.errors import ConfigError, SpearSpecError
from spear_spec.training import loop
from spear_spec.training.checkpoint import Work, load_checkpoint, restore, save_checkpoint
from spear_spec.training.loop import Run, Stopped, carry_out


class Counter:
    """A state that depends on the order of steps, and random numbers that depend on where the run began."""

    def __init__(self, signal_at: int | None = None) -> None:
        self.value, self.signal_at = torch.zeros((), dtype=torch.float64), signal_at
        self.began: list[int] = []
        self.exports: list[int] = []
        self.given: list[Any] = []

    def load(self, state: Mapping[str, Any], checkpoint: Path) -> None:
        self.value = state["value"]

    def begin(self, step: int) -> None:
        self.began.append(step)

    def learn(self, step: int, progress: float, shared: Any) -> Mapping[str, torch.Tensor | float]:
        self.value = self.value * 1.5 + step + progress
        self.given.append(shared)
        if step == self.signal_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": torch.tensor(float(step)), "size": 2.0}

    def report(self, progress: float) -> Mapping[str, Any]:
        return {"done": progress}

    def state(self) -> Mapping[str, Any]:
        return {"value": self.value}

    def export(self, work: Work, about: Mapping[str, Any]) -> None:
        self.exports.append(about["step"])


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "train.log").read_text().splitlines()]


def test_a_run_by_steps(tmp_path: Path) -> None:
    learner = Counter()
    carry_out([Run("x", learner, tmp_path, steps=5, every=2)], progress=False)
    assert [(line["step"], line["done"]) for line in lines(tmp_path)] == [(0, 0.0), (2, 0.4), (4, 0.8), (5, 1.0)]
    assert [line.get("train_loss") for line in lines(tmp_path)] == [None, 0.5, 2.5, 4.0]  # means since the line before
    assert learner.exports == [0, 2, 4, 5]
    assert load_checkpoint(tmp_path / "checkpoint.pt")["step"] == 5


def test_sigterm_leaves_a_checkpoint_and_the_run_goes_on_to_the_same_end(tmp_path: Path) -> None:
    straight = Counter()
    carry_out([Run("x", straight, tmp_path / "straight", steps=7, every=10)], progress=False)
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="x at step 4; run it again"):
        carry_out([Run("x", Counter(signal_at=3), tmp_path / "cut", steps=7, every=10)], progress=False)
    assert signal.getsignal(signal.SIGTERM) is handler
    resumed = Counter()
    carry_out([Run("x", resumed, tmp_path / "cut", steps=7, every=10)], progress=False)
    assert resumed.began == [4]
    assert torch.equal(resumed.value, straight.value)
    assert [line["step"] for line in lines(tmp_path / "cut")] == [0, 7]


def test_a_run_by_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    def clock() -> float:
        now[0] += 7.5  # read at both ends of a step
        return now[0]

    monkeypatch.setattr(loop.time, "monotonic", clock)
    carry_out([Run("x", Counter(), tmp_path, steps=None, minutes=1.0, every=100)], progress=False)
    assert [(line["step"], line["minutes"]) for line in lines(tmp_path)] == [(0, 0.0), (8, 1.0)]


def test_a_pause_is_no_training_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 0.0, 5000.0, *[5000.0] * 9])
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(times))
    run = Run("x", Counter(), tmp_path, steps=3, every=1)
    run.advance()
    assert run.seconds == loop.PAUSE_S


def test_checkpoints_may_be_rarer_than_lines(tmp_path: Path) -> None:
    learner = Counter()
    carry_out([Run("x", learner, tmp_path, steps=4, every=1, save_s=1000)], progress=False)
    assert [line["step"] for line in lines(tmp_path)] == [0, 1, 2, 3, 4]
    assert learner.exports == [4]


def test_runs_share_what_is_drawn_and_end_by_themselves(tmp_path: Path) -> None:
    learners = [Counter(), Counter()]
    runs = [Run(str(n), learners[n], tmp_path / str(n), steps=(2, 4)[n], every=10) for n in (0, 1)]
    carry_out(runs, progress=False, draw=lambda step: "abcdef"[step])
    assert [learner.given for learner in learners] == [["a", "b"], ["a", "b", "c", "d"]]


def test_who_is_behind_catches_up_first(tmp_path: Path) -> None:
    """Checkpoints of runs that share their batches are of different steps after a kill."""
    carry_out([Run("0", Counter(), tmp_path / "0", steps=3, every=10)], progress=False)
    learners = [Counter(), Counter()]
    runs = [Run(str(n), learners[n], tmp_path / str(n), steps=5, every=10) for n in (0, 1)]
    carry_out(runs, progress=False, draw=lambda step: "abcdef"[step])
    assert [learner.given for learner in learners] == [["d", "e"], ["a", "b", "c", "d", "e"]]


class Killed(BaseException):
    """What nobody catches, as nobody does a SIGKILL."""


class Mortal(Counter):
    """It dies in a step, or while it exports."""

    def __init__(self, step: int | None = None, export: int | None = None) -> None:
        super().__init__()
        self.dies = step, export

    def learn(self, step: int, progress: float, shared: Any) -> Mapping[str, torch.Tensor | float]:
        if step == self.dies[0]:
            raise Killed
        return super().learn(step, progress, shared)

    def export(self, work: Work, about: Mapping[str, Any]) -> None:
        if about["step"] == self.dies[1]:
            raise Killed
        (work.folder / "exported").write_text(json.dumps({**about, "minutes": 0, "value": float(self.value)}))


def left(folder: Path) -> tuple[Any, ...]:
    rows = [{**line, "minutes": 0} for line in lines(folder)]
    return rows, (folder / "exported").read_text(), load_checkpoint(folder / "checkpoint.pt")["value"]


@pytest.mark.parametrize("where", [{"step": n} for n in range(7)] + [{"export": n} for n in (0, 3, 6, 7)])
@pytest.mark.parametrize("save_s", [0.0, 1e-9])
def test_a_kill_changes_nothing_of_what_is_left(where: dict[str, int], save_s: float, tmp_path: Path) -> None:
    """Checkpoint, log (no line twice, means over the same steps) and export; checkpoints with lines, and in between."""
    settings: dict[str, Any] = {"steps": 7, "every": 3, "save_s": save_s}
    carry_out([Run("x", Mortal(), tmp_path / "whole", **settings)], progress=False)
    with pytest.raises(Killed):
        carry_out([Run("x", Mortal(**where), tmp_path / "cut", **settings)], progress=False)
    resumed = Run("x", Mortal(), tmp_path / "cut", **settings)
    if save_s and where.get("step"):
        assert resumed.step == where["step"]  # a checkpoint a step
    carry_out([resumed], progress=False)
    assert left(tmp_path / "cut") == left(tmp_path / "whole")


def test_a_finished_run_leaves_its_export_again_and_no_other_line(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 2, "every": 1}
    carry_out([Run("x", Mortal(), tmp_path, **settings)], progress=False)
    before = left(tmp_path)
    (tmp_path / "exported").unlink()
    carry_out([Run("x", Mortal(), tmp_path, **settings)], progress=False)
    assert left(tmp_path) == before


def test_checkpoints_of_others_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"weights": 1})
    with pytest.raises(SpearSpecError, match="lacks step"):
        Run("x", Counter(), tmp_path, steps=1, every=1)
    path.write_bytes(b"junk")
    with pytest.raises(SpearSpecError, match="delete it to start again"):
        Run("x", Counter(), tmp_path, steps=1, every=1)
    for other in (torch.nn.Linear(2, 3), torch.nn.Linear(3, 2, bias=False), torch.nn.ReLU()):
        with pytest.raises(ConfigError, match=r"checkpoint\.pt is of a model of another shape \((weight|bias): "):
            restore(torch.nn.Linear(3, 2), other.state_dict(), path)
