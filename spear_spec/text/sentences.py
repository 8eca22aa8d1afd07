"""Text of any length to pieces of at most some fifteen seconds of speech, lazily.

A sentence that is longer is cut at a clause, else at a word; one that is very short joins its neighbour, because a
model hears too little context in a single word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from spear_spec.text.abbreviations import NOT_AN_END
from spear_spec.text.normalize import is_speakable

LONGEST = 220  # letters as spoken, about fifteen seconds
SHORTEST = 20  # below this a sentence joins the next one
_AS_SPOKEN = 4  # letters that a digit adds when it is spoken

_END = re.compile(r"[.!?…。！？]+[\"'”’)\]»]*(?=\s|$)|[。！？]")
_BLANK_LINE = re.compile(r"\n\s*\n|\r\n\s*\r\n|\u2029")
_NEXT_LOWER = re.compile(r"\s*[\"'“‘(\[]*[a-z]")
_LAST_WORD = re.compile(r"(?<![\w.])([\w.]+)\.[\"'”’)\]»]*$")
_INITIALS = re.compile(r"(?:[A-Z]\.)*[A-Z]")
_HALF_DAY = re.compile(r"[ap]\.m", re.I)
# fmt: skip
_CUTS = (
    re.compile(r"(?<=[;:])\s+|\s*[—–]\s*|\s+--?\s+"),
    re.compile(r"(?<=,)\s+"),
    re.compile(r"\s+(?=(?:and|but|or|because|which|that|when|while|so|who|where|if|as|than|then)\s)"),
    re.compile(r"\s+"),
)
_FIRST_HALF = 0.35  # a cut leaves at least this share of the limit in front


def spoken_length(text: str) -> int:
    """Letters that the text comes to when it is spoken: digits count for the words that they become."""
    return len(text) + _AS_SPOKEN * sum(c.isdecimal() for c in text)


def split_sentences(text: str) -> Iterator[str]:
    """Sentences of the text in order, one at a time; pieces without anything to speak (`***`) are left out."""
    start = 0
    for blank in _BLANK_LINE.finditer(text):
        yield from _paragraph(text[start : blank.start()])
        start = blank.end()
    yield from _paragraph(text[start:])


def _paragraph(text: str) -> Iterator[str]:
    """Sentences of a paragraph, short ones joined, long ones cut."""
    waiting = ""
    for sentence in _bare(text):
        if len(sentence) <= LONGEST and not is_speakable(sentence):
            continue
        if waiting and spoken_length(waiting) + spoken_length(sentence) > LONGEST:
            yield from cut(waiting)
            waiting = ""
        waiting = f"{waiting} {sentence}" if waiting else sentence
        if spoken_length(waiting) >= SHORTEST:
            yield from cut(waiting)
            waiting = ""
    if waiting:
        yield from cut(waiting)


def _bare(text: str) -> Iterator[str]:
    start = 0
    for end in _END.finditer(text):
        if _ends_here(text, start, end):
            yield text[start : end.end()].strip()
            start = end.end()
    if text[start:].strip():
        yield text[start:].strip()


def _ends_here(text: str, start: int, end: re.Match[str]) -> bool:
    """Whether the mark ends a sentence: not after an abbreviation or initials, nor before a small letter."""
    following = text[end.end() : end.end() + 40]
    if not end[0].startswith("."):
        return not (end[0][-1] in "\"'”’)" and _NEXT_LOWER.match(following))  # "Why?" he asked.
    if _NEXT_LOWER.match(following):
        return False
    if end[0].startswith(".."):
        return True
    last = _LAST_WORD.search(text[max(start, end.end() - 40) : end.end()])
    if last is None:
        return True
    word = last[1]
    if word in NOT_AN_END:
        return False
    if _HALF_DAY.fullmatch(word):
        return True
    # J. D. Tippit, the U.S. Army: initials do not end a sentence unless one word that often starts one comes next
    return not (
        _INITIALS.fullmatch(word)
        and word != "I"
        and not re.match(r"\s+(?:The|He|She|It|They|We|You|I|This|That|But|And|In|On|At|A)\b", following)
    )


def cut(text: str) -> Iterator[str]:
    """The text in pieces of at most `LONGEST` spoken letters: at a clause where there is one, else between words."""
    text = " ".join(text.split())
    start = 0
    while spoken_length(text[start : start + LONGEST + 1]) > LONGEST:
        end, following = _best_cut(text[start : start + 2 * LONGEST + 1])
        piece = text[start : start + end].strip()
        if is_speakable(piece):
            yield piece
        start += following
    piece = text[start:].strip()
    if piece and is_speakable(piece):
        yield piece


def _best_cut(text: str) -> tuple[int, int]:
    """Where a piece ends and where the next one starts; of what follows, only the beginning is looked at."""
    limit = _fits(text)
    two_halves = len(text) <= 2 * LONGEST and spoken_length(text) <= 2 * LONGEST
    for pattern in _CUTS:
        places = [
            (m.start(), m.end())
            for m in pattern.finditer(text[: limit + 1])
            if _FIRST_HALF * limit <= m.start() <= limit
        ]
        if places:
            # two halves where that suffices, so that no crumb is left at the end
            return min(places, key=lambda p: abs(p[0] - len(text) / 2)) if two_halves else places[-1]
    return limit, limit


def _fits(text: str) -> int:
    """The largest index such that the text before it is within the limit."""
    spoken = 0
    for i, c in enumerate(text):
        spoken += 1 + _AS_SPOKEN * c.isdecimal()
        if spoken > LONGEST:
            return max(i, 1)
    return len(text)
