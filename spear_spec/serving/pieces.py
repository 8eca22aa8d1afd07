"""Text that arrives in pieces, cut where it can be spoken: at the first clause, then at the ends of sentences; a
document of SSML at its end alone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from spear_spec.text.pauses import Pauses
from spear_spec.text.sentences import LONGEST, Break, first_sentence, spoken_length

FEWEST_WORDS = 6  # of a clause that is spoken before its sentence is there
_CLAUSE = re.compile(r"[,;:.!?…](?:[\"'”’)\]]*)(?=\s)|\s[—–](?=\s)")
_BLANK = re.compile(r"\n\s*\n|\u2029")


@dataclass(frozen=True)
class Part:
    """Text that is spoken next, and the silence before it in seconds (None: what the front end says).

    piece: one of several; it may hold nothing to speak.
    """

    text: str
    pause_s: float | None = None
    piece: bool = False


class Pieces(Protocol):
    """Takes pieces, gives parts."""

    def feed(self, piece: str) -> list[Part]:
        """More text."""
        ...

    def finish(self) -> list[Part]:
        """There is no more."""
        ...


class Cutter:
    """See `Pieces`. What it gives depends on the pieces alone, not on when they come.

    Whole sentences come out as they went in; the first clause of a text is not waited for to the end of its sentence,
    later sentences are, unless they grow longer than what is spoken in one breath.
    pauses: the silences between parts.
    """

    def __init__(self, pauses: Pauses = Pauses()) -> None:  # noqa: B008  it is frozen
        self._pauses = pauses
        self._text = ""
        self._begun = False  # something was given out
        self._broken = False  # what was given out ended within a sentence

    def feed(self, piece: str) -> list[Part]:
        """More text."""
        self._text += piece
        whole = len(piece.split()) > 1
        out: list[Part] = []
        while True:
            end = first_sentence(self._text, whole)
            if end is None:
                end = self._clause()
                if end is None:
                    return out
                out += self._give(end, broken=True)
            else:
                out += self._give(end, broken=False)

    def finish(self) -> list[Part]:
        """There is no more."""
        out: list[Part] = []
        while (end := first_sentence(self._text, True)) is not None:
            out += self._give(end, broken=False)
        return out + self._give(len(self._text), broken=False)

    def _clause(self) -> int | None:
        """Where the text may be cut although its sentence has not ended."""
        if self._begun and spoken_length(self._text) <= LONGEST:
            return None
        best = None
        for found in _CLAUSE.finditer(self._text):
            if self._text[found.start()] == "." or len(self._text[: found.end()].split()) < FEWEST_WORDS:
                continue
            if not self._begun:
                return found.end()
            best = found.end()
        return best

    def _give(self, end: int, *, broken: bool) -> list[Part]:
        text, self._text = self._text[:end], self._text[end:]
        spoken = text.strip()
        if not spoken:
            return []
        gap, before = text[: len(text) - len(text.lstrip())], Break.SENTENCE
        if self._broken:
            before = Break.CUT
        elif _BLANK.search(gap):
            before = Break.PARAGRAPH
        elif "\n" in gap:
            before = Break.LINE
        part = Part(spoken, self._pauses[before] if self._begun else None, piece=True)
        self._begun, self._broken = True, broken
        return [part]


class Document:
    """See `Pieces`: one part, when all of it is there."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def feed(self, piece: str) -> list[Part]:
        self._pieces.append(piece)
        return []

    def finish(self) -> list[Part]:
        text = "".join(self._pieces)
        return [Part(text)] if text.strip() else []
