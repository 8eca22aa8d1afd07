"""`spear-spec train`."""

from __future__ import annotations

import argparse


def run(args: argparse.Namespace) -> int:
    """Train the part that a configuration file describes."""
    from spear_spec.training.recipe.run import run_config

    run_config(args.config)
    return 0
