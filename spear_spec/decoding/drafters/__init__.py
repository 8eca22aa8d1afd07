"""Drafters: who guesses ahead. One file a method, one row in the table."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from spear_spec.decoding.drafters.adaptive import STOPS
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.drafters.eagle import EagleDrafter
from spear_spec.decoding.drafters.early_exit import EarlyExitDrafter
from spear_spec.decoding.drafters.kpath import KPathDrafter
from spear_spec.decoding.drafters.layer_skip import LayerSkipDrafter
from spear_spec.decoding.drafters.lookup import LookupDrafter
from spear_spec.decoding.drafters.medusa import MedusaDrafter, MedusaTreeDrafter
from spear_spec.decoding.drafters.ngram import NgramDrafter
from spear_spec.decoding.drafters.none import NoDrafter
from spear_spec.decoding.drafters.prophet import ProphetDrafter
from spear_spec.decoding.drafters.small import Small2Drafter, SmallDrafter
from spear_spec.decoding.drafters.tree import DynamicTreeDrafter, Shape, StaticTreeDrafter
from spear_spec.errors import ConfigError

__all__ = ["DRAFTERS", "STOPS", "TREES", "Drafter", "drafter_options", "make_drafter", "needs"]

DRAFTERS: dict[str, type] = {
    "none": NoDrafter, "small": SmallDrafter, "small2": Small2Drafter, "kpath": KPathDrafter, "prophet": ProphetDrafter,
    "medusa": MedusaDrafter, "eagle": EagleDrafter, "layer_skip": LayerSkipDrafter, "early_exit": EarlyExitDrafter,
    "ngram": NgramDrafter, "lookup": LookupDrafter,
}  # fmt: skip
TREES = frozenset({"small", "small2", "eagle"})  # drafters whose decoder can grow a tree


def needs(name: str, options: Mapping[str, Any] | None = None) -> str | None:
    """The trained part that a drafter draws with, by name; None where it draws with none."""
    part: str | None = getattr(DRAFTERS.get(name), "needs", None)
    return str((options or {}).get("of", part)) if name == "kpath" else part


def make_drafter(
    name: str,
    drafts: Any = None,
    *,
    tree: str | None = None,
    num_drafts: int = 1,
    options: Mapping[str, Any] | None = None,
) -> Drafter:
    """The drafter of that name, with the trained part that it needs.

    Args:
        drafts: the voice's trained parts by name, or one part, which is taken for the right one.
        tree: see `Shape.parse`. num_drafts: paths of kpath. options: those that the drafter does not know are left to
        others.

    Raises:
        ConfigError: the name is unknown, the voice lacks the weights, or a setting does not fit.
    """
    make = _maker(name, tree)
    settings = {key: value for key, value in (options or {}).items() if key in drafter_options(name, tree)}
    if make is KPathDrafter:
        settings["num_drafts"] = num_drafts
    elif num_drafts != 1:
        raise ConfigError(f"num_drafts is for the drafter kpath; {name} drafts one")
    if make is StaticTreeDrafter:
        settings["branching"] = Shape.parse(str(tree)).branching
    part = needs(name, options)
    drafter: Drafter = make(**settings) if part is None else make(_part(name, part, drafts), **settings)
    drafter.name = name
    return drafter


def _part(name: str, part: str, drafts: Any) -> Any:
    if not isinstance(drafts, Mapping):
        if drafts is None:
            raise ConfigError(f"this voice has nothing to draft with as {name} does; use the drafter none")
        return drafts
    if part not in drafts:
        own = [known for known in DRAFTERS if known != "none" and (needs(known) is None or needs(known) in drafts)]
        raise ConfigError(
            f"this voice has no draft decoder for {name}; it can use {', '.join(own) or 'the drafter none'}"
        )
    return drafts[part]


def drafter_options(name: str, tree: str | None = None) -> tuple[str, ...]:
    """Names of the options (`--set`) that a drafter takes.

    Raises:
        ConfigError: see `make_drafter`.
    """
    parameters = inspect.signature(_maker(name, tree)).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name != "num_drafts")


def _maker(name: str, tree: str | None) -> Callable[..., Drafter]:
    if name not in DRAFTERS:
        raise ConfigError(f"there is no drafter {name!r}; available: {', '.join(DRAFTERS)}")
    if tree is None:
        return DRAFTERS[name]
    if name == "medusa":
        if tree != "sparse":
            raise ConfigError(f"the tree of drafter medusa is called sparse, not {tree!r}")
        return MedusaTreeDrafter
    if name not in TREES:
        raise ConfigError(f"drafter {name} grows no tree; leave tree out, or use one of {', '.join(sorted(TREES))}")
    shape = Shape.parse(tree)
    if tree == "sparse":
        raise ConfigError("the tree sparse is for the drafter medusa")
    return DynamicTreeDrafter if shape.branching is None else StaticTreeDrafter
