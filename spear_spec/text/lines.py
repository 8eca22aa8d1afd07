"""Line breaks: which of them end something that is spoken (a heading, an item, a short line) and which only wrap.

A line that ends without punctuation is a sentence of its own when the next one is marked (bullet, number, heading,
quote), or starts with a capital although its first word would still have fitted, or when all lines are a few words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from spear_spec.text.links import strip_markup

FEW_WORDS = 4  # three or more lines of at most so many words are a list
NARROW = 40  # columns; text is not wrapped at fewer
_SHOWN_LINES = 200  # of a paragraph, from which its width is taken

_RULE = re.compile(r"(?:[=\-*_~#|:+]\s*){3,}|`{3,}\w*|~{3,}\w*")  # rules, underlines, fences
_MARK = re.compile(
    r"(?:[-*+•‣●▪◦–—]\s+(?:\[[ xX]\]\s+)?"
    r"|(?P<number>\(?(?:\d{1,3}|[ivx]{1,5}|[a-zA-Z])\)|\d{1,3}\.|[IVX]{1,5}\.)\s+(?=\S)(?!\d{3}[-. ]\d{4})"
    r"|#{1,6}\s+|\|)"
)
_HEADING = re.compile(r"#{1,6}\s+(?P<text>[^#]*(?:#+[^#]+)*)#*")
_QUOTE = re.compile(r"(?:>\s?){1,8}(?=[^\s>\d])")
_FOOTNOTE = re.compile(r"\[\^[^\]\s]{1,20}\]:\s*")
_ROW = re.compile(r"\|(?P<cells>.*)\|")
_ENDED = re.compile(r"[.!?…。！？:;,\-—–/&+(\[]['\"”’)\]*_]*\s*$")
_OPEN = re.compile(
    r"\b(?:the|a|an|to|of|in|on|at|by|for|from|with|and|or|but|as|is|are|was|were|be|my|your|his|her|its|our|their|this|that|"
    r"mr|mrs|ms|dr|prof|st|mt|not|no|if|than|into|about|over|under|between|who|which)\.?\s*$",
    re.I,
)
_FIRST_WORD = re.compile(r"\s*(\S{1,80})")
_SPOKEN_START = re.compile(r"\s*[\"'“‘(*_]*[A-Z0-9]")


@dataclass(frozen=True)
class Block:
    """Lines that belong together, on one line. marked: where the text behind `1.` or `a)` starts, 0 without one."""

    text: str
    marked: int = 0


def _cells(line: str) -> str:
    row = _ROW.fullmatch(line)
    return ", ".join(cell.strip() for cell in row["cells"].split("|") if cell.strip()) if row else line


def _stripped(line: str) -> tuple[str, bool, int]:
    """(text without its mark, whether it had one, length of a number that is spoken)."""
    line = line.strip()
    for pattern in (_QUOTE, _FOOTNOTE):
        lead = pattern.match(line)
        line = line[lead.end() :] if lead else line
    heading = _HEADING.fullmatch(line)
    if heading:
        return heading["text"].strip(), True, 0
    if _ROW.fullmatch(line):
        return _cells(line), True, 0
    mark = _MARK.match(line)
    if mark is None:
        return line, False, 0
    if mark["number"]:
        return line, True, len(mark[0])
    return line[mark.end() :], True, 0


def blocks(paragraph: str) -> Iterator[Block]:
    """The blocks of a paragraph (text without a blank line), in order."""
    paragraph = strip_markup(paragraph)
    if "\n" not in paragraph.strip():
        text, _, number = _stripped(paragraph)
        if text.strip() and not _RULE.fullmatch(text):
            yield Block(" ".join(text.split()), number)
        return
    lines = paragraph.strip("\n").split("\n")
    shown = lines[:_SHOWN_LINES]
    width = max(map(len, shown))
    listed = len(lines) > 2 and all(len(line.split()) <= FEW_WORDS and not _ENDED.search(line[-12:]) for line in shown)
    held: list[str] = []
    number, item = 0, False  # of the block that is held; whether it is an item, a heading, a row
    heading = False
    for line in lines:
        if not line.strip():
            continue
        ruled = _RULE.fullmatch(line.strip())
        text, marked, its_number = _stripped(line)
        if held and (
            ruled
            or marked
            or heading
            or listed
            or _breaks(held[-1], line, text, width, indented=item and line[:1] == " ")
        ):
            yield Block(" ".join(" ".join(held).split()), number)
            held, number, item = [], 0, False
        heading = _HEADING.fullmatch(line.strip()) is not None
        if ruled or not text.strip():
            continue
        if not held:
            number, item = its_number, marked
        held.append(text)
    if held:
        yield Block(" ".join(" ".join(held).split()), number)


def _breaks(before: str, line: str, text: str, width: int, *, indented: bool) -> bool:
    """Whether a new block starts with an unmarked line."""
    if indented or not _SPOKEN_START.match(text) or _OPEN.search(before[-16:]):
        return False
    if _ENDED.search(before[-12:]):
        return before.rstrip()[-1:] == ":"
    word = _FIRST_WORD.match(text)
    fits = word is not None and len(before) + 1 + len(word[1]) <= width
    return fits or width < NARROW


_NUMBER_MARK = re.compile(r"\(?(?P<number>\w{1,5})[.)]+\s+")


def flatten(text: str) -> str:
    """All blocks of a text on one line, each closed by a point where it has no mark of its own; `1.` becomes `1,`."""
    if "\n" not in text:
        block = next(blocks(text), None)
        return _open_number(block) if block else ""
    said = []
    for paragraph in re.split(r"\n\s*\n", text):
        said += [_open_number(block) for block in blocks(paragraph)]
    return " ".join(s if i == len(said) - 1 or _ENDED.search(s[-12:]) else s + "." for i, s in enumerate(said))


def _open_number(block: Block) -> str:
    mark = _NUMBER_MARK.match(block.text[: block.marked]) if block.marked else None
    if mark is None:
        return block.text
    number = mark["number"]
    return f"{number.upper() if len(number) == 1 else number}, {block.text[block.marked :]}"
