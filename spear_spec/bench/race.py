"""Who races: the settings that drafters and rules bring to `bench --drafters all`, and what else can be asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spear_spec.decoding import DRAFTERS, VERIFIERS
from spear_spec.errors import ConfigError, SpearSpecError
from spear_spec.pipeline import TTS

Settings = dict[str, Any]  # keyword arguments of `TTS.using`


def contestants(
    tts: TTS, drafters: Sequence[str] | None, gammas: Sequence[int] = ()
) -> tuple[list[TTS], list[dict[str, Any]]]:
    """Whom to measure beside the autoregressive loop, and what of "all" this voice cannot run ({drafter, settings,
    why}).

    Args:
        drafters: names, each with `tts`'s own settings as far as they fit; None is `tts` as it is set; "all" is
            what the records of drafters and rules say.
        gammas: draft lengths for those that are named, in place of `tts`'s own.

    Raises:
        ConfigError: an unknown drafter, one that this voice has no weights for, or gammas with "all".
    """
    if drafters is not None and "all" in drafters:
        if gammas:
            raise ConfigError("--gammas goes with drafters by name; all brings its own")
        return _everyone(tts)
    found: list[TTS] = []
    for name in [tts.spec.drafter] if drafters is None else dict.fromkeys(drafters):
        if drafters is None or name == tts.spec.drafter:
            arms = [tts] if not gammas else [_longer(tts, gamma) for gamma in gammas]
        else:
            arms = (
                [tts.using(drafter=name)] if not gammas else [tts.using(drafter=name, gamma=gamma) for gamma in gammas]
            )
        found += [arm for arm in arms if not arm.decoder.parts.plain]
    return _different(found), []


def label(settings: Mapping[str, Any]) -> str:
    """Settings in a few words, from arguments of `TTS.using` or from a row: "k 4, gamma 4, of=eagle"."""
    tree, paths, gamma = settings.get("tree"), settings.get("num_drafts", 1), settings.get("gamma")
    words = [f"tree {tree}"] if tree else []
    words += [f"k {paths}"] if paths > 1 else []
    words += [f"gamma {gamma}"] if gamma and not (tree and tree[0].isdigit()) else []
    return ", ".join([*words, *(f"{name}={value}" for name, value in settings.get("options", {}).items())])


def _longer(tts: TTS, gamma: int) -> TTS:
    if tts.spec.tree is not None and tts.spec.tree[0].isdigit():
        raise ConfigError(f"the tree {tts.spec.tree} is as deep as its name says: leave --gammas or --tree out")
    return tts if tts.decoder.parts.plain else tts.using(gamma=gamma)


def _everyone(tts: TTS) -> tuple[list[TTS], list[dict[str, Any]]]:
    # objects of a user's own have no row in the table and race as they are
    found, left_out = [tts] if tts.own_drafter is not None or tts.own_verifier is not None else [], []
    everyone = [*(kind.races for kind in DRAFTERS.values()), *(kind.races for kind in VERIFIERS.values())]
    for races in everyone:
        missing: list[dict[str, Any]] = []
        for settings in races:
            try:
                arm = tts.using(**{"options": {}, **settings})  # those of `tts` are its own
                arm.decoder.chosen()
                found.append(arm)
            except SpearSpecError as error:
                drafter = settings.get("drafter", tts.spec.drafter)
                missing.append({"drafter": drafter, "settings": label(settings), "why": str(error)})
        if len(missing) > 1 and len(missing) == len(races) and len({entry["why"] for entry in missing}) == 1:
            missing = [{**missing[0], "settings": "all"}]
        left_out += missing
    return _different(found), left_out


def _different(arms: Sequence[TTS]) -> list[TTS]:
    """Without those that are set as an earlier one is."""
    kept: list[TTS] = []
    for arm in arms:
        if not any(
            arm.spec == other.spec and arm.own_drafter is other.own_drafter and arm.own_verifier is other.own_verifier
            for other in kept
        ):
            kept.append(arm)
    return kept
