"""A recipe that is killed: `mortal.py RECIPE.json STAGES REPORT.json`.

The recipe runs whole into OUT/whole, and into OUT/cut with a SIGKILL in the middle of each stage that is named, once a
stage; the run after it goes on. All is imported once; each run is a fork of it, which nothing survives. What a stage
does is counted in ticks: a step of a trainer, a sentence, a clip that is encoded or analysed, a file that is put in
place. It dies at the middle one, before it is done.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from spear_spec.training.recipe import stages
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.run import run_plan

TICKS = (
    ("os", "replace"),
    ("os", "rename"),
    ("pathlib", "Path.rename"),
    ("spear_spec.semantic.encoder", "SpeechEncoder.hidden"),
    ("spear_spec.training.data.align", "best_paths"),
    ("spear_spec.training.loop", "Run.advance"),
    ("spear_spec.training.loop", "Run.save"),
    ("spear_spec.training.drafts.sample", "sample_tokens"),
    ("spear_spec.training.vocoder.data", "analyse"),
    ("spear_spec.pipeline", "TTS.synthesize"),
    ("spear_spec.engine", "Engine.step"),
)


class Clock:
    """It counts the ticks of the stage that runs, and dies at one of them."""

    def __init__(self, stage: str = "", tick: int = 0) -> None:
        self.now, self.dies = "", (stage, tick)
        self.counts: dict[str, int] = {}
        self.seconds: dict[str, float] = {}

    def tick(self) -> None:
        if not self.now:
            return
        self.counts[self.now] = self.counts.get(self.now, 0) + 1
        if (self.now, self.counts[self.now]) == self.dies:
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGKILL)


def wound(clock: Clock) -> None:
    """Let everything that counts tick."""
    for module, path in TICKS:
        at: Any = importlib.import_module(module)
        *classes, name = path.split(".")
        for each in classes:
            at = getattr(at, each)
        setattr(at, name, ticking(getattr(at, name), clock))
    table = []
    for stage in stages.TABLE:
        object.__setattr__(stage, "run", in_turn(stage.run, stage.name, clock))
        table.append(stage)


def ticking(real: Callable[..., Any], clock: Clock) -> Callable[..., Any]:
    def call(*args: Any, **options: Any) -> Any:
        clock.tick()
        return real(*args, **options)

    return call


def in_turn(run: Callable[[Plan], None], name: str, clock: Clock) -> Callable[[Plan], None]:
    def staged(plan: Plan) -> None:
        clock.now, began = name, time.monotonic()
        run(plan)
        clock.now = ""
        clock.seconds[name] = time.monotonic() - began

    return staged


def forked(values: dict[str, Any], clock: Clock, report: Path | None = None) -> int:
    """Run the recipe in a process of its own; how it ended (a signal's number, negative)."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            torch.set_num_threads(1)
            wound(clock)
            run_plan(Plan.from_dict(values))
            if report is not None:
                report.write_text(json.dumps({"ticks": clock.counts, "seconds": clock.seconds}))
            status = 0
        except Exception:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    values, names, report = json.loads(Path(sys.argv[1]).read_text()), sys.argv[2].split(","), Path(sys.argv[3])
    for module, _ in TICKS:
        importlib.import_module(module)
    importlib.import_module("transformers.models.whisper.modeling_whisper")
    out = Path(values["out"])
    whole, cut = ({**values, "out": str(at), "push": {"to": str(at / "pushed")}} for at in (out / "whole", out / "cut"))
    assert forked(whole, Clock(), report) == 0
    ticks = json.loads(report.read_text())["ticks"]
    ended = {}
    for name in names:
        middle = ticks[name] // 2 + 1
        ended[name] = forked(cut, Clock(name, middle))
    last = forked(cut, Clock())
    report.write_text(json.dumps({**json.loads(report.read_text()), "ended": ended, "last": last}))


if __name__ == "__main__":
    main()
