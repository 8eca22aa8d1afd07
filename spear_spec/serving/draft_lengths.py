"""How far a served voice drafts ahead: it follows the number of rows, and a seed stays one take."""

from __future__ import annotations

from collections.abc import Mapping

from spear_spec.pipeline import TTS

_GAMMA, _GAMMAS = 5, {"4": 3, "8": 2, "16": 1}  # measured on two CPU cores: tokens a second of all rows together


def for_serving(tts: TTS, lengths: Mapping[str, int] | None = None) -> TTS:
    """The settings that a voice is served with: a seed is one take, however many rows are decoded together.

    An exact chain is judged by `coupled`, whose tokens depend on neither drafts nor batch, so that the draft length can
    follow the number of rows. Any other rule keeps one draft length: by the number of rows, the batch would choose how
    chance is used up.

    lengths: those that were measured on this machine, by the number of rows from 1 on (`SpecConfig.gammas`).
    """
    spec = tts.spec
    if tts.own_drafter is not None or tts.own_verifier is not None or spec.drafter == "none":
        return tts
    if spec.verifier in ("rejection", "block", "coupled") and spec.tree is None and spec.num_drafts == 1:
        if lengths:
            last = max(map(int, lengths))  # beyond it nothing was measured
            known = {rows: min(gamma, lengths[str(last)]) for rows, gamma in _GAMMAS.items() if int(rows) > last}
            return tts.using(verifier="coupled", gamma=max(1, *lengths.values()), gammas={**lengths, **known})
        return tts.using(verifier="coupled", gamma=_GAMMA, gammas=_GAMMAS)
    return tts.using(gammas={}, gamma=spec.gamma_at(8)) if spec.gammas else tts
