"""Word errors and MOS of each setting against the autoregressive loop, over the same sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from spear_spec.decoding.chance import SEEDS
from spear_spec.evaluation.evaluate import listen_to, reference_of
from spear_spec.evaluation.judge import Measurement
from spear_spec.evaluation.judges import make_judges
from spear_spec.evaluation.statistics import Interval, paired_difference, ratio_interval
from spear_spec.pipeline import TTS

Heard = dict[str, list[list[float] | None]]  # numerator and denominator of every sentence, by metric


class Listeners:
    """Judges and the sentences that they hear. Sentence i is spoken with seed + i by every setting."""

    def __init__(
        self,
        tts: TTS,
        metrics: Sequence[str],
        sentences: Sequence[str],
        *,
        seed: int,
        speaker: str | None = None,
        **options: Any,
    ) -> None:
        """options: of `TTS.synthesize`.

        Raises:
            ConfigError: a metric that no judge gives. MissingExtraError: a judge is not installed.
        """
        self.judges = make_judges(metrics)
        self.sentences, self.seed, self.options = list(sentences), seed, {"speaker": speaker, **options}
        self._references = [reference_of(tts, sentence, speaker) for sentence in self.sentences]

    def hear(self, tts: TTS, progress: Callable[[int], None] = lambda done: None) -> Heard:
        """Speak and judge every sentence."""
        heard: Heard = {judge.metric: [] for judge in self.judges}
        for number, (sentence, reference) in enumerate(zip(self.sentences, self._references)):
            progress(number)
            audio = tts.synthesize(sentence, seed=(self.seed + number) % SEEDS, **self.options)
            found = listen_to(audio, reference, self.judges)
            for metric, line in heard.items():
                line.append([found[metric].numerator, found[metric].denominator] if metric in found else None)
        return heard


def quality(heard: Heard, base: Heard | None = None) -> dict[str, Any]:
    """Of a row: each metric with its 95 % bootstrap interval over sentences; with `base` (the autoregressive loop's)
    also the change against it, resampled in pairs.
    """
    found: dict[str, Any] = {"sentences": max(map(len, heard.values()), default=0)}
    for metric, line in heard.items():
        measured = [Measurement(pair[0], pair[1]) for pair in line if pair is not None]
        found[metric] = _json(ratio_interval(measured)) if measured else None
        found[f"{metric}_change"] = None
        pairs = (
            [(mine, theirs) for mine, theirs in zip(line, base[metric]) if mine and theirs] if base is not None else []
        )
        if pairs:
            change = paired_difference(
                [Measurement(mine[0], mine[1]) for mine, _ in pairs],
                [Measurement(theirs[0], theirs[1]) for _, theirs in pairs],
            )
            found[f"{metric}_change"] = _json(change)
    return found


def _json(interval: Interval) -> dict[str, float | None]:
    return {name: round(value, 5) if math.isfinite(value) else None for name, value in interval.to_dict().items()}
