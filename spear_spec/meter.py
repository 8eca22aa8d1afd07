"""What one text cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spear_spec.acoustic.takes import Chosen
from spear_spec.audio import FloatArray
from spear_spec.decoding import DecodeStats

AUDIBLE = 0.005  # -46 dB of full scale: quieter samples count as silence
_WORST = ("eos", "cap", "guard")


@dataclass
class Meter:
    """Compute time only, so a slow listener does not count.

    acoustic_s: of the stage, while nothing else ran; behind_s: of the stage beside the decoding, wait_s: until such a
    piece was ready.
    """

    sample_rate: int
    decoding: DecodeStats = field(default_factory=DecodeStats)
    ended: str = "eos"
    redrawn: int = 0
    samples: int = 0
    front_s: float = 0.0
    t2s_s: float = 0.0
    acoustic_s: float = 0.0
    behind_s: float = 0.0
    wait_s: float = 0.0
    ttfa_s: float | None = None
    chosen: list[Chosen] = field(default_factory=list)

    @property
    def compute_s(self) -> float:
        return self.front_s + self.t2s_s + self.acoustic_s + self.wait_s

    @contextmanager
    def clock(self, name: str) -> Iterator[None]:
        """Add the time spent inside to one of the fields."""
        began = time.perf_counter()
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) + time.perf_counter() - began)

    def hear(self, samples: FloatArray) -> None:
        """Count samples that are about to be handed out."""
        self.samples += len(samples)
        if self.ttfa_s is None and len(samples) and float(np.abs(samples).max()) > AUDIBLE:
            self.ttfa_s = self.compute_s

    def count(self, stats: DecodeStats, ended: str, redrawn: int = 0) -> None:
        """An utterance has ended, and was drawn again so often."""
        self.redrawn += redrawn
        self.decoding += stats
        self.ended = max(self.ended, ended, key=_WORST.index)

    def choose(self, chosen: Chosen, ended: str) -> None:
        """One of several takes is kept; what all of them cost is counted before."""
        self.chosen.append(chosen)
        self.count(DecodeStats(), ended)

    def item(self, text: str) -> dict[str, Any]:
        """An entry of `items` in say/1; `file` is filled in by whoever writes one."""
        seconds, stats = self.samples / self.sample_rate, self.decoding
        item: dict[str, Any] = {
            "text": text,
            "file": None,
            "tokens": stats.tokens,
            "target_calls": stats.target_calls,
            "tokens_per_call": round(stats.tokens_per_call, 4),
            "drafted": stats.drafted,
            "accepted": stats.accepted,
            "acceptance_by_position": [round(share, 4) for share in stats.acceptance_by_position],
            "ended": self.ended,
            "redrawn": self.redrawn,
            "audio_s": round(seconds, 4),
            "t2s_s": round(self.t2s_s, 4),
            "acoustic_s": round(self.acoustic_s + self.behind_s, 4),
            "rtf": round(self.compute_s / seconds, 5) if seconds else None,
            "ttfa_s": None if self.ttfa_s is None else round(self.ttfa_s, 4),
        }
        if self.chosen:
            sentences = [chosen.to_dict() for chosen in self.chosen]
            item["best_of"] = {"takes": len(self.chosen[0].scores), "sentences": sentences}
        return item
