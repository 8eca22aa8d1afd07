"""What an evaluation found: intervals by arm, their paired difference, as eval/1 JSON and as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from spear_spec.evaluation.judge import Measurement
from spear_spec.evaluation.statistics import Interval, paired_difference, ratio_interval

METRICS = ("wer", "cer", "per", "mos", "speaker_similarity", "rtf", "ttfa_s")


@dataclass(frozen=True)
class Utterance:
    """One sentence spoken by one arm. stats: its item of say/1; measurements: by metric."""

    id: int
    arm: str
    text: str
    stats: dict[str, Any]
    measurements: dict[str, Measurement]

    def to_dict(self) -> dict[str, Any]:
        """An entry of `items` in eval/1."""
        word = self.measurements.get("wer")
        heard = word or self.measurements.get("cer")
        return {
            "id": self.id,
            "arm": self.arm,
            "text": self.text,
            "hypothesis": None if heard is None else heard.detail,
            "wer": None if word is None else _finite(word.value),
            "seconds": self.stats["audio_s"],
            "ended": self.stats["ended"],
        }


@dataclass
class Evaluation:
    """Everything measured: `arms` maps the name of an arm to its settings (CFG). speed: of the speech."""

    voice: str
    judges: list[dict[str, str]]
    arms: dict[str, dict[str, Any]]
    utterances: list[Utterance] = field(default_factory=list)
    resamples: int = 2000
    seed: int = 0
    speed: float = 1.0

    def measurements(self, arm: str, metric: str) -> list[Measurement]:
        """One a sentence that has this metric."""
        mine = (u for u in self.utterances if u.arm == arm)
        return [u.measurements[metric] for u in mine if metric in u.measurements]

    def interval(self, arm: str, metric: str) -> Interval | None:
        """95 % bootstrap interval over sentences; None where nothing was measured."""
        measured = self.measurements(arm, metric)
        return ratio_interval(measured, resamples=self.resamples, seed=self.seed) if measured else None

    def difference(self, metric: str, first: str = "speculative", second: str = "autoregressive") -> Interval | None:
        """`first` minus `second` over the sentences that both have, resampled in pairs."""
        by_arm = {
            arm: {u.id: u.measurements[metric] for u in self.utterances if u.arm == arm and metric in u.measurements}
            for arm in (first, second)
        }
        shared = sorted(by_arm[first].keys() & by_arm[second].keys())
        if not shared:
            return None
        pairs = [[by_arm[arm][i] for i in shared] for arm in (first, second)]
        return paired_difference(pairs[0], pairs[1], resamples=self.resamples, seed=self.seed)

    def to_dict(self) -> dict[str, Any]:
        """The eval/1 object. A metric that was not judged is null."""
        arms = {
            arm: {**settings, "metrics": {metric: _json(self.interval(arm, metric)) for metric in METRICS}}
            for arm, settings in self.arms.items()
        }
        items = [utterance.to_dict() for utterance in self.utterances]
        return {
            "schema": "eval/1",
            "voice": self.voice,
            "speed": self.speed,
            "judges": self.judges,
            "arms": arms,
            "items": items,
        }

    def table(self) -> str:
        """Markdown: a row a metric, a column an arm, and the paired difference where there are two arms."""
        names = list(self.arms)
        paired = len(names) == 2
        rows = [["metric", *names, *(["difference"] if paired else [])]]
        for metric in METRICS:
            cells = [show(metric, self.interval(arm, metric)) for arm in names]
            rows.append([metric, *cells, *([show(metric, self.difference(metric, *names))] if paired else [])])
        return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the heading."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def show(metric: str, interval: Interval | None) -> str:
    """A value with its interval; error rates in per cent."""
    if interval is None:
        return "not judged"
    scale, digits, unit = (100.0, 2, " %") if metric in ("wer", "cer", "per") else (1.0, 3, "")
    value, lo, hi = (f"{x * scale:.{digits}f}" for x in (interval.value, interval.lo, interval.hi))
    return f"{value}{unit} [{lo}, {hi}]"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _json(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else {key: _finite(value) for key, value in interval.to_dict().items()}
