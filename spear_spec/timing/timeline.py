"""Times of words: how long what was heard so far lasted, and where each word stands in its sentence."""

from __future__ import annotations

from collections.abc import Sequence

from spear_spec.audio import TimedWord
from spear_spec.models.alignment import check_aligned, letter_attention, letter_starts
from spear_spec.text.front_end import FrontEnd, Segment, check_tells_words


class Timeline:
    """Counts the samples of a text as they are heard, and gives the words of each sentence when its last are.

    The time of a token is its share of the samples that the sentence really took, so that the pace of a stage is
    followed, whatever sets it; silence before a sentence counts as silence.

    Raises:
        ConfigError: this transformer or this front end does not tell where words are.
    """

    def __init__(self, target: object, front_end: FrontEnd, sample_rate: int, speed: float = 1.0) -> None:
        """speed: that the silence before sentences was shortened by."""
        self._target, self._rate, self._speed = check_aligned(target), sample_rate, speed
        check_tells_words(front_end)
        self._before = self._here = 0  # samples of the sentences before, and of this one

    def hear(self, samples: int) -> None:
        """So many samples more of the sentence under way."""
        self._here += samples

    def end(self, segment: Segment, speech: Sequence[int], sentence: int) -> tuple[TimedWord, ...]:
        """The words of the sentence whose last samples have been counted. speech: its semantic tokens, no end token.

        Raises:
            ConfigError: the front end gave a segment that does not tell its words.
        """
        silence = min(int(segment.pause_s / self._speed * self._rate), self._here)
        words = segment.words
        starts = letter_starts(letter_attention(self._target, segment.ids, speech)) if len(speech) else None
        token = (self._here - silence) / max(len(speech), 1) / self._rate
        begin = (self._before + silence) / self._rate

        def at(letter: int) -> float:
            return begin if starts is None else begin + float(starts[letter]) * token

        self._before, self._here = self._before + self._here, 0
        return tuple(TimedWord(word.text, at(word.first), at(word.last), sentence) for word in words)
