"""Several takes of a sentence for one listener: all are decoded, then the best of them is heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from spear_spec.acoustic.takes import BestOf, Kept, choose, judge_of, likelihoods
from spear_spec.audio import FloatArray
from spear_spec.engine import Utterance
from spear_spec.models.contract import Target
from spear_spec.text import Segment


class Choice:
    """What `Voiced` is to one take. The decoding thread calls `weigh` when every take has ended; then the sound is due,
    in one piece.

    ended: None until the sound has been made, then why the take that is kept ended. utterance: that take.

    Args:
        rate: tokens that are a second of what is heard. sound: makes the silence and the speech of a take.
    """

    def __init__(
        self,
        best_of: BestOf,
        target: Target,
        segment: Segment,
        takes: Sequence[Utterance],
        rate: float,
        sound: Callable[[int], tuple[FloatArray, FloatArray]],
        sample_rate: int,
    ) -> None:
        self._best_of, self._target, self._segment, self._takes = best_of, target, segment, takes
        self._rate, self._sound, self._sample_rate = rate, sound, sample_rate
        self._weighed = self._taken = False
        self._likely: list[float] = []
        self.kept: Kept | None = None
        self.ended: str | None = None

    @property
    def utterance(self) -> Utterance:
        return self._takes[0 if self.kept is None else self.kept.number]

    def see(self) -> None:
        """See `Voiced.see`."""

    def weigh(self) -> None:
        """How likely the takes are, where nobody listens to them.

        Raises:
            NumericsError: NaN.
        """
        self._judge = judge_of(self._best_of, self._takes, self._rate)
        if self._judge is None:
            self._likely = likelihoods(self._target, self._segment.ids, self._takes)
        self._weighed = True

    def due(self, heard: bool, hurry: bool = False) -> bool:
        """See `Voiced.due`."""
        return self._weighed and not self._taken

    def take(self, most: int | None = None) -> Callable[[], FloatArray]:
        """See `Voiced.take`; all of the sentence."""
        self._taken = True
        return self._make

    def _make(self) -> FloatArray:
        kept = choose(self._judge, self._likely, self._takes, self._sound, self._sample_rate)
        self.kept, self.ended = kept, self._takes[kept.number].ended
        return np.concatenate([kept.silence, kept.speech])
