"""One entry for both loops, from a SpecConfig: what the pipeline, bench and verify call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from spear_spec.config import SpecConfig
from spear_spec.decoding.autoregressive import generate
from spear_spec.decoding.drafters import make_drafter
from spear_spec.decoding.proposal import Verdict
from spear_spec.decoding.session import Session
from spear_spec.decoding.speculative import speculate
from spear_spec.decoding.verifiers import make_verifier
from spear_spec.errors import ConfigError

if TYPE_CHECKING:
    from spear_spec.models.draft import DraftDecoder


def check(spec: SpecConfig, draft: DraftDecoder | None = None) -> None:
    """Refuse what cannot be decoded with, before any work is done.

    Raises:
        ConfigError: unknown or later names, several drafts, trees, options that nothing reads.
    """
    make_drafter(spec.drafter, draft)
    make_verifier(spec.verifier)
    if spec.num_drafts != 1:
        raise ConfigError("more than one draft (num_drafts) comes with a later release; use 1")
    if spec.tree is not None:
        raise ConfigError("draft trees come with a later release; leave tree out")
    if spec.options:
        raise ConfigError(f"unknown option {', '.join(sorted(spec.options))}: {spec.drafter} with {spec.verifier} takes none")


def is_lossless(spec: SpecConfig) -> bool:
    """Whether the declared rule leaves the target's law unchanged."""
    return spec.drafter == "none" or make_verifier(spec.verifier).lossless


def decode(session: Session, spec: SpecConfig, draft: DraftDecoder | None = None) -> Iterator[Verdict]:
    """Decode until every row has ended; drafter "none" is the autoregressive loop. One Verdict for each target call.

    Raises:
        ConfigError: see `check`.
        NumericsError: the model produced NaN or infinity.
    """
    check(spec, draft)
    if spec.drafter == "none":
        return generate(session)
    return speculate(session, make_drafter(spec.drafter, draft), make_verifier(spec.verifier), spec.gamma)
