"""What is told of a request that has ended: to its listener, and to whoever observes."""

from __future__ import annotations

from typing import Any

from spear_spec.serving.listener import Listener
from spear_spec.serving.state import Observation


def usage(listener: Listener, ended: str, now: float) -> dict[str, Any]:
    """See `Done`."""
    stats = listener.stats
    acceptance, first = _acceptance(listener), _first_s(listener)
    return {
        "characters": listener.characters,
        "sentences": listener.count,
        "tokens": stats.tokens,
        "target_calls": stats.target_calls,
        "tokens_per_call": round(stats.tokens_per_call, 4),
        "drafted": stats.drafted,
        "accepted": stats.accepted,
        "acceptance": None if acceptance is None else round(acceptance, 4),
        "audio_s": round(listener.handed_s, 4),
        "seed": listener.speech.seed,
        "ended": _how(listener, ended),
        "first_sound_s": None if first is None else round(first, 4),
        "wall_s": round(now - listener.arrived, 4),
        "underruns": len(listener.gaps),
        **({"best_of": [chosen.to_dict() for chosen in listener.chosen]} if listener.takes > 1 else {}),
    }


def observation(listener: Listener, ended: str, now: float) -> Observation:
    """See `Observation`."""
    return Observation(
        ended=_how(listener, ended),
        first_sound_s=_first_s(listener),
        rtf=(now - listener.arrived) / listener.handed_s if listener.handed_s else None,
        audio_s=listener.handed_s,
        tokens=listener.stats.tokens,
        target_calls=listener.stats.target_calls,
        acceptance=_acceptance(listener),
        gaps_s=tuple(listener.gaps),
    )


def _how(listener: Listener, ended: str) -> str:
    return listener.worst if ended == "eos" else ended


def _acceptance(listener: Listener) -> float | None:
    return listener.stats.accepted / listener.stats.drafted if listener.stats.drafted else None


def _first_s(listener: Listener) -> float | None:
    return None if listener.heard is None else listener.heard - listener.arrived
