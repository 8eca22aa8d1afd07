"""The command line of a recipe: a file of settings, and what is set over it."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from typing import Any

from spear_spec.errors import SpearSpecError
from spear_spec.training.recipe.plan import read_file, set_value


def values_of(
    config: str | os.PathLike[str], assignments: Sequence[str] = (), stages: Sequence[str] = ()
) -> dict[str, Any]:
    """What a JSON or TOML file says, with `section.key=value` over it, and these stages instead of its own.

    Raises:
        ConfigError: the file cannot be read, or an assignment is none.
    """
    values = read_file(config)
    for assignment in assignments:
        set_value(values, assignment)
    if stages:
        values["stages"] = list(stages)
    return values


def command(
    name: str,
    about: str | None,
    do: Callable[[dict[str, Any]], None],
    argv: Sequence[str] | None,
    stages: Sequence[str],
) -> int:
    """Read the command line and do it; the exit status.

    Args:
        name: stands before an error. about: the help. do: takes the settings. stages: that may be chosen; none: there
            is no choice.
    """
    ap = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("config", help="a JSON or TOML file")
    ap.set_defaults(stages=[])
    if stages:
        ap.add_argument("--stages", nargs="*", metavar="STAGE", help=" ".join(stages))
    ap.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="over what the file says: section.key=value, values as JSON",
    )
    args = ap.parse_args(argv)
    try:
        do(values_of(args.config, args.set, args.stages))
    except SpearSpecError as error:
        print(f"{name}: {error}", flush=True)
        return 2
    return 0
