"""Names to things: what ships with the package, what a program registers, what installed packages bring along."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from spear_spec.errors import ConfigError

T = TypeVar("T")


class Registry(Generic[T]):
    """Things of one kind by name, in this order: registered, shipped, of installed packages.

    A package of somebody else names its own in its entry points:

        [project.entry-points."spear_spec.stages"]
        my-vocoder = "my_package.stage:build"

    Nothing is imported before its name is asked for, and no path to code is ever taken from a file of a voice.

    Args:
        what: the word for one of these in messages ("stage").
        group: of the entry points ("spear_spec.stages").
        shipped: our own: name to "module:attribute".
    """

    def __init__(self, what: str, group: str, shipped: Mapping[str, str] | None = None) -> None:
        self.what, self.group = what, group
        self._shipped = dict(shipped or {})
        self._known: dict[str, T] = {}

    def register(self, name: str, thing: T) -> T:
        """Make a thing known by this name; returns it.

        Raises:
            ConfigError: the name stands for another thing already.
        """
        if name in self._shipped or self._known.get(name, thing) is not thing:
            raise ConfigError(f"there is a {self.what} {name!r} already: take another name")
        return self._known.setdefault(name, thing)

    def names(self) -> tuple[str, ...]:
        """All names, those of installed packages included, without importing these."""
        return tuple(dict.fromkeys((*self._shipped, *self._known, *(point.name for point in self._points()))))

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._known or name in self._shipped or bool(self._points(name)))

    def get(self, name: str) -> T:
        """The thing of this name, imported when it is first asked for.

        Raises:
            ConfigError: there is none, two packages claim it, or its package cannot be imported.
        """
        if name not in self._known:
            self._known[name] = self._shipped_thing(name) if name in self._shipped else self._installed(name)
        return self._known[name]

    def package(self, name: str) -> str | None:
        """The installed package that brings the thing of this name; None where it is ours or was registered."""
        return None if name in self._shipped else package_of(self.group, name)

    def _points(self, name: str | None = None) -> list[EntryPoint]:
        chosen: dict[str, Any] = {} if name is None else {"name": name}
        return [point for point in entry_points(group=self.group, **chosen) if point.name not in self._shipped]

    def _shipped_thing(self, name: str) -> T:
        module, _, attribute = self._shipped[name].partition(":")
        thing: T = getattr(import_module(module), attribute)
        return thing

    def _installed(self, name: str) -> T:
        points = self._points(name)
        if not points:
            raise ConfigError(f"there is no {self.what} {name[:80]!r}; available: {', '.join(self.names())}")
        if len({point.value for point in points}) > 1:
            owners = ", ".join(sorted(point.dist.name for point in points if point.dist is not None))
            raise ConfigError(
                f"the {self.what} {name!r} is claimed by several packages ({owners}): uninstall all but one"
            )
        try:
            thing: T = points[0].load()
        except Exception as error:  # whatever a stranger's package raises while it is imported
            owner = self.package(name) or points[0].value
            raise ConfigError(f"the {self.what} {name!r} of {owner} cannot be imported: {error!r}") from error
        return thing


def package_of(group: str, name: str) -> str | None:
    """The installed package whose entry points of this group have this name; None: there is none."""
    owners = (point.dist for point in entry_points(group=group, name=name))
    return next((owner.name for owner in owners if owner is not None), None)
