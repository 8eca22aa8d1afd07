"""Drafters: who guesses ahead. One file a method, one row in the table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.drafters.none import NoDrafter
from spear_spec.decoding.drafters.small import SmallDrafter
from spear_spec.errors import ConfigError

if TYPE_CHECKING:
    from spear_spec.models.draft import DraftDecoder


def _small(draft: DraftDecoder | None) -> Drafter:
    if draft is None:
        raise ConfigError("this voice has no draft decoder; use the drafter none")
    return SmallDrafter(draft)


DRAFTERS: dict[str, Callable[[DraftDecoder | None], Drafter]] = {"none": lambda draft: NoDrafter(), "small": _small}
LATER_DRAFTERS = ("small2", "kpath", "prophet", "medusa", "eagle", "layer_skip", "early_exit", "ngram", "lookup")


def make_drafter(name: str, draft: DraftDecoder | None = None) -> Drafter:
    """The drafter of that name, with the voice's draft decoder where it needs one.

    Raises:
        ConfigError: the name is unknown, known but not built yet, or the voice lacks the weights.
    """
    if name in DRAFTERS:
        return DRAFTERS[name](draft)
    if name in LATER_DRAFTERS:
        raise ConfigError(f"drafter {name} comes with a later release; available now: {', '.join(DRAFTERS)}")
    raise ConfigError(f"there is no drafter {name!r}; available: {', '.join(DRAFTERS)}")
