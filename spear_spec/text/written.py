"""Which written words the spoken ones come from: `$5` is one written word of two spoken ones."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from spear_spec.text.normalize import normalize

_UNIT = re.compile(r"(?:(?!--)[^\s—–])+(?:[—–]+|--+)?|[—–]+|--+")  # ends at a blank, or behind a dash
_PLAIN = re.compile(r"[^\w]*[A-Za-z]+(?:['’-][A-Za-z]+)*[^\w.]*")  # says what it says wherever it stands
_LETTERS = re.compile(r"[\W_]+")
_LEFT_OUT, _MOVED, _ALIKE, _UNLIKE = 0.5, 0.55, 0.6, 0.9  # costs; an unlike word is cheaper than one gone and one new


@dataclass(frozen=True)
class Spoken:
    """A spoken word: its normalised form, and its phonemes in a segment's ids: the first, and one past the last."""

    word: str
    first: int
    last: int


@dataclass(frozen=True)
class Word:
    """A written word and its phonemes in a segment's ids: the first, and one past the last.

    text: as written, with the marks that stand at it. start, end: where it stands in the segment's text.
    """

    text: str
    start: int
    end: int
    first: int
    last: int


def written_words(text: str, spoken: Sequence[Spoken]) -> tuple[Word, ...]:
    """The written words of a segment in order. They cover its text but for blanks, and all that is spoken: what has no
    sound of its own (a dash, a sign) belongs to the word before it, or to the first.
    """
    units = list(_UNIT.finditer(text))
    if not units or not spoken:
        return ()
    said = [_said(unit[0]) for unit in units]
    owner = [at for at, words in enumerate(said) for _ in words]
    expected = [word for words in said for word in words]
    found = _owners(expected, owner, [_key(word.word) for word in spoken])
    first = found[0]
    out: list[Word] = []
    at = 0
    for number, unit in enumerate(units):
        until = at
        while until < len(spoken) and found[until] <= max(number, first):
            until += 1
        if until > at:
            start = units[0].start() if not out else unit.start()
            out.append(Word("", start, unit.end(), spoken[at].first, spoken[until - 1].last))
        elif out:
            last = out[-1]
            out[-1] = Word("", last.start, unit.end(), last.first, last.last)
        at = until
    return tuple(Word(text[w.start : w.end], w.start, w.end, w.first, w.last) for w in out)


def _key(word: str) -> str:
    return _LETTERS.sub("", word).casefold()


def _said(unit: str) -> list[str]:
    """What a written word is likely spoken as, when it stands alone."""
    if _PLAIN.fullmatch(unit):
        return [_key(unit)]
    return [key for key in map(_key, normalize(unit)[0].split()) if key]


def _owners(expected: Sequence[str], owner: Sequence[int], spoken: Sequence[str]) -> list[int]:
    """For each spoken word the written one that it belongs to, never falling: the cheapest edits from what was expected
    of the written ones, whose numbers are in `owner`, to what is spoken.
    """
    rows, columns = len(expected), len(spoken)
    cost = [[0.0] * (columns + 1) for _ in range(rows + 1)]
    for j in range(1, columns + 1):
        cost[0][j] = j * _MOVED
    for i in range(1, rows + 1):
        cost[i][0] = i * _LEFT_OUT
        for j in range(1, columns + 1):
            change = _change(expected[i - 1], spoken[j - 1])
            cost[i][j] = min(cost[i - 1][j - 1] + change, cost[i - 1][j] + _LEFT_OUT, cost[i][j - 1] + _MOVED)
    found = [0] * columns
    i, j = rows, columns
    while j:
        if i and cost[i][j] == cost[i - 1][j - 1] + _change(expected[i - 1], spoken[j - 1]):
            i, j = i - 1, j - 1
            found[j] = owner[i]
        elif cost[i][j] == cost[i][j - 1] + _MOVED:  # `$5 million`: the dollars go to what stands before them
            j -= 1
            found[j] = owner[max(i - 1, 0)] if owner else 0
        else:
            i -= 1
    return found


def _change(expected: str, spoken: str) -> float:
    if expected == spoken:
        return 0.0
    return _ALIKE if expected[:1] == spoken[:1] else _UNLIKE
