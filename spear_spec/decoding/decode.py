"""One entry for both loops, from a SpecConfig: what the pipeline, bench and verify call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from spear_spec.config import SpecConfig
from spear_spec.decoding.autoregressive import generate
from spear_spec.decoding.drafters import drafter_options, make_drafter
from spear_spec.decoding.drafters.base import Drafter
from spear_spec.decoding.drafters.none import NoDrafter
from spear_spec.decoding.drafters.tree import Shape
from spear_spec.decoding.proposal import Verdict
from spear_spec.decoding.session import Session
from spear_spec.decoding.speculative import speculate
from spear_spec.decoding.verifiers import VERIFIERS, make_verifier, verifier_options
from spear_spec.decoding.verifiers.base import Verifier
from spear_spec.errors import ConfigError

if TYPE_CHECKING:
    from spear_spec.models.draft import DraftDecoder

# What a rule is given where nothing else is said: the draft that it was made for.
DEFAULT_PROPOSAL: dict[str, dict[str, Any]] = {
    "rejection": {"drafter": "small"}, "block": {"drafter": "small"}, "tolerance": {"drafter": "small"},
    "lenience": {"drafter": "small"}, "coarse": {"drafter": "small"},
    "kseq": {"drafter": "kpath", "num_drafts": 4},
    "recursive": {"drafter": "small", "tree": "4-2-2-1-1-1"}, "recursive_wor": {"drafter": "small", "tree": "4-2-2-1-1-1"},
    "matching": {"drafter": "small", "tree": "dynamic"}, "typical": {"drafter": "small", "tree": "dynamic"},
}  # fmt: skip
_SIBLINGS = {"recursive": "iid", "kseq": "iid", "recursive_wor": "wor"}  # of static trees; other rules get the likeliest


def complete(base: SpecConfig, given: Mapping[str, Any]) -> SpecConfig:
    """`base` with what was asked for, and what fits it where that leaves things open.

    A verifier alone brings its default proposal; a drafter, a tree or a number of paths alone brings a verifier that is
    stated for it. A static tree is as deep as its name says.

    Raises:
        ConfigError: an unknown field, or a value out of range.
    """
    if unknown := sorted(set(given) - {field.name for field in fields(SpecConfig)}):
        raise ConfigError(f"unknown setting {', '.join(unknown)}; known are {', '.join(field.name for field in fields(SpecConfig))}")
    settings = dict(given)
    shape = {"drafter", "tree", "num_drafts"}
    if "verifier" in settings and not shape & settings.keys():
        usual = DEFAULT_PROPOSAL.get(settings["verifier"], {})
        if base.drafter != "none":
            settings |= {"tree": None, "num_drafts": 1} | usual
    elif shape & settings.keys():
        settings = {"tree": None, "num_drafts": 1, **settings}
        if settings.get("num_drafts", 1) != 1 and "drafter" not in settings:
            settings["drafter"] = "kpath"
        if settings.get("drafter") == "kpath" and "num_drafts" not in given:
            settings["num_drafts"] = 4
        if "verifier" not in settings:
            drafter, tree = settings.get("drafter", base.drafter), settings["tree"]
            usual_rule = "kseq" if drafter == "kpath" else None if tree is None else "recursive" if tree == "dynamic" else "recursive_wor"
            forms = VERIFIERS[base.verifier].forms if base.verifier in VERIFIERS else frozenset()
            if usual_rule is not None:
                settings["verifier"] = usual_rule
            elif "chain" not in forms:
                settings["verifier"] = "rejection"
    spec = replace(base, **settings)
    if spec.tree is not None and (branching := Shape.parse(spec.tree).branching) is not None:
        spec = replace(spec, gamma=len(branching))
    return spec


def make(spec: SpecConfig, draft: DraftDecoder | None = None, embedding: Tensor | None = None) -> tuple[Drafter, Verifier]:
    """Drafter and verifier of these settings.

    embedding: vectors of the semantic tokens, for the rule that groups them.

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
    drafter = make_drafter(spec.drafter, draft, tree=spec.tree, num_drafts=spec.num_drafts, options=options)
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
        raise ConfigError(f"verifier {verifier.name} is not made for {named.get(drafter.form, drafter.form)}, which {drafter.name} proposes here; "
                          f"it takes {', '.join(sorted(named[form] for form in verifier.forms))}")


def check(spec: SpecConfig, draft: DraftDecoder | None = None, embedding: Tensor | None = None) -> None:
    """Refuse what cannot be decoded with, before any work is done.

    Raises:
        ConfigError: unknown or later names, options that nothing reads, a rule that is not made for the draft.
    """
    if spec.drafter != "none":
        make(spec, draft, embedding)
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
    """Settings with what they need: the voice's draft decoder, token vectors, and objects of a user's own.

    A drafter or verifier object stands in for the one that the settings name.
    """

    spec: SpecConfig
    draft: DraftDecoder | None = None
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
            verifier = self.own_verifier or make_verifier(self.spec.verifier, self.spec.options, embedding=self.embedding)
        elif self.spec.drafter == "none":
            return NoDrafter(), self.own_verifier or make_verifier("rejection")
        else:
            drafter, verifier = make(self.spec, self.draft, self.embedding)
            verifier = self.own_verifier or verifier
        fits(drafter, verifier)
        return drafter, verifier

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


def decode(session: Session, spec: SpecConfig, draft: DraftDecoder | None = None, *, embedding: Tensor | None = None) -> Iterator[Verdict]:
    """Decode until every row has ended; drafter "none" is the autoregressive loop. One Verdict for each target call.

    Raises:
        ConfigError: see `check`.
        NumericsError: the model produced NaN or infinity.
    """
    return Parts(spec, draft, embedding).decode(session)
