"""A user's lexicon: how words are spoken that the voice does not know, or says otherwise.

Three forms of a file, told apart by what stands in it: lines of `word<TAB>pronunciation`, a JSON object of the same, a
W3C pronunciation lexicon (PLS). A pronunciation between slashes is IPA (`/nwɪn/`); any other is a respelling that is
read like text (`new win`). docs/reading.md has it all.

Case: an entry without capitals is for the word in any case, one with a capital for exactly that form; the exact one
goes first. Spaces in an entry match any white space, and of entries that begin alike the longest goes first.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from spear_spec.config import shown
from spear_spec.errors import ConfigError, TextError
from spear_spec.text.ipa import to_letters
from spear_spec.text.stand_ins import MOST_LETTERS, Spoken, StandIns

MOST_BYTES = 16 * 1024 * 1024
MOST_ENTRIES = 200_000
LONGEST_WORD = 80
LONGEST_RESPELLING = 200
_PART = re.compile(r"\w+")
_BEFORE, _AFTER = r"(?<![\w@#/\\])(?<!\w[.'’-])", r"(?![\w@/\\]|[-.’'](?!s\b)\w)"


@dataclass(frozen=True)
class Entry:
    """word: as in the file. words: what it is read as, or "" where it has phonemes. phonemes: letters of the voices."""

    word: str
    words: str = ""
    phonemes: str = ""

    @classmethod
    def of(cls, word: str, pronunciation: str) -> Entry:
        """An entry from the two columns of a file.

        Raises:
            TextError: either of them cannot be used.
        """
        word, pronunciation = " ".join(word.split()), pronunciation.strip()
        if not word or not _PART.search(word):
            raise TextError("there is no word")
        if len(word) > LONGEST_WORD:
            raise TextError(f"the word is longer than {LONGEST_WORD} characters")
        if not pronunciation:
            raise TextError(f"{word!r} has no pronunciation")
        if len(pronunciation) > 1 and pronunciation[0] == pronunciation[-1] == "/":
            return cls.spoken(word, to_letters(pronunciation))
        if len(pronunciation) > LONGEST_RESPELLING or not any(c.isalnum() for c in pronunciation):
            raise TextError(
                f"the respelling of {word!r} must have letters, and at most {LONGEST_RESPELLING} characters"
            )
        return cls(word, words=pronunciation)

    @classmethod
    def spoken(cls, word: str, phonemes: str) -> Entry:
        """An entry with phonemes.

        Raises:
            TextError: they are too many.
        """
        if len(phonemes) > MOST_LETTERS:
            raise TextError(f"the transcription of {word!r} has {len(phonemes)} phonemes; at most {MOST_LETTERS}")
        return cls(word, phonemes=phonemes)


def _first(entry: Entry) -> re.Match[str]:
    found = _PART.search(entry.word)
    assert found is not None, entry.word
    return found


@lru_cache(maxsize=4096)
def _pattern(entry: Entry) -> re.Pattern[str]:
    """What matches the word where it begins; made when a text has a word that begins so."""
    before = _BEFORE if entry.word[0].isalnum() else r"(?<!\w)"
    after = _AFTER if entry.word[-1].isalnum() else r"(?!\w)"
    flags = re.IGNORECASE if entry.word == entry.word.lower() else re.NOFLAG
    return re.compile(before + r"\s+".join(map(re.escape, entry.word.split())) + after, flags)


class Lexicon:
    """Entries, ready to be found in a text."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        """Of two entries for the same word the first holds."""
        self.entries: dict[str, Entry] = {}
        for entry in entries:
            self.entries.setdefault(entry.word, entry)
        self._starting: dict[str, list[Entry]] = {}  # by the first part of their word
        for entry in sorted(self.entries.values(), key=lambda e: (-len(e.word), e.word == e.word.lower())):
            self._starting.setdefault(_first(entry)[0].lower(), []).append(entry)

    def __len__(self) -> int:
        return len(self.entries)

    def apply(self, text: str, stand_ins: StandIns) -> str:
        """The text with stand-ins for its words that the lexicon has."""
        out, at = [], 0
        for part in _PART.finditer(text):
            if part.start() < at:
                continue
            for entry in self._starting.get(part[0].lower(), ()):
                start = part.start() - _first(entry).start()
                found = _pattern(entry).match(text, start) if start >= at else None
                if found is not None:
                    written = " ".join(found[0].split())
                    spoken = Spoken(written, entry.words or written, entry.phonemes)
                    out += [text[at:start], stand_ins.put(text[at:start], spoken, text[found.end() :][:1])]
                    at = found.end()
                    break
        return "".join([*out, text[at:]]) if out else text

    def to_json(self) -> dict[str, str]:
        """Word to what it is spoken as: what of a lexicon makes a difference to the sound."""
        return {word: f"/{entry.phonemes}/" if entry.phonemes else entry.words for word, entry in self.entries.items()}

    @classmethod
    def of(cls, given: Any) -> Lexicon | None:
        """What is given as `lexicon`: None, a `Lexicon`, the path of a file, or a mapping of words to pronunciations.

        Raises:
            ConfigError: it cannot be used; a bad line is named with its number.
        """
        if given is None or isinstance(given, cls):
            return given
        if isinstance(given, str | os.PathLike):
            return load_lexicon(given)
        if isinstance(given, Mapping):
            return cls(_of_mapping(given, "lexicon"))
        raise ConfigError(f"lexicon must be a file, a mapping of words to pronunciations or a Lexicon: {shown(given)}")


def load_lexicon(path: str | os.PathLike[str]) -> Lexicon:
    """Read a lexicon file of any of the three forms.

    Raises:
        ConfigError: it cannot be read, is too large, or has a line that cannot be used (named with its number).
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the lexicon {path}: {error.strerror or error}") from None
    if len(data) > MOST_BYTES:
        raise ConfigError(f"the lexicon {path} is larger than {MOST_BYTES // 1024**2} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"lexicon {path}, line {line}: not UTF-8") from None
    first = text.lstrip()[:1]
    if first == "<":
        from spear_spec.text.pls import read_pls

        entries = read_pls(text, str(path))
    else:
        entries = _of_json(text, str(path)) if first == "{" else _of_lines(text, str(path))
    if not entries:
        raise ConfigError(f"the lexicon {path} has no entries")
    if len(entries) > MOST_ENTRIES:
        raise ConfigError(f"the lexicon {path} has more than {MOST_ENTRIES:,} entries")
    return Lexicon(entries)


def _of_lines(text: str, name: str) -> list[Entry]:
    entries: list[Entry] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        word, tab, pronunciation = line.rstrip("\r").partition("\t")
        where = f"lexicon {name}, line {number}"
        if not tab:
            raise ConfigError(f"{where}: expected word<TAB>pronunciation, and there is no tab")
        try:
            entry = Entry.of(word, pronunciation)
        except TextError as error:
            raise ConfigError(f"{where}: {error}") from None
        if entry.word in lines:
            raise ConfigError(f"{where}: {entry.word!r} stands in line {lines[entry.word]} already")
        lines[entry.word] = number
        entries.append(entry)
    return entries


def _of_json(text: str, name: str) -> list[Entry]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            twice = next(key for i, (key, _) in enumerate(pairs) if key in [k for k, _ in pairs[:i]])
            raise ConfigError(f"lexicon {name}: {twice!r:.80} stands in it twice")
        return values

    try:
        values = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ConfigError(f"lexicon {name}, line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise ConfigError(f"lexicon {name}: expected one object of words and pronunciations") from None
    return _of_mapping(values, f"lexicon {name}")


def _of_mapping(values: Mapping[Any, Any], name: str) -> list[Entry]:
    entries = []
    for number, (word, pronunciation) in enumerate(values.items(), 1):
        if not isinstance(word, str) or not isinstance(pronunciation, str):
            raise ConfigError(f"{name}, entry {number} ({word!r:.40}): expected a pronunciation as a string")
        try:
            entries.append(Entry.of(word, pronunciation))
        except TextError as error:
            raise ConfigError(f"{name}, entry {number}: {error}") from None
    return entries
