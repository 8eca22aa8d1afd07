"""XHTML and HTML to paragraphs of plain text: what is read aloud of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from html.parser import HTMLParser

from spear_spec.text.tables import words

_BLOCKS = words(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption figure footer form "
    "h1 h2 h3 h4 h5 h6 header hr html legend li main menu nav ol p pre section summary table tbody tfoot thead tr ul"
)
_HIDDEN = words("audio canvas embed head iframe math noscript object rp rt script style svg template title video")
_VOID = words("area base br col embed hr img input link meta param source track wbr")
_NOTES = words(
    "noteref footnote footnotes endnote endnotes rearnote rearnotes pagebreak toc "
    "doc-noteref doc-footnote doc-endnotes doc-endnote doc-pagebreak doc-toc"
)


_LINE, _CELL = "\u2028", "\u2029"  # within a paragraph: a `br`, the next cell of a row


@dataclass
class Paragraph:
    """level: 1 to 6 of a heading, 0 of anything else. item: of a list. ids: of the elements that begin with it."""

    text: str
    level: int = 0
    item: bool = False
    ids: set[str] = field(default_factory=set)


class _Reader(HTMLParser):
    def __init__(self, code: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.paragraphs: list[Paragraph] = []
        self._code = code
        self._text: list[str] = []
        self._ids: set[str] = set()
        self._level = 0
        self._hidden: list[str] = []  # open elements from the outermost that is not read
        self._item = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        tag = tag.rpartition(":")[2]
        given = dict(attrs)
        if self._hidden:
            if tag == self._hidden[0]:
                self._hidden.append(tag)
            return
        if tag not in _VOID and (tag in _HIDDEN or (tag == "pre" and not self._code) or _is_note(given)):
            self._hidden.append(tag)
            return
        if tag == "br":
            self._text.append(_LINE)
        elif tag in _BLOCKS:
            self.flush()
            if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456":
                self._level = int(tag[1])
            self._item = self._item or tag == "li"
        elif tag in ("td", "th") and "".join(self._text).strip():
            self._text.append(_CELL)
        if name := given.get("id") or (given.get("name") if tag == "a" else None):
            self._ids.add(name)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag.rpartition(":")[2] not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        tag = tag.rpartition(":")[2]
        if self._hidden:
            if tag == self._hidden[0]:
                self._hidden.pop()
        elif tag in _BLOCKS:
            self.flush()

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._text.append(data.replace(_LINE, " ").replace(_CELL, " "))

    def flush(self) -> None:
        """What was read is a paragraph; an id before it begins with it, or with the next one that has text."""
        cells = re.sub(rf"\s*{_CELL}\s*", ", ", "".join(self._text))
        lines = (" ".join(line.split()) for line in cells.split(_LINE))  # line ends in the file are blanks
        text = "\n".join(line for line in lines if line)
        self._text = []
        if text:
            self.paragraphs.append(Paragraph(text, self._level, self._item, self._ids))
            self._ids = set()
            self._level, self._item = 0, False


def _is_note(attributes: dict[str, str | None]) -> bool:
    kinds = f"{attributes.get('epub:type') or ''} {attributes.get('role') or ''}".split()
    return "hidden" in attributes or bool(_NOTES.intersection(kinds))


def paragraphs(html: str, *, code: bool = True) -> list[Paragraph]:
    """What is read aloud, in order: no scripts, no notes and their marks, no ruby; code: whether `pre` is."""
    reader = _Reader(code)
    reader.feed(html)
    reader.close()
    reader.flush()
    return reader.paragraphs


def joined(some: Iterable[Paragraph]) -> str:
    """The text of a chapter: a blank line between paragraphs, none between the items of a list."""
    out, before = "", False
    for paragraph in some:
        out += ("\n" if before and paragraph.item else "\n\n") if out else ""
        out += f"- {paragraph.text}" if paragraph.item else paragraph.text
        before = paragraph.item
    return out
