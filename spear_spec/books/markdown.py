"""Markdown: a chapter at each heading of the uppermost level that divides the text."""

from __future__ import annotations

import re

from spear_spec.books.book import Book, Chapter
from spear_spec.books.html import Paragraph, joined, paragraphs
from spear_spec.errors import MissingExtraError

_FRONT = re.compile(r"\A---\n(?P<fields>(?:.*\n){1,40}?)(?:---|\.\.\.)\n")
_FIELD = re.compile(r"^(title|author|language|lang)\s*:\s*(.*)$", re.M | re.I)


def read_markdown(text: str, name: str) -> Book:
    """A book from Markdown (CommonMark and tables); code blocks are left out.

    A single heading above all others is the book's title, not a chapter. Front matter may name title and author.

    Raises:
        MissingExtraError: markdown-it-py is not installed.
    """
    try:
        from markdown_it import MarkdownIt
    except ModuleNotFoundError:
        raise MissingExtraError("Markdown needs markdown-it-py: pip install 'spear_spec[books]'") from None

    text = text.replace("\r\n", "\n").replace("\r", "\n")
    front = _FRONT.match(text)
    fields = {
        key.lower(): value.strip().strip("\"'") for key, value in _FIELD.findall(front["fields"] if front else "")
    }
    read = paragraphs(
        MarkdownIt("commonmark").enable("table").render(text[front.end() :] if front else text), code=False
    )
    levels = [p.level for p in read if p.level]
    top = min(levels, default=0)
    title = fields.get("title", "")
    if top and levels.count(top) == 1 and len(set(levels)) > 1:
        title = title or next(p.text for p in read if p.level == top)
        top = min(level for level in levels if level > top)
    title = " ".join(title.split()) or name
    return Book(
        title,
        fields.get("author", ""),
        tuple(_chapters(read, top, title)),
        language=fields.get("language", fields.get("lang", "")),
    )


def _chapters(read: list[Paragraph], top: int, title: str) -> list[Chapter]:
    starts = [i for i, p in enumerate(read) if top and p.level == top]
    out = []
    for start, end in zip([0, *starts], [*starts, len(read)]):
        if start < end:
            name = read[start].text if start in starts else title
            out.append(Chapter(" ".join(name.split()), joined(read[start:end])))
    return out
