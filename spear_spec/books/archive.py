"""A zip file that somebody else made: its members by name, within bounds, never written to disk."""

from __future__ import annotations

import posixpath
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from spear_spec.errors import TextError

MOST_MEMBERS = 20_000
MOST_BYTES = 512 * 1024 * 1024  # of all members that are read, unpacked
MOST_OF_ONE = 16 * 1024 * 1024


class Archive:
    """Reading alone; what is read of it all together is counted."""

    def __init__(self, file: zipfile.ZipFile, name: str) -> None:
        self._file, self.name, self._left = file, name, MOST_BYTES
        infos = file.infolist()
        if len(infos) > MOST_MEMBERS:
            raise TextError(f"{name} has {len(infos)} members, more than any book needs")
        self._infos = {info.filename: info for info in infos}

    def __contains__(self, member: str) -> bool:
        return member in self._infos

    def read(self, member: str, most: int = MOST_OF_ONE) -> bytes:
        """A member's bytes. What its header says of its size is not believed.

        Raises:
            TextError: it is missing, encrypted, damaged, or larger than it may be.
        """
        info = self._infos.get(member)
        if info is None:
            raise TextError(f"{self.name} lacks {member[:80]!r}, which it names: the book is damaged")
        if info.flag_bits & 1:
            raise TextError(f"{self.name} is encrypted: {member[:80]!r} needs a password")
        try:
            with self._file.open(info) as file:
                data = file.read(min(most, self._left) + 1)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError, EOFError, RuntimeError) as error:
            raise TextError(f"{self.name}: {member[:80]!r} cannot be unpacked: {error}") from None
        if len(data) > min(most, self._left):
            raise TextError(f"{self.name}: {member[:80]!r} unpacks to more than any book needs; it is not read")
        self._left -= len(data)
        return data


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open a zip file.

    Raises:
        TextError: it cannot be read, or is none.
    """
    try:
        with zipfile.ZipFile(path) as file:
            yield Archive(file, str(path))
    except zipfile.BadZipFile:
        raise TextError(f"{path} is no EPUB: it is not a zip file, or a damaged one") from None
    except OSError as error:
        raise TextError(f"cannot read {path}: {error.strerror or error}") from None


def resolve(base: str, href: str, name: str) -> tuple[str, str]:
    """(member, fragment) that a reference in the member `base` means.

    Raises:
        TextError: it leads out of the archive.
    """
    parts = urlsplit(href.strip())
    if parts.scheme or parts.netloc:
        raise TextError(f"{name} refers to {href[:80]!r}, which is not in it")
    path = unquote(parts.path)
    member = posixpath.normpath(posixpath.join(posixpath.dirname(base), path)) if path else base
    if member.startswith(("/", "..")) or "\\" in member or "\0" in member:
        raise TextError(f"{name} refers to {href[:80]!r}, which leads out of it")
    return member, unquote(parts.fragment)
