"""Verifiers: how much of a draft is kept. One file a rule with its record (`KIND`) at the end, all in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from spear_spec.decoding.kinds import Kinds, VerifierKind
from spear_spec.decoding.verifiers import (
    block,
    coarse,
    coupled,
    kseq,
    lenience,
    matching,
    recursive,
    recursive_wor,
    rejection,
    tolerance,
    typical,
)
from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.errors import ConfigError

__all__ = ["VERIFIERS", "Verifier", "make_verifier", "needs_embedding", "verifier_options"]

VERIFIERS = Kinds(
    "verifier",
    "spear_spec.verifiers",
    VerifierKind,
    (
        rejection.KIND, block.KIND, coupled.KIND, kseq.KIND, recursive.KIND, recursive_wor.KIND,  # lossless, as is
        matching.KIND,
        typical.KIND, tolerance.KIND, lenience.KIND, coarse.KIND,  # lossy
    ),
)  # fmt: skip


def make_verifier(name: str, options: Mapping[str, Any] | None = None, *, embedding: Tensor | None = None) -> Verifier:
    """The verifier of that name.

    options: by name; those that the rule does not know are left to others (see `verifier_options`).
    embedding [V - 1, D]: the vectors of the semantic tokens, which some rules need.

    Raises:
        ConfigError: the name is unknown, an option is out of range, or a rule lacks the vectors.
    """
    kind = VERIFIERS.find(name)
    known = {option: value for option, value in (options or {}).items() if option in kind.options}
    if kind.needs is None:
        return kind.rule(**known)
    if embedding is None:
        raise ConfigError(f"verifier {name} needs the vectors of the semantic tokens (embedding)")
    return kind.rule(embedding, **known)


def verifier_options(name: str) -> tuple[str, ...]:
    """The options that the verifier of that name takes.

    Raises:
        ConfigError: the name is unknown.
    """
    return VERIFIERS.find(name).options


def needs_embedding(name: str) -> bool:
    """Whether the verifier of that name needs the vectors of the semantic tokens."""
    return name in VERIFIERS and VERIFIERS[name].needs == "embedding"
