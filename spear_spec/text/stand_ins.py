"""Words whose pronunciation is given, not worked out: each is a made-up word until the tagger sees the sentence.

Sentence splitting and normalisation must neither change nor look into such a word, and they see text alone. So a
stand-in takes its place, a name that no rule knows; behind the last rule comes what it stands for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

from spear_spec.errors import TextError
from spear_spec.text.normalize import normalize

MOST_LETTERS = 100  # phoneme letters of one word: half of what a segment may have
_CONSONANTS, _VOWELS = "bdfgklmnprstvwzh", "aeio"
_PLACES = 4  # pairs of a consonant and a vowel: 2^24 names
_PLAIN = re.compile(r"[A-Za-z]+(?:[ '-][A-Za-z]+)*")
_BESIDE = re.compile(r"[\s.,;:!?…()\"'“”‘’—-]")  # what may touch a word without a space


@dataclass(frozen=True)
class Spoken:
    """A word or a few, and how they are spoken.

    written: as in the text. words: what the tagger sees, and what is spoken where there are no phonemes. phonemes:
    letters of the voice's alphabet, or "".
    """

    written: str
    words: str
    phonemes: str = ""


@dataclass(frozen=True)
class Given:
    """Phonemes of the words in `text[start:end]`."""

    start: int
    end: int
    phonemes: str


@dataclass(frozen=True)
class Place:
    """Where in a resolved text is what a stand-in stands for: `text[start:end]`."""

    start: int
    end: int
    name: str


class StandIns:
    """The stand-ins of one text. The same words spoken the same way have the same one."""

    def __init__(self, text: str = "") -> None:
        """text: what will be spoken; stand-ins are words that it does not hold."""
        low = text.lower()
        prefix = next(p for n in (2, 3, 4) for p in map("".join, product("qxzj", repeat=n)) if p not in low)
        self._prefix = prefix
        self._names: dict[Spoken, str] = {}
        self._spoken: dict[str, Spoken] = {}
        pairs = f"(?:[{_CONSONANTS}][{_VOWELS}]){{{_PLACES}}}"
        self._pattern = re.compile(rf"(?i:{prefix}){pairs}(?P<s>['’]s\b)?")

    def __bool__(self) -> bool:
        return bool(self._names)

    def name(self, spoken: Spoken) -> str:
        """The word to put into the text, with a capital where the written one has one.

        Raises:
            TextError: there are too many, or the phonemes are too long for one word.
        """
        if len(spoken.phonemes) > MOST_LETTERS:
            raise TextError(
                f"{spoken.written[:40]!r} has {len(spoken.phonemes)} phonemes; at most {MOST_LETTERS} can be given"
            )
        name = self._names.get(spoken)
        if name is None:
            number, letters = len(self._names), ""
            for _ in range(_PLACES):
                number, pair = divmod(number, len(_CONSONANTS) * len(_VOWELS))
                letters += _CONSONANTS[pair // len(_VOWELS)] + _VOWELS[pair % len(_VOWELS)]
            if number:
                raise TextError("too many words with a pronunciation of their own in one text")
            name = self._prefix + letters
            self._spoken[name] = spoken
            name = self._names[spoken] = name.capitalize() if spoken.written[:1].isupper() else name
        return name

    def put(self, before: str, spoken: Spoken, after: str) -> str:
        """The stand-in between what stands before and after it, with the spaces that keep it a word of its own."""
        lead = "" if not before or beside(before[-1]) else " "
        tail = "" if not after or beside(after[0]) else " "
        return lead + self.name(spoken) + tail

    def written(self, text: str) -> str:
        """The text as it was written."""
        return self._pattern.sub(lambda m: self._of(m).written + (m["s"] or ""), text) if self else text

    def resolve(self, words: str) -> tuple[str, tuple[Given, ...], list[str]]:
        """What stands behind the stand-ins of a normalised text, the phonemes that are given, warnings."""
        text, places, warnings = self._resolved(words)
        given = []
        for place, match in zip(places, self._pattern.finditer(words) if self else ()):
            if phonemes := self._of(match).phonemes:
                given.append(Given(place.start, place.end, _with_s(phonemes) if match["s"] else phonemes))
        return text, tuple(given), warnings

    def places(self, words: str) -> list[Place]:
        """Where `resolve` puts what stands behind the stand-ins, in order."""
        return self._resolved(words)[1]

    def _resolved(self, words: str) -> tuple[str, list[Place], list[str]]:
        out, places, warnings, at, length = [], [], [], 0, 0
        for match in self._pattern.finditer(words) if self else ():
            spoken, possessive = self._of(match), match["s"] or ""
            said, more = normalize(spoken.words)
            if spoken.phonemes and not _PLAIN.fullmatch(said):
                said, more = match[0].removesuffix(possessive), []  # a noun, as far as the tagger can tell
            warnings += more
            before = words[at : match.start()]
            length += len(before)
            places.append(Place(length, length + len(said) + len(possessive), match[0]))
            out += [before, said, possessive]
            length, at = places[-1].end, match.end()
        return "".join(out) + words[at:], places, warnings

    def _of(self, match: re.Match[str]) -> Spoken:
        return self._spoken[match[0].removesuffix(match["s"] or "").lower()]


def beside(character: str) -> bool:
    """Whether it may touch a word without becoming part of it."""
    return _BESIDE.match(character) is not None


def _with_s(phonemes: str) -> str:
    from spear_spec.text.unknown_words import with_s

    return with_s(phonemes)


NONE = StandIns()
