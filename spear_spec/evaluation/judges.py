"""The judges by the metric that each gives. Needs no hub: the weights come inside the packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from spear_spec.errors import ConfigError
from spear_spec.evaluation.cer import CharacterErrorJudge
from spear_spec.evaluation.judge import Judge
from spear_spec.evaluation.mos import MosJudge
from spear_spec.evaluation.phonemes import PhonemeErrorJudge
from spear_spec.evaluation.speaker import SpeakerJudge
from spear_spec.evaluation.wer import WordErrorJudge

JUDGES: dict[str, Callable[[], Judge]] = {
    "wer": WordErrorJudge,
    "cer": CharacterErrorJudge,
    "per": PhonemeErrorJudge,
    "mos": MosJudge,
    "speaker_similarity": SpeakerJudge,
}


def make_judges(metrics: Sequence[str]) -> list[Judge]:
    """One judge for each metric named.

    Raises:
        ConfigError: a metric that no judge gives. MissingExtraError: a judge's package is not installed.
    """
    unknown = sorted(set(metrics) - JUDGES.keys())
    if unknown:
        raise ConfigError(f"no judge for {', '.join(unknown)}; known are {', '.join(JUDGES)}")
    judges = [JUDGES[metric]() for metric in dict.fromkeys(metrics)]
    for judge in judges:
        _ = judge.version  # a missing package is told before anything is spoken
    return judges
