"""Drafters: who guesses ahead. One file a method, its record (`KIND`) at the end of the file, all in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spear_spec.decoding.drafters import (
    block,
    eagle,
    early_exit,
    kpath,
    layer_skip,
    lookup,
    medusa,
    ngram,
    none,
    prophet,
    small,
)
from spear_spec.decoding.drafters.adaptive import STOPS
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.drafters.tree import grown
from spear_spec.decoding.kinds import DrafterKind, Kinds, TreeKind
from spear_spec.errors import ConfigError

__all__ = ["DRAFTERS", "STOPS", "Drafter", "drafter_options", "growing", "make_drafter", "needs", "trained", "tree_of"]

DRAFTERS = Kinds(
    "drafter",
    "spear_spec.drafters",
    DrafterKind,
    (
        none.KIND, small.KIND, small.KIND_2, kpath.KIND, prophet.KIND, medusa.KIND, eagle.KIND, block.KIND,
        layer_skip.KIND, early_exit.KIND, ngram.KIND, lookup.KIND,
    ),
)  # fmt: skip


def needs(name: str, options: Mapping[str, Any] | None = None) -> str | None:
    """The trained part that a drafter draws with, by name; None where it draws with none, or is not known."""
    return DRAFTERS[name].needs(options) if name in DRAFTERS else None


def growing() -> list[str]:
    """Drafters of whose decoder trees and paths can be grown; the plainest first."""
    return [name for name, kind in DRAFTERS.items() if kind.grows]


def trained(stage: str | None = None) -> tuple[str, ...]:
    """Drafters for which something is trained or searched for, all or those of one stage of the recipe."""
    return tuple(
        name for name, kind in DRAFTERS.items() if kind.trained is not None and stage in (None, kind.trained.stage)
    )


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
        tree: see `tree_of`. num_drafts: paths, of a drafter that drafts several. options: those that the drafter does
        not know are left to others.

    Raises:
        ConfigError: the name is unknown, the voice lacks the weights, or a setting does not fit.
    """
    kind = DRAFTERS.find(name)
    shape = None if tree is None else tree_of(name, tree)
    settings = {key: value for key, value in (options or {}).items() if key in kind.options(shape)}
    if kind.paths:
        settings["num_drafts"] = num_drafts
    elif num_drafts != 1:
        raise ConfigError(f"num_drafts is for the drafter {' or '.join(_with_paths())}; {name} drafts one")
    part = kind.needs(options)
    given = () if part is None else (_part(name, part, drafts),)
    make = kind.drafter if shape is None else shape.drafter
    drafter: Drafter = make(*given, **settings, **({} if shape is None else shape.fixed))
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
    return DRAFTERS.find(name).options(None if tree is None else tree_of(name, tree))


def tree_of(name: str, tree: Any) -> TreeKind:
    """The tree that this drafter calls so: one of its own, or one that is grown from its decoder.

    Raises:
        ConfigError: the drafter is unknown, drafts no trees, or not this one.
    """
    kind = DRAFTERS.find(name)
    if not isinstance(tree, str):
        raise ConfigError(f"tree must be a name, not {tree!r}")
    if tree in kind.trees:
        return kind.trees[tree]
    if not kind.grows:
        if kind.trees:
            raise ConfigError(f"the tree of drafter {name} is called {' or '.join(kind.trees)}, not {tree!r}")
        raise ConfigError(f"drafter {name} grows no tree; leave tree out, or use one of {', '.join(growing())}")
    if owners := [other for other, record in DRAFTERS.items() if tree in record.trees]:
        raise ConfigError(f"the tree {tree} is for the drafter {' or '.join(owners)}")
    return grown(tree)


def _with_paths() -> list[str]:
    return [name for name, kind in DRAFTERS.items() if kind.paths]
