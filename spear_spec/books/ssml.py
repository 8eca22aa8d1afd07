"""A document of SSML to a book: its paragraphs are the pieces, a `<mark name="...">` between them begins a chapter."""

from __future__ import annotations

from xml.sax.saxutils import escape, quoteattr

from spear_spec.books.book import Book, Chapter
from spear_spec.errors import TextError
from spear_spec.text.ssml import SKIPPED, read_ssml
from spear_spec.text.xml import Bounded, parse


def read_document(text: str, name: str) -> Book:
    """A book from SSML; name: its title, and that of the first chapter.

    Raises:
        TextError: no SSML, with line and column.
    """
    read_ssml(text, marks=True)  # refused as a whole, where it was written
    split = _Split(name)
    parse(text, split)
    return Book(
        name, "", tuple(Chapter(title, "", tuple(blocks)) for title, blocks in split.chapters if blocks), ssml=True
    )


class _Split(Bounded):
    """Writes what stands in `<speak>` as documents of their own, one for each paragraph.

    What does not speak (a break between paragraphs) goes with what follows it.
    """

    def __init__(self, title: str) -> None:
        super().__init__(lambda message: TextError(f"SSML, {message}"))
        self.chapters: list[tuple[str, list[str]]] = [(title, [])]
        self._written: list[str] = []
        self._speaks = False
        self._skipped = 0

    def start(self, name: str, attributes: dict[str, str], qualified: str) -> None:
        if self._skipped or name in SKIPPED:
            self._skipped += 1
            return
        if self._depth == 2 and name in ("p", "mark"):
            self._end_block()
        if self._depth == 2 and name == "mark":
            self.chapters.append((attributes.get("name", "").strip() or self.chapters[0][0], []))
        elif self._depth > 1 and name != "mark":
            given = "".join(f" {key}={quoteattr(value)}" for key, value in attributes.items())
            self._written.append(f"<{name}{given}>")

    def characters(self, content: str) -> None:
        if not self._skipped:
            self._speaks = self._speaks or any(c.isalnum() for c in content)
            self._written.append(escape(content))

    def end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
        elif self._depth == 0:
            self._end_block()
        elif name != "mark":
            self._written.append(f"</{name}>")
            if self._depth == 1 and name == "p":
                self._end_block()

    def _end_block(self) -> None:
        if self._speaks:
            self.chapters[-1][1].append(f"<speak>{''.join(self._written).strip()}</speak>")
            self._written, self._speaks = [], False
