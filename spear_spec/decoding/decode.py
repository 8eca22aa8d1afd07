"""One entry for both loops, from a SpecConfig: what the pipeline, bench and verify call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from torch import Tensor

from spear_spec.config import SpecConfig
from spear_spec.decoding.drafters import DRAFTERS, drafter_options, growing, make_drafter, needs, tree_of
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.drafters.none import NoDrafter
from spear_spec.decoding.kinds import FORMS, DrafterKind, Kinds, VerifierKind
from spear_spec.decoding.loop import generate, speculate
from spear_spec.decoding.proposal import Verdict
from spear_spec.decoding.session import Session
from spear_spec.decoding.verifiers import VERIFIERS, make_verifier
from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.errors import ConfigError
from spear_spec.models.drafts.decoder import DraftDecoder

_SHAPE = {"drafter", "tree", "num_drafts"}  # the settings that say what is drafted


def register(kind: DrafterKind | VerifierKind) -> None:
    """Take a drafter or a rule of one's own into the tables, as if it came with the package.

    Raises:
        ConfigError: it is no record, or its name is taken.
    """
    if isinstance(kind, VerifierKind):
        VERIFIERS.add(kind)
    else:
        DRAFTERS.add(kind)


def complete(base: SpecConfig, given: Mapping[str, Any]) -> SpecConfig:
    """`base` with what was asked for, and what fits it where that leaves things open.

    A verifier alone brings its default proposal; a drafter, a tree or a number of paths alone brings a verifier that is
    stated for it. A static tree is as deep as its name says.

    Raises:
        ConfigError: an unknown field, a value out of range, or a tree that the drafter does not draft.
    """
    known = [field.name for field in fields(SpecConfig)]
    if unknown := sorted(set(given) - set(known)):
        raise ConfigError(f"unknown setting {', '.join(unknown)}; known are {', '.join(known)}")
    settings = dict(given)
    if "verifier" in settings and not _SHAPE & settings.keys():
        settings |= _draft_for(base, _kind(VERIFIERS, settings["verifier"]))
    elif _SHAPE & settings.keys():
        settings = _with_rule(base, settings)
    if settings.get("drafter", base.drafter) != base.drafter:
        # options of one drafter mean nothing to another
        kind = _kind(DRAFTERS, settings["drafter"])
        longest = base.gamma if kind is None else kind.usual.get("gamma", base.gamma)
        settings = {"gamma": min(base.gamma, longest), "options": {}, **settings}
    if settings.keys() & {"gamma", "drafter", "tree", "num_drafts", "verifier"}:
        settings = {"gammas": {}, **settings}  # measured for the draft as it was
    spec = replace(base, **settings)
    if spec.tree is not None and (depth := tree_of(spec.drafter, spec.tree).depth) is not None:
        spec = replace(spec, gamma=depth)
    return spec


def _draft_for(base: SpecConfig, rule: VerifierKind | None) -> dict[str, Any]:
    """The draft that a rule is made for, from the decoder in use where it can."""
    if rule is None or base.drafter == "none":
        return {}
    settings = {"tree": None, "num_drafts": 1, **rule.usual}
    drafter = _kind(DRAFTERS, base.drafter)
    if "tree" in rule.usual:
        fits_it = drafter is not None and drafter.grows
    else:
        fits_it = drafter is not None and drafter.form in rule.forms
    if "drafter" not in settings and not fits_it:
        settings["drafter"] = growing()[0]
    return settings


def _with_rule(base: SpecConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """What is drafted as it was asked for and usually is, with a rule for it if none was named."""
    given = settings
    drafter = _kind(DRAFTERS, given.get("drafter", base.drafter))
    tree = None if drafter is None or "num_drafts" in given else drafter.usual.get("tree")
    if tree is not None and "verifier" in given:
        assert drafter is not None
        tree = tree if tree_of(drafter.name, tree).form in _forms(given["verifier"]) else None
    settings = {"tree": tree, "num_drafts": 1, **given}
    if settings["num_drafts"] != 1 and "drafter" not in given:
        drafter = next(kind for kind in DRAFTERS.values() if kind.paths)
        settings["drafter"] = drafter.name
    if drafter is not None and drafter.paths and "drafter" in settings and "num_drafts" not in given:
        settings["num_drafts"] = drafter.usual.get("num_drafts", 1)
    if "verifier" not in settings:
        form = "chain" if drafter is None else drafter.form
        if drafter is not None and drafter.rule is not None:
            settings["verifier"] = drafter.rule
        elif drafter is not None and settings["tree"] is not None:
            settings["verifier"] = tree_of(drafter.name, settings["tree"]).rule
        elif form not in _forms(base.verifier):
            settings["verifier"] = next(
                name for name, rule in VERIFIERS.items() if rule.lossless and form in rule.forms
            )
    return settings


def _kind(table: Kinds[Any], name: Any) -> Any:
    return table.get(name) if isinstance(name, str) else None


def _forms(verifier: Any) -> frozenset[str]:
    kind: VerifierKind | None = _kind(VERIFIERS, verifier)
    return frozenset() if kind is None else kind.forms


def make(spec: SpecConfig, drafts: Any = None, embedding: Tensor | None = None) -> tuple[Drafter, Verifier]:
    """Drafter and verifier of these settings.

    drafts: the trained parts by name, or the one that the drafter needs. embedding: vectors of the semantic tokens,
    for the rule that groups them.

    Raises:
        ConfigError: see `check`.
    """
    options, rule = dict(spec.options), VERIFIERS.find(spec.verifier)
    known = {*drafter_options(spec.drafter, spec.tree), *rule.options}
    if unknown := sorted(set(options) - known):
        takes = f"takes {', '.join(sorted(known))}" if known else "takes none"
        raise ConfigError(f"unknown option {', '.join(unknown)}: {spec.drafter} with {spec.verifier} {takes}")
    if "siblings" in known:
        options.setdefault("siblings", rule.siblings)
    drafter = make_drafter(spec.drafter, drafts, tree=spec.tree, num_drafts=spec.num_drafts, options=options)
    verifier = make_verifier(spec.verifier, options, embedding=embedding)
    fits(drafter, verifier)
    if 0 in spec.gammas.values() and not getattr(drafter, "rests", False):
        raise ConfigError(f"gammas: {drafter.name} cannot pass over a step, so its drafts have at least 1 token")
    return drafter, verifier


def fits(drafter: Drafter, verifier: Verifier) -> None:
    """Refuse a rule that is not stated for what the drafter proposes.

    Raises:
        ConfigError: it is not.
    """
    if drafter.form not in verifier.forms:
        takes = ", ".join(sorted(FORMS.get(form, form) for form in verifier.forms))
        raise ConfigError(
            f"verifier {verifier.name} is not made for {FORMS.get(drafter.form, drafter.form)}, which {drafter.name} "
            f"proposes here; it takes {takes}"
        )


def check(spec: SpecConfig, drafts: Any = None, embedding: Tensor | None = None) -> None:
    """Refuse what cannot be decoded with, before any work is done.

    Raises:
        ConfigError: unknown or later names, options that nothing reads, a rule that is not made for the draft.
    """
    if spec.drafter != "none":
        make(spec, drafts, embedding)
        return
    make_verifier(spec.verifier, embedding=embedding)
    if spec.tree is not None or spec.num_drafts != 1:
        raise ConfigError("drafter none proposes nothing: leave tree and num_drafts out")
    if spec.options:
        raise ConfigError(f"unknown option {', '.join(sorted(spec.options))}: drafter none takes none")


def is_lossless(spec: SpecConfig) -> bool:
    """Whether the declared rule leaves the target's law unchanged."""
    return spec.drafter == "none" or VERIFIERS[spec.verifier].lossless


@dataclass(frozen=True)
class Parts:
    """Settings with what they need: the voice's trained drafts, token vectors, and objects of a user's own.

    A drafter or verifier object stands in for the one that the settings name.
    """

    spec: SpecConfig
    drafts: Any = None
    embedding: Tensor | None = None
    own_drafter: Drafter | None = None
    own_verifier: Verifier | None = None

    def make(self) -> tuple[Drafter, Verifier]:
        """The drafter and verifier to decode with.

        Raises:
            ConfigError: see `check`.
        """
        if self.own_drafter is not None:
            drafter = self.own_drafter
            verifier = self.own_verifier or make_verifier(
                self.spec.verifier, self.spec.options, embedding=self.embedding
            )
        elif self.spec.drafter == "none":
            return NoDrafter(), self.own_verifier or make_verifier("rejection")
        else:
            drafter, verifier = make(self.spec, self.drafts, self.embedding)
            verifier = self.own_verifier or verifier
        fits(drafter, verifier)
        return drafter, verifier

    @cached_property
    def made(self) -> tuple[Drafter, Verifier]:
        """The same, made once: they hold weights, no state of an utterance.

        Raises:
            ConfigError: see `check`.
        """
        return self.make()

    @property
    def decoder(self) -> DraftDecoder | None:
        """The decoder that drafts, where its law at a position follows from the tokens and the target's features
        before it.
        """
        part = needs(self.spec.drafter, self.spec.options)
        if self.own_drafter is not None or part is None:
            return None
        draft = self.drafts.get(part) if isinstance(self.drafts, Mapping) else self.drafts
        return (
            draft if isinstance(draft, DraftDecoder) and not draft.cfg.window and draft.cfg.feed == "previous" else None
        )

    @property
    def plain(self) -> bool:
        """Whether this is the autoregressive loop."""
        return self.spec.drafter == "none" and self.own_drafter is None

    def decode(self, session: Session) -> Iterator[Verdict]:
        """Decode until every row has ended, one Verdict for each target call.

        Raises:
            ConfigError: see `check`. NumericsError: the model produced NaN or infinity.
        """
        if self.plain:
            return generate(session)
        return speculate(session, *self.made, self.spec.gamma_at)


def decode(
    session: Session, spec: SpecConfig, drafts: Any = None, *, embedding: Tensor | None = None
) -> Iterator[Verdict]:
    """Decode until every row has ended; drafter "none" is the autoregressive loop. One Verdict for each target call.

    Raises:
        ConfigError: see `check`.
        NumericsError: the model produced NaN or infinity.
    """
    return Parts(spec, drafts, embedding).decode(session)
