"""Verifiers: how much of a draft is kept. One file a rule, one row in the table."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import Parameter, signature
from typing import Any

from torch import Tensor

from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.decoding.verifiers.block import BlockVerifier
from spear_spec.decoding.verifiers.coarse import CoarseVerifier
from spear_spec.decoding.verifiers.kseq import KSeqVerifier
from spear_spec.decoding.verifiers.lenience import LenienceVerifier
from spear_spec.decoding.verifiers.matching import MatchingVerifier
from spear_spec.decoding.verifiers.recursive import RecursiveVerifier
from spear_spec.decoding.verifiers.recursive_wor import RecursiveWorVerifier
from spear_spec.decoding.verifiers.rejection import RejectionVerifier
from spear_spec.decoding.verifiers.tolerance import ToleranceVerifier
from spear_spec.decoding.verifiers.typical import TypicalVerifier
from spear_spec.errors import ConfigError

VERIFIERS: dict[str, type[Any]] = {
    # lossless
    "rejection": RejectionVerifier,
    "block": BlockVerifier,
    "kseq": KSeqVerifier,
    "recursive": RecursiveVerifier,
    "recursive_wor": RecursiveWorVerifier,
    "matching": MatchingVerifier,
    # lossy
    "typical": TypicalVerifier,
    "tolerance": ToleranceVerifier,
    "lenience": LenienceVerifier,
    "coarse": CoarseVerifier,
}


def make_verifier(name: str, options: Mapping[str, Any] | None = None, *, embedding: Tensor | None = None) -> Verifier:
    """The verifier of that name.

    options: by name; those that the rule does not know are left to others (see `verifier_options`).
    embedding [V - 1, D]: the vectors of the semantic tokens, which `coarse` needs.

    Raises:
        ConfigError: the name is unknown, an option is out of range, or `coarse` lacks the vectors.
    """
    names = verifier_options(name)
    known = {option: value for option, value in (options or {}).items() if option in names}
    if name == CoarseVerifier.name:
        if embedding is None:
            raise ConfigError("verifier coarse needs the vectors of the semantic tokens (embedding)")
        return CoarseVerifier(embedding, **known)
    return VERIFIERS[name](**known)


def verifier_options(name: str) -> tuple[str, ...]:
    """The options that the verifier of that name takes.

    Raises:
        ConfigError: the name is unknown.
    """
    if name not in VERIFIERS:
        raise ConfigError(f"there is no verifier {name!r}; available: {', '.join(VERIFIERS)}")
    parameters = signature(VERIFIERS[name].__init__).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is Parameter.KEYWORD_ONLY)
