"""Character error rate, the figure of SPEAR-TTS (arXiv 2302.03540): what `wer.py` hears, counted by letters."""

from __future__ import annotations

from spear_spec.evaluation.judge import Measurement, Reference, Samples, require
from spear_spec.evaluation.wer import WordErrorJudge, normalised


def character_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """(errors, reference characters, blanks between words included) after Whisper's English normaliser; an empty
    reference counts insertions over 0.
    """
    wanted, heard = (" ".join(normalised(text).split()) for text in (reference, hypothesis))
    if not wanted:
        return len(heard), 0
    counted = require("jiwer", "jiwer").process_characters(wanted, heard)
    characters = counted.hits + counted.substitutions + counted.deletions
    return counted.substitutions + counted.deletions + counted.insertions, characters


class CharacterErrorJudge(WordErrorJudge):
    """CER of Whisper, as `WordErrorJudge` listens."""

    metric = "cer"

    def score(self, samples: Samples, reference: Reference, sample_rate: int = 24_000) -> Measurement:
        """Character errors over reference characters; detail is the hypothesis."""
        hypothesis = self.heard(samples, sample_rate)
        errors, characters = character_errors(reference.text, hypothesis)
        return Measurement(errors, characters, hypothesis)
