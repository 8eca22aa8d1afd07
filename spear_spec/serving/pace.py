"""How long a sentence will last, as far as its text tells."""

from __future__ import annotations

from spear_spec.serving.listener import Sentence
from spear_spec.text import Segment

_S_A_SYMBOL = 0.075  # speech, before any has been measured
_LEAST_S = 0.3
_ENOUGH = 20  # symbols of a sentence that something is learnt from
_SHARE = 0.05  # of what is known that one sentence makes


class Pace:
    """Seconds a text symbol, learnt from what was spoken."""

    def __init__(self) -> None:
        self._s_a_symbol = _S_A_SYMBOL

    def length_s(self, segment: Segment, speed: float) -> float:
        """Of the speech, with the silence before it."""
        spoken = len(segment.ids) * self._s_a_symbol / segment.rate
        return max(_LEAST_S, spoken + segment.pause_s) / speed

    def learn(self, sentence: Sentence, speed: float) -> None:
        """A sentence has been spoken."""
        segment = sentence.segment
        symbols = len(segment.ids)
        if symbols > _ENOUGH:
            spoken = sentence.spoken_s * speed - segment.pause_s
            self._s_a_symbol += _SHARE * (spoken * segment.rate / symbols - self._s_a_symbol)
