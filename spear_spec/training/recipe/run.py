"""`spear-spec train CONFIG`: run the stages of a recipe, each once; a run that was cut off goes on where it stopped.

python -m spear_spec.training.recipe.run CONFIG [--stages t2s vocoder] [--set out=runs/mine
prepare.corpora='["LJSpeech-1.1"]']
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict

import torch

from spear_spec.errors import ConfigError, SpearSpecError
from spear_spec.training.recipe.plan import STAGES, Plan, read_file, set_value


def run_config(config: str | os.PathLike[str], assignments: Sequence[str] = (), stages: Sequence[str] = ()) -> None:
    """Run the stages that a JSON or TOML file names.

    Args:
        assignments: `section.key=value`, over what the file says.
        stages: instead of the file's.

    Raises:
        SpearSpecError: the file, a corpus or a stage's input cannot be used.
    """
    values = read_file(config)
    for assignment in assignments:
        set_value(values, assignment)
    if stages:
        values["stages"] = list(stages)
    run_plan(Plan.from_dict(values))


def run_plan(plan: Plan) -> None:
    """Run a checked recipe: a stage that is marked done with the same settings is skipped."""
    from spear_spec.training.recipe import stages

    table: dict[str, Callable[[Plan], None]] = {name: getattr(stages, name) for name in STAGES}
    torch.set_num_threads(plan.threads)
    try:
        plan.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the folder {plan.out}: {error.strerror or error}") from None
    for number, name in enumerate(STAGES):
        if name not in plan.stages:
            continue
        marker = plan.out / f"done.{number}.{name}.json"
        settings = json.loads(json.dumps(asdict(getattr(plan, name))))
        if marker.exists() and json.loads(marker.read_text(encoding="utf-8")) == settings:
            print(f"stage {number}, {name}: done before (delete {marker} to run it again)", flush=True)
            continue
        print(f"stage {number}, {name}", flush=True)
        began = time.monotonic()
        table[name](plan)
        stages.write_json(marker, settings)
        print(f"stage {number}, {name}: done in {time.monotonic() - began:.0f} s", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `python -m spear_spec.training.recipe.run`; returns the exit status."""
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("config", help="a JSON or TOML file")
    ap.add_argument("--stages", nargs="*", default=[], metavar="STAGE", help=" ".join(STAGES))
    ap.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="over what the file says: section.key=value, values as JSON",
    )
    args = ap.parse_args(argv)
    try:
        run_config(args.config, args.set, args.stages)
    except SpearSpecError as error:
        print(f"train: {error}", flush=True)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
