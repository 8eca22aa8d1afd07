"""Settings out of a file, checked when it is read: keys, and the kind of every value. Ranges are each class's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from spear_spec.config import Strict
from spear_spec.errors import ConfigError

S = TypeVar("S", bound=Strict)
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}


def read(kind: type[S], values: Any, where: str, *, without: Iterable[str] = (), defaults: S | None = None) -> S:
    """An object of a file as settings of this kind; fields that are settings themselves are read in the same way.

    Args:
        where: how the file calls the object, "t2s.training"; errors name it.
        without: fields that the file may not set, since they follow from something else. defaults: for what it leaves
            out, where the class has none.

    Raises:
        ConfigError: an unknown or missing key, a value of another kind, or one out of range.
    """
    if isinstance(values, kind):
        return values
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where} must be a section of keys and values, not {values!r}")
    known = {f.name for f in fields(kind)} - set(without)  # type: ignore[arg-type]
    if unknown := sorted(map(str, set(values) - known)):
        raise ConfigError(f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}")
    hints = get_type_hints(kind)
    out: dict[str, Any] = {} if defaults is None else defaults.to_dict()
    for key, value in values.items():
        hint, path = hints[key], f"{where}.{key}"
        if isinstance(hint, type) and issubclass(hint, Strict):
            value = read(hint, value, path)
        elif not fits(value, hint):
            raise ConfigError(f"{path} must be {in_words(hint)}, not {value!r}")
        out[key] = value
    try:
        return kind.from_dict(out)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def fits(value: Any, hint: Any) -> bool:
    """Whether a value out of JSON or TOML is of the kind that a field's annotation names."""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return False
        if inner[-1] is Ellipsis:
            return all(fits(each, inner[0]) for each in value)
        return len(value) == len(inner) and all(map(fits, value, inner))
    if origin is dict:
        return isinstance(value, Mapping) and all(fits(each, inner[1]) for each in value.values())
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def in_words(hint: Any) -> str:
    """A kind of value, as an error message names it."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(in_words, get_args(hint)))
    if get_origin(hint) is tuple:
        return "a list"
    return _WORDS.get(hint, "a section of keys and values")
