"""A file to a book, by its name's ending."""

from __future__ import annotations

from pathlib import Path

from spear_spec.books.book import Book
from spear_spec.books.epub import read_epub
from spear_spec.books.markdown import read_markdown
from spear_spec.books.plain import read_plain
from spear_spec.books.ssml import read_document
from spear_spec.errors import TextError

SUFFIXES = (".txt", ".md", ".markdown", ".epub", ".ssml")
MOST_BYTES = 256 * 1024 * 1024


def open_book(source: str | Path, *, ssml: bool = False) -> Book:
    """Read a book: `.epub`, `.md` or `.markdown`, `.ssml`, anything else as plain text.

    ssml: the file is a document of SSML, whatever its name.

    Raises:
        TextError: it cannot be read, or holds nothing to say. MissingExtraError: what reads it is not installed.
    """
    path = Path(source)
    suffix = path.suffix.lower()
    if ssml or suffix == ".ssml":
        if suffix == ".epub":
            raise TextError(f"{path} is an EPUB, no document of SSML: leave --ssml out")
        book = read_document(_read(path), path.stem)
    elif suffix == ".epub":
        book = read_epub(path)
    elif suffix in (".pdf", ".mobi", ".azw", ".azw3", ".docx", ".html", ".htm", ".rtf", ".odt"):
        raise TextError(f"cannot read a book from {path}: it must be one of {', '.join(SUFFIXES)}")
    else:
        read = read_markdown if suffix in (".md", ".markdown") else read_plain
        book = read(_read(path), path.stem)
    if not any(True for chapter in book.chapters for _ in chapter.blocks()):
        raise TextError(f"{path} holds no text")
    return book


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TextError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) > MOST_BYTES:
        raise TextError(f"{path} is larger than {MOST_BYTES // 1024**2} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8 text (byte {error.start})") from None
