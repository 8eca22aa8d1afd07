"""The settings that `spear-spec tune` races: every drafter that the voice can run, with what suits it.

Lossless ones only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from spear_spec.bench.race import label
from spear_spec.config import SpecConfig
from spear_spec.decoding import DRAFTERS, VERIFIERS, complete, is_lossless
from spear_spec.decoding.drafters import STOPS, drafter_options, growing, tree_of
from spear_spec.errors import SpearSpecError
from spear_spec.pipeline import TTS

GAMMAS = (5, 8, 3, 12)
STOPPED = 12  # draft length where a rule says when to stop


def candidates(tts: TTS) -> Iterator[TTS]:
    """The autoregressive loop, the voice's own setting, then all others: first each drafter once, the unusual ones
    last.

    The voice's own setting is left out where it is lossy.
    """
    known: list[SpecConfig] = []
    everyone = (SpecConfig(drafter="none"), tts.spec, *settings())
    for given in (*(spec.to_dict() for spec in everyone), *others()):
        if known and given.get("drafter") == "none":
            continue
        try:
            arm = tts.using(**given)
            if arm.spec not in (tts.spec, SpecConfig(drafter="none")):
                arm.decoder.chosen()
        except SpearSpecError:  # the voice has no weights for it, it takes no such option, or the runtime cannot run it
            continue
        if is_lossless(arm.spec) and arm.spec not in known:
            known.append(arm.spec)
            yield arm


def settings() -> Iterator[SpecConfig]:
    """What is worth a try, likely winners first. The voice may not be able to run all of it."""
    chains = [name for name, kind in DRAFTERS.items() if name != "none" and kind.form == "chain"]
    for gamma in GAMMAS:
        for name in chains:
            yield SpecConfig(name, "block", gamma)
    for name, kind in DRAFTERS.items():
        for tree in kind.trees:
            yield SpecConfig(name, tree_of(name, tree).rule, 5, tree=tree)
    for name in growing():
        for nodes, width in ((8, 2), (16, 3)):
            options = {"nodes": nodes, "width": width}
            yield SpecConfig(name, tree_of(name, "dynamic").rule, 5, tree="dynamic", options=options)
        for paths, kind in DRAFTERS.items():
            if kind.paths and kind.needs_by is not None:
                rule = complete(SpecConfig(), {"drafter": paths}).verifier
                for k in (2, 4):
                    yield SpecConfig(paths, rule, 5, num_drafts=k, options={kind.needs_by: name})
        yield SpecConfig(name, tree_of(name, "3-2-1-1").rule, 4, tree="3-2-1-1")
    for rule in STOPS:
        for name in chains:
            if "stop" in drafter_options(name):
                yield SpecConfig(name, "block", STOPPED, options={"stop": rule})


def others() -> Iterator[dict[str, Any]]:
    """Keyword arguments of `TTS.using` for what `settings` has no scheme for: drafts of other forms, further rules."""
    for drafter in DRAFTERS.values():
        if drafter.form != "chain" and drafter.needs_by is None:
            yield from drafter.races
    for rule in VERIFIERS.values():
        yield from rule.races


def neighbours(tts: TTS, reach: int = 2, batch: int = 1) -> list[TTS]:
    """The same with slightly shorter and longer drafts; none where the length follows from something else."""
    spec = tts.spec
    if tts.decoder.parts.plain or spec.tree not in (None, "dynamic"):
        return []
    gamma = spec.gamma_at(batch)
    near = [
        replace(spec, gamma=gamma + step, gammas={})
        for step in range(-reach, reach + 1)
        if step and 1 <= gamma + step <= 64
    ]
    return [tts.using(**other.to_dict()) for other in near]


def named(cfg: dict[str, Any]) -> str:
    """Settings, as `TTS.describe` gives them, in a few words."""
    return (
        "none (autoregressive)" if cfg["drafter"] == "none" else f"{cfg['drafter']} / {cfg['verifier']}, {label(cfg)}"
    )
