"""The `spear-spec` command. Heavy imports wait until the arguments are known to be good."""

from spear_spec.cli.main import main

__all__ = ["main"]
