"""Kinds: all that the house knows of a drafter or an acceptance rule. One record beside each, two tables of them.

What is drafted with, what goes with what, what is trained, raced and tried, and how it is described follows from the
records; no name of a drafter or rule stands in code elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from inspect import Parameter, signature
from threading import RLock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from spear_spec.errors import ConfigError

if TYPE_CHECKING:
    from spear_spec.models.contract import Geometry

log = logging.getLogger("spear_spec")

FORMS = {  # what can be drafted, and how a sentence calls it
    "chain": "a chain",
    "iid": "siblings drawn independently",
    "wor": "siblings drawn without replacement",
    "points": "a tree of likeliest tokens",
}
PARTS = ("embedding",)  # what a rule may ask for
Settings = Mapping[str, Any]  # fields of `SpecConfig`; in the race without the name of the record that they stand in
Shape = Callable[["Geometry", Mapping[str, int]], dict[str, Any]]


@dataclass(frozen=True)
class TreeKind:
    """A tree that a drafter can draft: `drafter(part, **fixed, **options)`.

    rule: the verifier that comes with it where none is asked for. form: what it proposes; None: the option `siblings`
    says it. depth: tokens, where the tree's name says so.
    """

    drafter: Callable[..., Any]
    rule: str
    form: str | None = None
    depth: int | None = None
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """How a drafter's part comes about.

    builder: what makes the untrained part of its shape, by its name in `voice/registry.py`.
    shape: (target, sizes) to the part's shape, with sizes "ff_mult" (width of a feed-forward) and "exit_layer" (the
    layer that an early exit drafts behind); None: it is searched for, not trained. stage: of the recipe, that makes it.
    """

    builder: str
    shape: Shape | None = None
    stage: str = "drafters"


@dataclass(frozen=True)
class DrafterKind:
    """A drafter.

    drafter: its class, called as `drafter(part, **options)`, or `drafter(**options)` where it needs no part; its
    keyword-only parameters are the options. It has `name`, `form`, and `needs` where it draws with a trained part.
    about: one line for help and tables. usual: settings where nothing else is said (gamma: at most so many). rule: the
    verifier that it brings; None: the first lossless one for its form, unless the one in use takes it. needs_by: the
    option that names another part than `needs`. paths: it drafts `num_drafts` paths (a keyword-only parameter).
    trees: its own, by name. grows: its part is a decoder, of which the trees of `drafters/tree.py` and paths can be
    grown. raced: settings of `bench --drafters all`; None: as it usually is.
    """

    drafter: type[Any]
    about: str
    usual: Settings = field(default_factory=dict)
    rule: str | None = None
    needs_by: str | None = None
    paths: bool = False
    trees: Mapping[str, TreeKind] = field(default_factory=dict)
    grows: bool = False
    trained: Trained | None = None
    raced: tuple[Settings, ...] | None = None

    def __post_init__(self) -> None:
        _check(self, "drafter", self.drafter, {"name": str, "form": str})
        if self.form not in FORMS:
            raise ConfigError(f"drafter {self.name}: form must be {', '.join(FORMS)}, not {self.form!r}")

    @property
    def name(self) -> str:
        return str(self.drafter.name)

    @property
    def form(self) -> str:
        """What it proposes without a tree."""
        return str(self.drafter.form)

    def needs(self, options: Settings | None = None) -> str | None:
        """The trained part that it draws with under these options, by name; None: it draws with none."""
        part = getattr(self.drafter, "needs", None)
        return part if self.needs_by is None else str((options or {}).get(self.needs_by, part))

    def options(self, tree: TreeKind | None = None) -> tuple[str, ...]:
        """Names of the options (`--set`) that it takes, for one of its trees or without."""
        return tuple(name for name in keyword_only((tree or self).drafter) if name != "num_drafts")

    @property
    def races(self) -> tuple[dict[str, Any], ...]:
        """Keyword arguments of `TTS.using` for every setting of the race."""
        return tuple({"drafter": self.name, **entry} for entry in (({},) if self.raced is None else self.raced))


@dataclass(frozen=True)
class VerifierKind:
    """An acceptance rule.

    rule: its class, called as `rule(**options)`, or `rule(embedding, **options)` where it needs the vectors of the
    semantic tokens; its keyword-only parameters are the options. It has `name`, `lossless` and `forms`. about: one
    line for help and tables. needs: "embedding" or None. siblings: how a static tree for it draws them. usual: the
    draft that it is made for, where nothing else is said. raced: settings of `bench --drafters all` that no drafter
    brings; None: as it usually is, if it is lossless.
    """

    rule: type[Any]
    about: str
    needs: str | None = None
    siblings: str = "top"
    usual: Settings = field(default_factory=dict)
    raced: tuple[Settings, ...] | None = None

    def __post_init__(self) -> None:
        _check(self, "rule", self.rule, {"name": str, "lossless": bool, "forms": frozenset})
        if not self.forms or not self.forms <= FORMS.keys():
            raise ConfigError(f"rule {self.name}: forms must be some of {', '.join(FORMS)}, not {set(self.forms)!r}")
        if self.needs is not None and self.needs not in PARTS:
            raise ConfigError(f"rule {self.name}: needs must be {', '.join(PARTS)} or None, not {self.needs!r}")

    @property
    def name(self) -> str:
        return str(self.rule.name)

    @property
    def lossless(self) -> bool:
        return bool(self.rule.lossless)

    @property
    def forms(self) -> frozenset[str]:
        return frozenset(self.rule.forms)

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the options (`--set`) that it takes."""
        return keyword_only(self.rule)

    @property
    def races(self) -> tuple[dict[str, Any], ...]:
        """Keyword arguments of `TTS.using` for every setting of the race that no drafter brings."""
        usual: tuple[Settings, ...] = ({},) if self.lossless else ()
        return tuple({"verifier": self.name, **entry} for entry in (usual if self.raced is None else self.raced))


def keyword_only(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the keyword-only parameters."""
    return tuple(p.name for p in signature(function).parameters.values() if p.kind is Parameter.KEYWORD_ONLY)


def chains(gammas: Sequence[int], **options: Any) -> tuple[Settings, ...]:
    """Chains of these lengths, verified as blocks, which keeps at least as many tokens as the standard rule does."""
    return tuple({"verifier": "block", "gamma": gamma, "options": options} for gamma in gammas)


def trees(*shapes: tuple[str, str], gamma: int) -> tuple[Settings, ...]:
    """Trees as (verifier, tree); gamma is the depth of those whose name does not say it."""
    return tuple({"verifier": rule, "tree": tree, "gamma": gamma, "options": {}} for rule, tree in shapes)


Kind = TypeVar("Kind", bound=DrafterKind | VerifierKind)


class Kinds(Mapping[str, Kind], Generic[Kind]):
    """The records by name: those of the package, then those that were registered or that other packages bring.

    Other packages name theirs as entry points of `group`. They are loaded when a name is not known or all are asked
    for, once; one that cannot be loaded is a warning and is left out.
    """

    def __init__(self, what: str, group: str, type_: type[Kind], known: Iterable[Kind]) -> None:
        self.what, self.group = what, group
        self._type: type[Kind] = type_
        self.known: dict[str, Kind] = {kind.name: kind for kind in known}
        self._complete, self._lock = False, RLock()

    def __getitem__(self, name: str) -> Kind:
        if name not in self.known:
            self._load()
        return self.known[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(tuple(self.known))

    def __len__(self) -> int:
        self._load()
        return len(self.known)

    def find(self, name: Any) -> Kind:
        """The record of that name.

        Raises:
            ConfigError: there is none.
        """
        if not isinstance(name, str) or name not in self:
            raise ConfigError(f"there is no {self.what} {name!r}; available: {', '.join(self)}")
        return self[name]

    def add(self, kind: Kind) -> None:
        """Take a record into the table; the same one again changes nothing.

        Raises:
            ConfigError: it is no record for this table, or its name is taken.
        """
        if not isinstance(kind, self._type):
            raise ConfigError(f"{kind!r} is no {self._type.__name__}")
        with self._lock:
            if self.known.setdefault(kind.name, kind) != kind:
                raise ConfigError(f"there is a {self.what} {kind.name!r} already")

    def _load(self) -> None:
        with self._lock:
            if self._complete:
                return
            self._complete = True  # first: what is loaded may look into the table
            for entry in entry_points(group=self.group):
                try:
                    self.add(entry.load())
                except Exception as error:  # of somebody else's code
                    reason = str(error).strip().split("\n")[0] or type(error).__name__
                    log.warning("the %s %s (%s) cannot be used: %s", self.what, entry.name, entry.value, reason)


def _check(record: DrafterKind | VerifierKind, field_name: str, class_: Any, wanted: Mapping[str, type]) -> None:
    if not isinstance(class_, type):
        raise ConfigError(f"{type(record).__name__}: {field_name} must be a class, not {class_!r}")
    for name, type_ in wanted.items():
        if not isinstance(getattr(class_, name, None), type_):
            raise ConfigError(f"{type(record).__name__}: {class_.__name__} must have {name}, a {type_.__name__}")
    if not record.about.strip() or "\n" in record.about:
        raise ConfigError(f"{type(record).__name__}: about must be one line that says what {class_.__name__} does")
