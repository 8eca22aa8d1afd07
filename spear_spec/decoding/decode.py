"""One entry for both loops, from a SpecConfig: what the pipeline, bench and verify call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from spear_spec.config import SpecConfig
from spear_spec.decoding.drafters import TREES, drafter_options, make_drafter, needs
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.drafters.none import NoDrafter
from spear_spec.decoding.drafters.tree import Shape
from spear_spec.decoding.loop import generate, speculate
from spear_spec.decoding.proposal import Verdict
from spear_spec.decoding.session import Session
from spear_spec.decoding.verifiers import VERIFIERS, make_verifier, verifier_options
from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.errors import ConfigError
from spear_spec.models.drafts.decoder import DraftDecoder

# What a rule is given where nothing else is said: the draft that it was made for, from the decoder in use.
DEFAULT_PROPOSAL: dict[str, dict[str, Any]] = {
    "rejection": {}, "block": {}, "tolerance": {}, "lenience": {}, "coarse": {},
    "kseq": {"drafter": "kpath", "num_drafts": 4},
    "recursive": {"tree": "4-2-2-1-1-1"}, "recursive_wor": {"tree": "4-2-2-1-1-1"},
    "matching": {"tree": "dynamic"}, "typical": {"tree": "dynamic"},
}  # fmt: skip
# Drafts that cost much, or seldom go far: where nothing is said they are at most this long (RESULTS.md, the race).
USUAL_GAMMA = {"kpath": 4, "medusa": 8, "early_exit": 3, "layer_skip": 3, "ngram": 3, "lookup": 3}
_SIBLINGS = {
    "recursive": "iid",
    "kseq": "iid",
    "recursive_wor": "wor",
}  # of static trees; other rules get the likeliest


def complete(base: SpecConfig, given: Mapping[str, Any]) -> SpecConfig:
    """`base` with what was asked for, and what fits it where that leaves things open.

    A verifier alone brings its default proposal; a drafter, a tree or a number of paths alone brings a verifier that is
    stated for it. A static tree is as deep as its name says.

    Raises:
        ConfigError: an unknown field, or a value out of range.
    """
    if unknown := sorted(set(given) - {field.name for field in fields(SpecConfig)}):
        raise ConfigError(
            f"unknown setting {', '.join(unknown)}; known are {', '.join(field.name for field in fields(SpecConfig))}"
        )
    settings = dict(given)
    shape = {"drafter", "tree", "num_drafts"}
    if "verifier" in settings and not shape & settings.keys():
        usual = DEFAULT_PROPOSAL.get(settings["verifier"], {})
        if base.drafter != "none":
            settings |= {"tree": None, "num_drafts": 1} | usual
            if "drafter" not in settings and (
                base.drafter == "kpath" or ("tree" in usual and base.drafter not in TREES)
            ):
                settings["drafter"] = "small"
    elif shape & settings.keys():
        points = "verifier" not in settings or "points" in _forms(settings["verifier"])
        medusa = settings.get("drafter", base.drafter) == "medusa" and points and "num_drafts" not in settings
        settings = {"tree": "sparse" if medusa else None, "num_drafts": 1, **settings}
        if settings.get("num_drafts", 1) != 1 and "drafter" not in settings:
            settings["drafter"] = "kpath"
        if settings.get("drafter") == "kpath" and "num_drafts" not in given:
            settings["num_drafts"] = 4
        if "verifier" not in settings:
            drafter, tree = settings.get("drafter", base.drafter), settings["tree"]
            usual_rule = (
                "kseq"
                if drafter == "kpath"
                else None
                if tree is None
                else "recursive"
                if tree in ("dynamic", "sparse")
                else "recursive_wor"
            )
            forms = _forms(base.verifier)
            if usual_rule is not None:
                settings["verifier"] = usual_rule
            elif "chain" not in forms:
                settings["verifier"] = "rejection"
    if settings.get("drafter", base.drafter) != base.drafter:
        # options of one drafter mean nothing to another
        usual_gamma = min(base.gamma, USUAL_GAMMA.get(settings["drafter"], base.gamma))
        settings = {"gamma": usual_gamma, "options": {}, **settings}
    spec = replace(base, **settings)
    if spec.tree is not None and (branching := Shape.parse(spec.tree).branching) is not None:
        spec = replace(spec, gamma=len(branching))
    return spec


def _forms(verifier: str) -> frozenset[str]:
    return VERIFIERS[verifier].forms if verifier in VERIFIERS else frozenset()


def make(spec: SpecConfig, drafts: Any = None, embedding: Tensor | None = None) -> tuple[Drafter, Verifier]:
    """Drafter and verifier of these settings.

    drafts: the trained parts by name, or the one that the drafter needs. embedding: vectors of the semantic tokens,
    for the rule that groups them.

    Raises:
        ConfigError: see `check`.
    """
    options = dict(spec.options)
    known = {*drafter_options(spec.drafter, spec.tree), *verifier_options(spec.verifier)}
    if unknown := sorted(set(options) - known):
        takes = f"takes {', '.join(sorted(known))}" if known else "takes none"
        raise ConfigError(f"unknown option {', '.join(unknown)}: {spec.drafter} with {spec.verifier} {takes}")
    if "siblings" in known:
        options.setdefault("siblings", _SIBLINGS.get(spec.verifier, "top"))
    drafter = make_drafter(spec.drafter, drafts, tree=spec.tree, num_drafts=spec.num_drafts, options=options)
    verifier = make_verifier(spec.verifier, options, embedding=embedding)
    fits(drafter, verifier)
    return drafter, verifier


def fits(drafter: Drafter, verifier: Verifier) -> None:
    """Refuse a rule that is not stated for what the drafter proposes.

    Raises:
        ConfigError: it is not.
    """
    if drafter.form not in verifier.forms:
        named = {"chain": "a chain", "iid": "siblings drawn independently", "wor": "siblings drawn without replacement",
                 "points": "a tree of likeliest tokens"}  # fmt: skip
        raise ConfigError(
            f"verifier {verifier.name} is not made for {named.get(drafter.form, drafter.form)}, which {drafter.name} proposes here; "
            f"it takes {', '.join(sorted(named[form] for form in verifier.forms))}"
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
        return speculate(session, *self.make(), self.spec.gamma)


def decode(
    session: Session, spec: SpecConfig, drafts: Any = None, *, embedding: Tensor | None = None
) -> Iterator[Verdict]:
    """Decode until every row has ended; drafter "none" is the autoregressive loop. One Verdict for each target call.

    Raises:
        ConfigError: see `check`.
        NumericsError: the model produced NaN or infinity.
    """
    return Parts(spec, drafts, embedding).decode(session)
