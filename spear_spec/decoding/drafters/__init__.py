"""Drafters: who guesses ahead. One file a method, one row in the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.drafters.kpath import KPathDrafter
from spear_spec.decoding.drafters.none import NoDrafter
from spear_spec.decoding.drafters.small import SmallDrafter
from spear_spec.decoding.drafters.tree import DynamicTreeDrafter, Shape, StaticTreeDrafter
from spear_spec.errors import ConfigError

if TYPE_CHECKING:
    from spear_spec.models.draft import DraftDecoder

DRAFTERS: dict[str, type] = {"none": NoDrafter, "small": SmallDrafter, "kpath": KPathDrafter}
LATER_DRAFTERS = ("small2", "prophet", "medusa", "eagle", "layer_skip", "early_exit", "ngram", "lookup")
TREES = frozenset({"small"})  # drafters that can grow a tree


def make_drafter(name: str, draft: DraftDecoder | None = None, *, tree: str | None = None, num_drafts: int = 1,
                 options: Mapping[str, Any] | None = None) -> Drafter:
    """The drafter of that name, with the voice's draft decoder where it needs one.

    Args:
        tree: see `Shape.parse`. num_drafts: paths of kpath. options: those that the drafter does not know are left to others.

    Raises:
        ConfigError: the name is unknown, known but not built yet, the voice lacks the weights, or a setting does not fit.
    """
    make = _maker(name, tree)
    if make is NoDrafter:
        return NoDrafter()
    if draft is None:
        raise ConfigError("this voice has no draft decoder; use the drafter none")
    settings = {key: value for key, value in (options or {}).items() if key in drafter_options(name, tree)}
    if make is KPathDrafter:
        settings["num_drafts"] = num_drafts
    elif num_drafts != 1:
        raise ConfigError(f"num_drafts is for the drafter kpath; {name} drafts one")
    if make is StaticTreeDrafter:
        settings["branching"] = Shape.parse(str(tree)).branching
    return make(draft, **settings)


def drafter_options(name: str, tree: str | None = None) -> tuple[str, ...]:
    """Names of the options (`--set`) that a drafter takes.

    Raises:
        ConfigError: see `make_drafter`.
    """
    parameters = inspect.signature(_maker(name, tree)).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "num_drafts")


def _maker(name: str, tree: str | None) -> Callable[..., Drafter]:
    if name in LATER_DRAFTERS:
        raise ConfigError(f"drafter {name} comes with a later release; available now: {', '.join(DRAFTERS)}")
    if name not in DRAFTERS:
        raise ConfigError(f"there is no drafter {name!r}; available: {', '.join(DRAFTERS)}")
    if tree is None:
        return DRAFTERS[name]
    if name not in TREES:
        raise ConfigError(f"drafter {name} grows no tree; leave tree out, or use one of {', '.join(sorted(TREES))}")
    return DynamicTreeDrafter if Shape.parse(tree).branching is None else StaticTreeDrafter
