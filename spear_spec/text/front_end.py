"""The front end of a voice: text of any length to segments that are spoken in one go, lazily."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Protocol, Self, runtime_checkable

from spear_spec.errors import ConfigError, TextError
from spear_spec.text.pauses import Pauses
from spear_spec.text.reading import Reading
from spear_spec.text.sentences import Break, cut, split_pieces, spoken_length
from spear_spec.text.stand_ins import NONE, StandIns
from spear_spec.text.tokenizer import PhonemeTokenizer
from spear_spec.text.written import Word

log = logging.getLogger("spear_spec")

MOST_PHONEMES = 200  # in a segment: some fifteen seconds at a normal rate, and what the voices were trained with
PAUSES_S = {kind: Pauses()[kind] for kind in Break}
_NO_WORDS = "the front end of this voice does not tell where its words are: no timestamps with it"
MOST_TOLD = 20  # warnings of a text
_MOST_AHEAD = 16  # pieces that are prepared together, once the first are out


@dataclass(frozen=True)
class Segment:
    """What is spoken in one go.

    text: as written. ids: text tokens, the speaker first, without the end token (the engine adds it). pause_s: silence
    before it, in seconds, on top of what the speech brings along; 0 for the first of a text. rate: of speaking, 1.0 is
    the voice's own. find_words: finds `words`; None where the front end cannot.
    """

    text: str
    ids: list[int]
    pause_s: float = 0.0
    rate: float = 1.0
    find_words: Callable[[], tuple[Word, ...]] | None = field(default=None, repr=False, compare=False)

    @property
    def words(self) -> tuple[Word, ...]:
        """The written words with their places in the ids, found when they are asked for.

        Raises:
            ConfigError: the front end does not tell.
        """
        if self.find_words is None:
            raise ConfigError(_NO_WORDS)
        return self.find_words()


@runtime_checkable
class FrontEnd(Protocol):
    """What the pipeline knows of a front end."""

    @property
    def speakers(self) -> tuple[str, ...]:
        """Who can speak; the first is the default."""
        ...

    @property
    def num_token_ids(self) -> int:
        """Ids are below it; it is itself the id of the end of the text, which the engine appends."""
        ...

    def segments(self, text: str, speaker: str) -> Iterator[Segment]:
        """Segments of the text in order, each made when it is asked for.

        Raises:
            TextError: there is nothing to say, or no such speaker.
        """
        ...

    def phonemes(self, text: str) -> str:
        """What the text is spoken from, for people to read; empty if there is nothing to say."""
        ...


@runtime_checkable
class Reader(FrontEnd, Protocol):
    """A front end that can also read in other ways: most can do without."""

    def read(self, text: str, speaker: str, reading: Reading) -> Iterator[Segment]:
        """As `segments`, which is what comes of a plain reading.

        Raises:
            TextError: also where SSML was asked for and the text is none. ConfigError: this reading is beyond it.
        """
        ...


def read(front_end: FrontEnd, text: str, speaker: str, reading: Reading) -> Iterator[Segment]:
    """Segments of the text as it is to be read.

    Raises:
        ConfigError: the front end cannot. TextError: as `FrontEnd.segments`.
    """
    check_reads(front_end, reading)
    if not reading.plain and isinstance(front_end, Reader):
        return front_end.read(text, speaker, reading)
    return front_end.segments(text, speaker)


def check_reads(front_end: FrontEnd, reading: Reading) -> None:
    """Refuse a front end that cannot read so.

    Raises:
        ConfigError: it is no `Reader`, and this is no plain reading.
    """
    if not reading.plain and not isinstance(front_end, Reader):
        raise ConfigError("the front end of this voice takes no pauses, no lexicon and no SSML: leave these out")


def check_tells_words(front_end: FrontEnd) -> None:
    """Refuse a front end whose segments have no `words`.

    Raises:
        ConfigError: it does not say `tells_words`.
    """
    if not getattr(front_end, "tells_words", False):
        raise ConfigError(_NO_WORDS)


class Told:
    """Tells each warning of a text once, and of a text that has very many of them the first."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def warn(self, warning: str) -> None:
        if warning in self.told or len(self.told) > MOST_TOLD:
            return
        self.told.add(warning)
        log.warning("text: %s", warning if len(self.told) <= MOST_TOLD else "its further warnings are left out")


class PhonemeFrontEnd:
    """English text by way of sentences and phonemes.

    Args:
        join: very short sentences are spoken together with the next one, for models that cannot speak a word alone.
    """

    KIND = PhonemeTokenizer.KIND
    tells_words = True  # its segments have `words`

    def __init__(self, tokenizer: PhonemeTokenizer | None = None, *, join: bool = False) -> None:
        self.tokenizer = tokenizer or PhonemeTokenizer()
        self.join = join

    @property
    def speakers(self) -> tuple[str, ...]:
        return self.tokenizer.speakers

    @property
    def num_token_ids(self) -> int:
        return len(self.tokenizer.vocab)

    def segments(self, text: str, speaker: str) -> Iterator[Segment]:
        """Segments of at most `MOST_PHONEMES` phoneme letters; what had to be guessed at is logged as a warning,
        the same one once.

        Raises:
            TextError: there is nothing to say, or the voice has no such speaker.
        """
        return self.read(text, speaker, Reading())

    def read(self, text: str, speaker: str, reading: Reading) -> Iterator[Segment]:
        """As `Reader.read`: everything that a `Reading` can ask for."""
        if not isinstance(text, str):
            raise TextError(f"a text must be a string, not {type(text).__name__}")
        self.tokenizer.encode_phonemes("", speaker)  # the speaker is known before anything is worked out
        passages, stand_ins = reading.passages(text)
        first, told = True, Told()
        for passage in passages:
            asked = passage.pause_s
            for written, before, phonemes, warnings in self._pieces(passage.text, stand_ins):
                for warning in warnings:
                    told.warn(warning)
                if asked is None:
                    kind = passage.before if before is Break.PARAGRAPH else before
                    asked = 0.0 if first else reading.pauses[kind]
                yield Segment(
                    stand_ins.written(written),
                    self.tokenizer.encode_phonemes(phonemes, speaker),
                    asked,
                    passage.rate,
                    find_words=partial(self.tokenizer.words, written, stand_ins),
                )
                first, asked = False, None
        if first:
            shown = text if len(text) <= 40 else text[:40] + "..."
            raise TextError(f"there is nothing to speak in {shown!r}: give it at least one word")

    def places(self, ids: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Where the spoken words of a segment lie in its ids: the first letter, and one past the last."""
        return self.tokenizer.places(ids)

    def phonemes(self, text: str) -> str:
        """Phoneme letters of all segments, a space between them."""
        return " ".join(phonemes for _, _, phonemes, _ in self._pieces(text, NONE))

    def _pieces(self, text: str, stand_ins: StandIns) -> Iterator[tuple[str, Break, str, list[str]]]:
        pieces, ahead = split_pieces(text, join=self.join), 1
        while some := list(islice(pieces, ahead)):
            if len(some) > 1:
                self.tokenizer.look_ahead((piece.text for piece in some), stand_ins)
            for piece in some:
                before = piece.before
                for written, phonemes, warnings in self._within(piece.text, stand_ins):
                    yield written, before, phonemes, warnings
                    before = Break.CUT
            ahead = min(2 * ahead, _MOST_AHEAD)

    def _within(self, text: str, stand_ins: StandIns) -> Iterator[tuple[str, str, list[str]]]:
        """(text, phonemes, warnings) of the parts of a piece, each within the limit: letters say little of sounds."""
        phonemes, _, _, warnings = self.tokenizer.phonemes(text, stand_ins)
        if len(phonemes) <= MOST_PHONEMES:
            if any(c.isalpha() for c in phonemes):
                yield text, phonemes, warnings
            return
        length = spoken_length(text)
        parts = list(cut(text, max(1, length * MOST_PHONEMES // (len(phonemes) + MOST_PHONEMES // 4))))
        if len(parts) < 2:  # one sign with an endless name
            yield text, phonemes[:MOST_PHONEMES].rstrip(), warnings
            return
        for part in parts:
            yield from self._within(part, stand_ins)

    def to_dict(self) -> dict[str, Any]:
        """For a voice's config.json."""
        values = self.tokenizer.to_dict()
        return {**values, "join": True} if self.join else values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote; `join` may be left out.

        Raises:
            ConfigError: unknown or missing keys, another kind of front end, symbols that do not fit.
        """
        if not isinstance(values, Mapping):
            raise ConfigError("text: expected an object with kind, speakers and symbols")
        join = values.get("join", False)
        if not isinstance(join, bool):
            raise ConfigError(f"text: join must be true or false, not {join!r:.40}")
        return cls(PhonemeTokenizer.from_dict({k: v for k, v in values.items() if k != "join"}), join=join)
