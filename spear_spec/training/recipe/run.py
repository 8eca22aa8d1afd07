"""`spear-spec train CONFIG`: run the stages of a recipe. A stage runs again when its settings or what it reads have
changed, and when what it leaves is not there; a run that was cut off goes on where it stopped.

python -m spear_spec.training.recipe.run CONFIG [--stages t2s vocoder]
    [--set out=runs/mine prepare.corpora='["LJSpeech-1.1"]']

The t2s stage takes several GPUs: accelerate launch --multi_gpu -m spear_spec.training.recipe.run CONFIG --stages t2s
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch

from spear_spec.errors import ConfigError
from spear_spec.training.processes import started
from spear_spec.training.recipe.command import command, values_of
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.once import once
from spear_spec.training.recipe.plan import STAGES, Plan

if TYPE_CHECKING:
    from spear_spec.training.recipe.stage import Stage


def run_config(config: str | os.PathLike[str], assignments: Sequence[str] = (), stages: Sequence[str] = ()) -> None:
    """Run the stages that a JSON or TOML file names.

    Args:
        assignments: `section.key=value`, over what the file says.
        stages: instead of the file's.

    Raises:
        SpearSpecError: the file, a corpus or a stage's input cannot be used.
    """
    run_plan(Plan.from_dict(values_of(config, assignments, stages)))


def run_plan(plan: Plan) -> None:
    """Run a checked recipe: a stage that is done with the same settings and inputs is passed over.

    Raises:
        SpearSpecError: a corpus or a stage's input cannot be used, or a trainer was told to stop.
    """
    from spear_spec.training.recipe.stages import TABLE

    torch.set_num_threads(plan.threads)
    processes, main = started(), os.environ.get("RANK", "0") == "0"

    def alone(stage: Stage, label: str) -> None:
        if processes > 1 and not stage.together:
            raise ConfigError(
                f"{label} is done by one process, and {processes} were started: run it by itself first "
                f"(--stages {stage.name}), and start several for --stages t2s"
            )

    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {plan.out}: {error.strerror or error}") from None
    for number, stage in enumerate(TABLE):
        if stage.name not in plan.stages:
            continue
        marker, label = Layout(plan.out).done(number, stage.name), f"stage {number}, {stage.name}"
        once(
            label, marker, stage.key(plan), partial(stage.written, plan), partial(stage.run, plan),
            may=partial(alone, stage, label), main=main,
        )  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `python -m spear_spec.training.recipe.run`; returns the exit status."""
    return command("train", __doc__, lambda values: run_plan(Plan.from_dict(values)), argv, STAGES)


if __name__ == "__main__":
    raise SystemExit(main())
