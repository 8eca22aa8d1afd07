"""The predictor of opinion scores as a judge of takes (`acoustic/takes.py`)."""

from __future__ import annotations

from functools import cache

from spear_spec.audio import FloatArray
from spear_spec.evaluation.mos import MosJudge


class ByMos:
    """See `SoundJudge`: 1 to 5."""

    def __init__(self) -> None:
        self._judge = MosJudge()
        self.name = f"{self._judge.name} {self._judge.version}"

    def score(self, samples: FloatArray, sample_rate: int) -> float:
        return self._judge.score(samples, None, sample_rate).value


@cache
def mos() -> ByMos:
    """One for the process: its network is loaded when it first listens."""
    return ByMos()
