"""A request under way as the scheduler sees it: its sentences, and what its listener has left to hear."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from spear_spec.acoustic.contract import Heard
from spear_spec.acoustic.speaking import Voiced
from spear_spec.acoustic.takes import Chosen
from spear_spec.config import SamplingConfig
from spear_spec.decoding import DecodeStats
from spear_spec.engine import Utterance
from spear_spec.serving.choice import Choice
from spear_spec.serving.pieces import Part, Pieces
from spear_spec.serving.speech import Ask, Speech
from spear_spec.text import Segment


@dataclass(eq=False)
class Sentence:
    """A segment on its way: ready, then in the batch (`takes`: one, or several of which one is heard), then sounding.

    length_s: how long it will last, as far as its text tells. came: when its text was there.
    """

    index: int
    segment: Segment
    length_s: float
    came: float
    takes: tuple[Utterance, ...] = ()
    voiced: Voiced | Choice | None = None
    spoken_s: float = 0.0  # handed out so far

    @property
    def decoded(self) -> bool:
        """Whether every take has ended."""
        return bool(self.takes) and all(take.ended is not None for take in self.takes)

    @property
    def stats(self) -> DecodeStats:
        """Of all takes."""
        return sum((take.stats for take in self.takes), DecodeStats())


@dataclass(eq=False)
class Listener:
    """One `Speech` and all that is needed to go on with it. All times are the scheduler's clock."""

    number: int  # in the order of arrival
    speech: Speech
    ask: Ask
    speaker: str
    law: SamplingConfig
    arrived: float
    fetched: float  # when something was last taken, or nothing waited
    fed: float  # when text last came
    cutter: Pieces | None = None  # text that comes in pieces
    parts: deque[Part] = field(default_factory=deque)  # text that the front end has not begun with
    segments: Iterator[Segment] | None = None  # of the part that it has
    written: bool = False  # no more text comes, and all of it is sentences
    ready: deque[Sentence] = field(default_factory=deque)
    under_way: deque[Sentence] = field(default_factory=deque)  # in the batch or decoded; the first one sounds
    count: int = 0  # sentences so far
    characters: int = 0
    preparing: bool = False  # the front end is at it
    sounding: bool = False  # a worker makes its next piece
    over: bool = False  # ended, failed or cancelled: nothing more is made
    heard: float | None = None  # when the first sound was handed out that is not silence
    dry: float = -inf  # when what was handed out will have been played
    handed_s: float = 0.0
    gaps: list[float] = field(default_factory=list)  # underruns
    calls: int = 0  # of the target, also of sentences that are not over
    tokens: int = 0
    stats: DecodeStats = field(default_factory=DecodeStats)
    worst: str = "eos"
    takes: int = 1  # of each sentence
    chosen: list[Chosen] = field(default_factory=list)  # which was kept, where there were several

    def left(self, now: float) -> float:
        """Seconds that the listener can still play; -inf where nothing has been handed out."""
        return self.dry - now

    def need(self, now: float) -> float:
        """When the next sentence that is not in the batch will be needed: where those before it end."""
        start = self.dry if self.handed_s else now
        return start + sum(max(0.0, s.length_s - s.spoken_s) for s in self.under_way)

    def ahead_s(self) -> float:
        """Sound that waits to be fetched, with what is under way."""
        return self.speech.unread_s + sum(max(0.0, s.length_s - s.spoken_s) for s in self.under_way)

    def hand(self, seconds: float, now: float, came: float) -> float:
        """Sound is handed out; returns the gap that the listener heard before it (0: none).

        A listener plays from the first sound on. came: when the text was there: waiting for text is no gap, and
        neither is sound that lay there and was not fetched.
        """
        gap = 0.0
        if self.handed_s and now > self.dry and came < self.dry and not self.speech.unread_s:
            gap = now - self.dry
            self.gaps.append(gap)
        self.dry = max(self.dry, now) + seconds
        self.handed_s += seconds
        return gap

    @property
    def voice(self) -> str | Heard:
        """Whose sound it is."""
        return self.speaker if self.ask.voice is None else self.ask.voice

    @property
    def waits_since(self) -> float:
        """Since when the first sound of a text that is there is waited for; inf where it is not."""
        if self.over or self.handed_s or self.waits_for_text:
            return inf
        return max(self.arrived, self.fed) if self.cutter is not None else self.arrived

    @property
    def waits_for_text(self) -> bool:
        """Whether everything that was fed has been spoken and fetched, and more may come."""
        busy = self.ready or self.under_way or self.preparing or self.parts or self.segments is not None
        return self.cutter is not None and not busy and not self.speech.unread_s

    @property
    def finished(self) -> bool:
        """Whether all of it has been spoken."""
        return self.written and not (self.ready or self.under_way or self.preparing or self.sounding)
