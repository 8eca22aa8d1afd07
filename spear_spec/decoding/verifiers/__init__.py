"""Verifiers: how much of a draft is kept. One file a rule, one row in the table."""

from __future__ import annotations

from collections.abc import Callable

from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.decoding.verifiers.rejection import RejectionVerifier
from spear_spec.errors import ConfigError

VERIFIERS: dict[str, Callable[[], Verifier]] = {"rejection": RejectionVerifier}
LATER_VERIFIERS = ("block", "kseq", "recursive", "recursive_wor", "matching", "typical", "tolerance", "lenience", "coarse")


def make_verifier(name: str) -> Verifier:
    """The verifier of that name.

    Raises:
        ConfigError: the name is unknown, or known but not built yet.
    """
    if name in VERIFIERS:
        return VERIFIERS[name]()
    if name in LATER_VERIFIERS:
        raise ConfigError(f"verifier {name} comes with a later release; available now: {', '.join(VERIFIERS)}")
    raise ConfigError(f"there is no verifier {name!r}; available: {', '.join(VERIFIERS)}")
