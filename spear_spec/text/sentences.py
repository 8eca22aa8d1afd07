"""Text of any length to sentences, lazily, each within the limit of what is spoken in one breath.

A sentence that is longer is cut at a clause, else at a word. How long it really is, only its phonemes say: the front
end cuts again what is longer than it looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from spear_spec.text.abbreviations import ends_a_sentence, may_go_on
from spear_spec.text.lines import blocks
from spear_spec.text.normalize import is_speakable

LONGEST = 190  # letters as spoken, some fourteen seconds
SHORTEST = 20  # where sentences are joined, one below this joins the next one
_AS_SPOKEN = 4  # letters that a digit adds when it is spoken

# a run of marks is one end, and is looked at once: hence the look-behind and the possessive `++`
_END = re.compile(r"(?<![.!?…。！？])[.!?…。！？]++[\"'”’)\]»*_]*+(?=\s|$)|[。！？]")
_BLANK_LINE = re.compile(r"\n\s*\n|\r\n\s*\r\n|\u2029")
_CUTS = (
    re.compile(r"(?<=[;:])\s+|(?<!\s)\s*[—–]\s*|(?<!\s)\s+--?\s+"),
    re.compile(r"(?<=,)\s+"),
    re.compile(r"(?<!\s)\s+(?=(?:and|but|or|because|which|that|when|while|so|who|where|if|as|than|then)\s)"),
    re.compile(r"\s+"),
    re.compile(r"(?<=[^\w\s])(?=\w)|(?<=[a-z])(?=[A-Z])|(?<=\d)(?=[^\W\d])|(?<=[^\W\d])(?=\d)"),  # in a huge word
)
_FIRST_HALF = 0.35  # a cut leaves at least this share of the limit in front


class Break(Enum):
    """What stands before a piece."""

    CUT = "cut"  # the same sentence
    SENTENCE = "sentence"
    LINE = "line"
    PARAGRAPH = "paragraph"


@dataclass(frozen=True)
class Piece:
    """A sentence or a part of one, on one line, and what stands before it."""

    text: str
    before: Break


def spoken_length(text: str) -> int:
    """Letters that the text comes to when it is spoken: digits count for the words that they become."""
    return len(text) + _AS_SPOKEN * sum(c.isdecimal() for c in text)


def split_sentences(text: str, *, join: bool = False) -> Iterator[str]:
    """Sentences of the text in order, one at a time; pieces without anything to speak (`***`) are left out.

    join: very short sentences join the next one, for models that have not learnt to speak a word alone.
    """
    return (piece.text for piece in split_pieces(text, join=join))


def split_pieces(text: str, *, join: bool = False) -> Iterator[Piece]:
    """As `split_sentences`, with what stands before each."""
    start = 0
    for blank in _BLANK_LINE.finditer(text):
        yield from _paragraph(text[start : blank.start()], join)
        start = blank.end()
    yield from _paragraph(text[start:], join)


def _paragraph(text: str, join: bool) -> Iterator[Piece]:
    before = Break.PARAGRAPH
    for block in blocks(text):
        for sentence in _joined(_bare(block.text, block.marked)) if join else _bare(block.text, block.marked):
            for piece in cut(sentence):
                yield Piece(piece, before)
                before = Break.CUT
            if before is Break.CUT:
                before = Break.SENTENCE
        if before is Break.SENTENCE:
            before = Break.LINE


def _joined(sentences: Iterator[str]) -> Iterator[str]:
    """Short sentences joined with the next one where both fit."""
    waiting = ""
    for sentence in sentences:
        if len(sentence) <= LONGEST and not is_speakable(sentence):
            continue
        if waiting and spoken_length(waiting) + spoken_length(sentence) > LONGEST:
            yield waiting
            waiting = ""
        waiting = f"{waiting} {sentence}" if waiting else sentence
        if spoken_length(waiting) >= SHORTEST:
            yield waiting
            waiting = ""
    if waiting:
        yield waiting


def _bare(text: str, marked: int) -> Iterator[str]:
    """Sentences of a block as they stand; a number in front (`1.`) belongs to the first."""
    start = 0
    for end in _END.finditer(text, marked):
        if ends_a_sentence(text, start, end.start(), end.end()):
            yield text[start : end.end()].strip()
            start = end.end()
    if text[start:].strip():
        yield text[start:].strip()


def cut(text: str, longest: int = LONGEST) -> Iterator[str]:
    """The text in pieces of at most `longest` spoken letters: at a clause where there is one, else between words."""
    text = " ".join(text.split())
    start = 0
    while spoken_length(text[start : start + longest + 1]) > longest:
        end, following = _best_cut(text[start : start + 2 * longest + 1], longest)
        piece = text[start : start + end].strip()
        if is_speakable(piece):
            yield piece
        start += following
    piece = text[start:].strip()
    if piece and is_speakable(piece):
        yield piece


def _best_cut(text: str, longest: int) -> tuple[int, int]:
    """Where a piece ends and where the next one starts; of what follows, only the beginning is looked at."""
    limit = _fits(text, longest)
    two_halves = len(text) <= 2 * longest and spoken_length(text) <= 2 * longest
    for pattern in _CUTS:
        places = [
            (m.start(), m.end())
            for m in pattern.finditer(text[: limit + 1])
            if _FIRST_HALF * limit <= m.start() <= limit and m.end()
        ]
        if places:
            # two halves where that suffices, so that no crumb is left at the end
            return min(places, key=lambda p: abs(p[0] - len(text) / 2)) if two_halves else places[-1]
    return limit, limit


def _fits(text: str, longest: int) -> int:
    """The largest index such that the text before it is within the limit."""
    spoken = 0
    for i, c in enumerate(text):
        spoken += 1 + _AS_SPOKEN * c.isdecimal()
        if spoken > longest:
            return max(i, 1)
    return len(text)


def first_sentence(text: str, whole: bool) -> int | None:
    """Where the first sentence of a text that is still growing ends, None while that cannot be told.

    whole: the last word is there in full, and a mark at the very end is one of a sentence.
    """
    start = len(text) - len(text.lstrip())
    for found in _END.finditer(text, start):
        mark, end = found.start(), found.end()
        following = text[end:]
        if len(following.split()) > 1:  # the next word is there in full
            if ends_a_sentence(text, start, mark, end):
                return end
        elif not following and (not whole or text[mark - 1 : mark].isdigit()):
            return None
        elif not may_go_on(text, mark, end):
            return end
    return None
