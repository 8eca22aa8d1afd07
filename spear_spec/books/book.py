"""What a book is here: chapters of plain text, and what is written on its cover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from spear_spec.text.normalize import is_speakable
from spear_spec.text.sentences import split_sentences

BLOCK = 1200  # characters that are spoken, and kept, as one: a minute or so


@dataclass(frozen=True)
class Chapter:
    """title: for the mark in the file; what is spoken is the text alone, paragraphs with a blank line between.

    documents: of SSML, in place of the text.
    """

    title: str
    text: str
    documents: tuple[str, ...] = ()

    def blocks(self) -> Iterator[str]:
        """The text in pieces of whole paragraphs, of about `BLOCK` characters; a huge paragraph is cut at sentences.

        Those with nothing to speak are left out. Documents come as they are.
        """
        yield from self.documents
        held: list[str] = []
        size = 0
        for paragraph in self._paragraphs():
            if held and size + len(paragraph) > BLOCK:
                yield from _speakable("\n\n".join(held))
                held, size = [], 0
            held.append(paragraph)
            size += len(paragraph)
        if held:
            yield from _speakable("\n\n".join(held))

    def _paragraphs(self) -> Iterator[str]:
        for paragraph in "\n".join(line.rstrip() for line in self.text.splitlines()).split("\n\n"):
            paragraph = paragraph.strip("\n")
            if len(paragraph) <= 2 * BLOCK:
                if paragraph.strip():
                    yield paragraph
                continue
            some: list[str] = []
            for sentence in split_sentences(paragraph):
                if some and sum(map(len, some)) + len(sentence) > BLOCK:
                    yield " ".join(some)
                    some = []
                some.append(sentence)
            if some:
                yield " ".join(some)


def _speakable(text: str) -> Iterator[str]:
    if is_speakable(text):
        yield text


@dataclass(frozen=True)
class Cover:
    """A picture, JPEG or PNG."""

    data: bytes


@dataclass(frozen=True)
class Book:
    """title and author are "" where the file does not say. ssml: whether the chapters hold documents."""

    title: str
    author: str
    chapters: tuple[Chapter, ...]
    cover: Cover | None = None
    language: str = ""
    ssml: bool = False
