"""The settings that `spear-spec tune` races: every drafter that the voice can run, with what suits it.

Lossless ones only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from spear_spec.bench.race import label
from spear_spec.config import SpecConfig
from spear_spec.decoding import DRAFTERS, is_lossless
from spear_spec.decoding.drafters import STOPS, TREES
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
    for spec in (SpecConfig(drafter="none"), tts.spec, *settings()):
        if spec in known or (known and spec.drafter == "none"):
            continue
        try:
            arm = tts.using(**spec.to_dict())
        except SpearSpecError:  # the voice has no weights for it, or it takes no such option
            continue
        if is_lossless(arm.spec):
            known.append(arm.spec)
            yield arm


def settings() -> Iterator[SpecConfig]:
    """What is worth a try, likely winners first. The voice may not be able to run all of it."""
    chains = [name for name in DRAFTERS if name not in ("none", "kpath")]
    trees = [name for name in DRAFTERS if name in TREES]
    for gamma in GAMMAS:
        for name in chains:
            yield SpecConfig(name, "block", gamma)
    yield SpecConfig("medusa", "recursive", 5, tree="sparse")
    for name in trees:
        for nodes, width in ((8, 2), (16, 3)):
            yield SpecConfig(name, "recursive", 5, tree="dynamic", options={"nodes": nodes, "width": width})
        for paths in (2, 4):
            yield SpecConfig("kpath", "kseq", 5, num_drafts=paths, options={"of": name})
        yield SpecConfig(name, "recursive_wor", 4, tree="3-2-1-1")
    for rule in STOPS:
        for name in chains:
            yield SpecConfig(name, "block", STOPPED, options={"stop": rule})


def neighbours(tts: TTS, reach: int = 2) -> list[TTS]:
    """The same with slightly shorter and longer drafts; none where the length follows from something else."""
    spec = tts.spec
    if tts.parts().plain or spec.tree not in (None, "dynamic"):
        return []
    near = [
        replace(spec, gamma=spec.gamma + step)
        for step in range(-reach, reach + 1)
        if step and 1 <= spec.gamma + step <= 64
    ]
    return [tts.using(**other.to_dict()) for other in near]


def named(cfg: dict[str, Any]) -> str:
    """Settings, as `TTS.describe` gives them, in a few words."""
    return (
        "none (autoregressive)" if cfg["drafter"] == "none" else f"{cfg['drafter']} / {cfg['verifier']}, {label(cfg)}"
    )
