"""Text from arguments, files and standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from spear_spec.errors import TextError


def read_text(source: str) -> str:
    """The whole of a file, or of standard input for "-".

    Raises:
        TextError: it cannot be read or is not UTF-8.
    """
    if source == "-" and sys.stdin is None:
        raise TextError("standard input is closed: give a text, or a file with --file")
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise TextError(f"cannot read {source}: {error.strerror or error}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        name = "standard input" if source == "-" else source
        raise TextError(f"{name} is not UTF-8 text (byte {error.start})") from None


def read_lines(source: str) -> list[str]:
    """Lines of a file without those that are blank.

    Raises:
        TextError: as `read_text`, or no line holds text.
    """
    lines = [line.strip() for line in read_text(source).splitlines() if line.strip()]
    if not lines:
        raise TextError(f"{source} holds no text")
    return lines


def check_text(text: str) -> str:
    """An argument of the command line that is text.

    Raises:
        TextError: it is blank, or holds bytes that are not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise TextError("the text is not UTF-8") from None
    if not text.strip():
        raise TextError("the text is empty: nothing to say")
    return text
