"""Plain text: chapters begin with a line of their own that says so."""

from __future__ import annotations

import re

from spear_spec.books.book import Book, Chapter

_NUMBER = (
    r"(?:\d{1,3}|[IVXLC]{1,8}|(?:the )?(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|"
    r"fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|(?:twenty|thirty|forty|fifty)(?:-\w+)?|first|second|third|"
    r"fourth|fifth|sixth|seventh|eighth|ninth|tenth|last))"
)
_HEADING = re.compile(
    rf"(?:(?:chapter|part|book|section|letter|canto|act) {_NUMBER}\b[.:—–-]*(?: .{{1,80}})?"
    r"|(?:prologue|epilogue|preface|foreword|introduction|afterword|conclusion|appendix)[.:]?(?: .{1,60})?)",
    re.I,
)
_ENDED = re.compile(r"[,;a-z]$|[a-z][.!?]$")
_START = re.compile(r"^\*{3} ?START OF (?:THE|THIS) PROJECT GUTENBERG.*$", re.M)
_END = re.compile(r"^\*{3} ?END OF (?:THE|THIS) PROJECT GUTENBERG.*$", re.M)
_FIELD = re.compile(r"^(Title|Author): *(.+)$", re.M)
_HEAD = 5000  # characters in which a title may be named


def read_plain(text: str, name: str) -> Book:
    """A book from plain text; name: the title where the text names none.

    A line such as `Chapter 3`, `CHAPTER IV. The Whale` or `Prologue` that stands alone, a blank line before and behind
    it, begins a chapter. What stands before the first is one of its own. The frame of Project Gutenberg is left out.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    fields = dict(reversed(_FIELD.findall(text[:_HEAD]))) if (start := _START.search(text)) else {}
    if start is not None:
        end = _END.search(text, start.end())
        text = text[start.end() : end.start() if end else len(text)]
    title = str(fields.get("Title", "")).strip() or name
    chapters = _chapters(text, title)
    return Book(title, str(fields.get("Author", "")).strip(), tuple(chapters))


def _chapters(text: str, title: str) -> list[Chapter]:
    lines = text.split("\n")
    starts = [i for i in range(len(lines)) if _is_heading(lines, i)]
    out = []
    for start, end in zip([0, *starts], [*starts, len(lines)]):
        body = "\n".join(lines[start:end]).strip("\n")
        if body.strip():
            out.append(Chapter(" ".join(lines[start].split()) if start in starts else title, body))
    return out


def _is_heading(lines: list[str], at: int) -> bool:
    line = lines[at].strip()
    if not line or len(line) > 100 or not _HEADING.fullmatch(line):
        return False
    alone = (at == 0 or not lines[at - 1].strip()) and (at + 1 == len(lines) or not lines[at + 1].strip())
    return alone and not (len(line.split()) > 6 and _ENDED.search(line))
