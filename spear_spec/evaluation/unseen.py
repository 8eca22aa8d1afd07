"""How well a voice speaks as readers whom it never heard: each text with a prompt of its reader's.

Similarity is to the prompt. Beside it stands how often an utterance is nearer to its own reader's prompts than to any
other reader's: a voice that makes everybody alike can score well on the first and fails the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spear_spec.audio import Audio
from spear_spec.errors import AudioError, MissingExtraError
from spear_spec.evaluation.evaluate import Progress, Prompt, evaluate
from spear_spec.evaluation.judge import Samples
from spear_spec.evaluation.report import Evaluation
from spear_spec.evaluation.speaker import SpeakerJudge

if TYPE_CHECKING:
    from spear_spec.pipeline import TTS


@dataclass(frozen=True, eq=False)
class Case:
    """A text, and a recording of the reader as whom it is to be spoken: samples [T] at `rate` Hz."""

    reader: str
    text: str
    samples: Samples
    rate: int


@dataclass(frozen=True)
class Unseen:
    """evaluation: of the cases in their order. nearest_own: share of the utterances (by arm) that are nearer to their
    own reader than to any other; None where there is one reader, or nobody to judge it. left_out: reader and reason of
    the cases whose prompt cannot be used.
    """

    evaluation: Evaluation
    readers: tuple[str, ...]
    nearest_own: dict[str, float] | None
    left_out: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """eval/1 with three keys more."""
        left_out = [{"reader": reader, "why": why} for reader, why in self.left_out]
        return {
            **self.evaluation.to_dict(),
            "readers": list(self.readers),
            "nearest_own": self.nearest_own,
            "left_out": left_out,
        }


def evaluate_unseen(
    tts: TTS,
    cases: Sequence[Case],
    *,
    judges: Sequence[str],
    seed: int = 0,
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> Unseen:
    """Speak every case with its prompt, speculation on and off, and judge it.

    Raises:
        TextError: no cases. ConfigError: the voice has named speakers only. AudioError: no prompt can be used.
        MissingExtraError: a judge is not installed.
    """
    judge, alike = SpeakerJudge(), "speaker_similarity" in judges
    if alike:
        try:
            _ = judge.version
        except MissingExtraError:
            alike = False
    heard: list[Any] = []
    usable: list[Case] = []
    left_out: list[tuple[str, str]] = []
    for case in cases:
        try:
            heard.append(tts.hear((case.samples, case.rate)))
            usable.append(case)
        except AudioError as error:
            left_out.append((case.reader, str(error)))
    if left_out and not usable:
        raise AudioError(f"no prompt can be used; the first reason is: {left_out[0][1]}")
    cases = usable
    owns = [judge.embed(case.samples, case.rate) if alike else None for case in cases]
    spoken: list[tuple[int, str, Samples]] = []

    def keep(index: int, arm: str, audio: Audio) -> None:
        if alike and len(audio.samples):
            spoken.append((index, arm, judge.embed(audio.samples, audio.sample_rate)))

    found = evaluate(
        tts,
        [case.text for case in cases],
        judges=judges,
        seed=seed,
        max_tokens=max_tokens,
        prompts=[Prompt(voice, own) for voice, own in zip(heard, owns)],
        keep=keep,
        progress=progress,
    )
    readers = tuple(dict.fromkeys(case.reader for case in cases))
    nearest = None
    if alike and len(readers) > 1:
        known = [own for own in owns if own is not None]
        nearest = nearest_own([case.reader for case in cases], known, spoken)
    return Unseen(found, readers, nearest, tuple(left_out))


def nearest_own(
    readers: Sequence[str], prompts: Sequence[Samples], spoken: Sequence[tuple[int, str, Samples]]
) -> dict[str, float]:
    """By arm: the share of utterances (case, arm, unit embedding) whose nearest reader is the case's own; a reader is
    the mean of their prompts' embeddings.
    """
    names = list(dict.fromkeys(readers))
    means = np.stack([np.mean([p for p, reader in zip(prompts, readers) if reader == name], axis=0) for name in names])
    means = means / np.linalg.norm(means, axis=1, keepdims=True)
    hits: dict[str, list[bool]] = {}
    for case, arm, embedding in spoken:
        hits.setdefault(arm, []).append(names[int((means @ embedding).argmax())] == readers[case])
    return {arm: float(np.mean(found)) for arm, found in hits.items()}
