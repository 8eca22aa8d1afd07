"""Pronunciation of words that misaki's lexicon does not hold: a second lexicon, word formation, a CRF, spelling.

The lexicon and the CRF are the data files of gruut's English package (MIT), read directly: gruut itself is never
imported, since it brings a pipeline of its own. All results are in misaki's alphabet.
"""

from __future__ import annotations

import base64
import contextlib
import re
import sqlite3
from collections.abc import Callable
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from spear_spec.errors import MissingExtraError

_DIPHTHONGS = {"aʊ": "W", "aɪ": "I", "eɪ": "A", "oʊ": "O", "ɔɪ": "Y", "d͡ʒ": "ʤ", "t͡ʃ": "ʧ"}
_VOWELS = "AIOWYiuæɑɐɔəɛɜɪʊʌᵊᵻ"
_SIBILANTS = "szʃʒʧʤ"
# How the two dictionaries differ on words that both hold: misaki weakens unstressed ɪ to ə save before these.
_RULES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"(?<=[{_VOWELS}ɹ])t(?=[iəɪ])"), "T"),  # the American flap: better
    (re.compile(r"(?<=[Tdt])ɪd$"), "ᵻd"),
    (re.compile(rf"(?<=[{_SIBILANTS}])ɪz$"), "ᵻz"),
    (re.compile(rf"(?<=[^ˈˌ{_VOWELS}])ɪ(?![ŋʃʧʤ]|[kvdz]$|s[^{_VOWELS}ˈˌ]|z[{_VOWELS}]|$)"), "ə"),
    (re.compile(rf"[tT]ən(?![{_VOWELS}ˈˌ])"), "tᵊn"),
    (re.compile(rf"(?<=[^{_VOWELS}ɹlwj])əl(?![{_VOWELS}ˈˌ])"), "ᵊl"),
)
_MAP_TO_ALPHABET = {
    "ɾ": "T",
    "ʔ": "t",
    "ɚ": "əɹ",
    "g": "ɡ",
    "r": "ɹ",
    "e": "ɛ",
    "a": "ɑ",
    "o": "O",
    "x": "k",
    "y": "u",
    "ʍ": "w",
}
_CRF_CONTEXT = 3
_SUFFIXES = (  # spelling of the ending, what the stem may have lost, sound
    ("ly", ("", "le"), "li"), ("ness", ("", "y"), "nəs"), ("less", ("", "y"), "ləs"), ("like", ("",), "lˌIk"),
    ("ful", ("", "y"), "fᵊl"),
    ("ment", ("",), "mənt"), ("ship", ("",), "ʃˌɪp"), ("ism", ("", "e"), "ˌɪzᵊm"), ("ist", ("", "e"), "ɪst"), ("er",
    ("", "e"), "əɹ"),
    ("ers", ("", "e"), "əɹz"), ("able", ("", "e"), "əbᵊl"), ("ish", ("", "e"), "ɪʃ"), ("y", ("", "e"), "i"),
)  # fmt: skip
_PREFIXES = {
    "un": "ˌʌn",
    "re": "ɹˌi",
    "non": "nˌɑn",
    "over": "ˌOvəɹ",
    "under": "ˌʌndəɹ",
    "out": "ˌWt",
    "mis": "mˌɪs",
    "pre": "pɹˌi",
    "anti": "ˌænti",
    "super": "sˌupəɹ",
    "inter": "ˌɪntəɹ",
    "multi": "mˌʌlti",
    "micro": "mˌIkɹO",
    "semi": "sˌɛmi",
    "sub": "sˌʌb",
    "dis": "dɪs",
}
_SHORTEST_PART = 4  # letters of a part of a compound: shorter ones match by accident


def to_misaki(phones: list[str]) -> str:
    """gruut's phones (`["b", "ˈɛ", "t", "ɚ"]`) in misaki's letters (`"bˈɛTəɹ"`)."""
    out = []
    for phone in phones:
        stress = phone[0] if phone[0] in "ˈˌ" else ""
        sound = phone[len(stress) :]
        if sound == "ɚ":
            sound = "ɜɹ" if stress else "əɹ"
        out.append(stress + _DIPHTHONGS.get(sound, sound))
    word = "".join(out)
    for pattern, replacement in _RULES:
        word = pattern.sub(replacement, word)
    return word


def crf_features(word: str) -> list[dict[str, Any]]:
    """Features of each letter as gruut's CRF was trained with: the letter, three to each side, the word's ends."""
    rows = []
    for i, letter in enumerate(word):
        row: dict[str, Any] = {"bias": 1.0, "grapheme": _coded(letter)}
        for j in range(1, _CRF_CONTEXT + 1):
            if i - j >= 0:
                row[f"grapheme-{j}"] = _coded(word[i - j])
            if i + j < len(word):
                row[f"grapheme+{j}"] = _coded(word[i + j])
        if i == 0:
            row["begin"] = True
        if i == len(word) - 1:
            row["end"] = True
        rows.append(row)
    return rows


def _coded(letter: str) -> str:
    return base64.b64encode(letter.encode()).decode()


def _decoded(label: str) -> str:
    return base64.b64decode(label.encode()).decode()


def _stress_weaker(phonemes: str) -> str:
    return phonemes.replace("ˌ", "").replace("ˈ", "ˌ")


class UnknownWords:
    """Phonemes for words outside misaki's lexicon.

    Args:
        known: misaki's own pronunciation of a lower-case word or of one capital letter, None if it has none.
    """

    def __init__(self, known: Callable[[str], str | None]) -> None:
        self.known = known
        self._cached = lru_cache(maxsize=20_000)(self._word)

    @cached_property
    def _folder(self) -> Path:
        from importlib.util import find_spec

        spec = find_spec("gruut_lang_en")
        if spec is None or spec.origin is None:
            raise MissingExtraError("gruut_lang_en is not installed: run pip install gruut_lang_en==2.0.1")
        return Path(spec.origin).parent

    @cached_property
    def _lexicon(self) -> dict[str, str]:
        """Word to gruut's phones, the first pronunciation of each. The file has no index, hence all of it at once."""
        path = self._folder / "lexicon.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as db:
            return dict(db.execute("select word, phonemes from word_phonemes where role = '' order by pron_order desc"))

    @cached_property
    def _crf(self) -> Any:
        import pycrfsuite

        tagger = pycrfsuite.Tagger()
        tagger.open(str(self._folder / "g2p" / "model.crf"))
        return tagger

    def holds(self, word: str) -> bool:
        """Whether the second lexicon has the word."""
        return word in self._lexicon

    def __call__(self, text: str) -> str:
        """Phonemes of one written word of any kind: `Stuckey's`, `WDSU-TV`, `twirlingly`, `café`.

        Empty if it has no letters.
        """
        parts = re.findall(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d", text)
        return " ".join(p for p in map(self._cached, parts) if p)

    def _word(self, word: str) -> str:
        word = word.replace("’", "'")
        if not word.isascii():
            from anyascii import anyascii

            word = re.sub(r"[^A-Za-z']", "", anyascii(word))
        if word.isdecimal():
            from spear_spec.text.numbers import cardinal

            return self.known(cardinal(word)) or ""
        if not word.strip("'"):
            return ""
        low = word.lower().strip("'")
        if low.endswith("'s") and len(low) > 2:
            return with_s(self._word(word[: word.lower().rindex("'s")]))
        low = low.replace("'", "")
        if len(low) == 1 or (word.isupper() and not self._lookup(low)) or not re.search("[aeiouy]", low):
            return self.known(low) or self._spelled(low)
        return self._formed(low) or self._guessed(low)

    def _lookup(self, word: str) -> str | None:
        known = self.known(word)
        if known:
            return known
        phones = self._lexicon.get(word)
        return to_misaki(phones.split()) if phones else None

    def _formed(self, word: str, depth: int = 0) -> str | None:
        """From a dictionary, or built from parts that stand in one."""
        direct = self._lookup(word)
        if direct or depth > 2:
            return direct
        for ending, stems, make in (
            ("ies", [word[:-3] + "y"], with_s), ("s", [word[:-1]], with_s), ("es", [word[:-2]], with_s),
            ("ied", [word[:-3] + "y"], _with_ed), ("ed", [word[:-2], word[:-1], _undoubled(word[:-2])], _with_ed),
            ("ing", [word[:-3], word[:-3] + "e", _undoubled(word[:-3])], lambda p: p + "ɪŋ"),
            ("ling", [word[:-4]], lambda p: p + "lɪŋ"), ("ping", [word[:-4]], lambda p: p + "pˈɪŋ"),
        ):  # fmt: skip
            if word.endswith(ending):
                for stem in stems:
                    sound = self._formed(stem, depth + 1) if len(stem) > 2 else None
                    if sound:
                        return make(sound)
        for ending, lost, suffix in _SUFFIXES:
            if word.endswith(ending):
                stem = word[: -len(ending)]
                candidates = (
                    [stem + x for x in lost] if not (stem.endswith("i") and ending != "ish") else [stem[:-1] + "y"]
                )
                for candidate in candidates:
                    sound = self._lookup(candidate) if len(candidate) > 2 else None
                    if sound:
                        return (
                            sound[:-2]
                            if suffix == "li" and candidate.endswith("le") and sound.endswith("ᵊl")
                            else sound
                        ) + suffix
        for prefix, sound in _PREFIXES.items():
            if word.startswith(prefix) and len(word) - len(prefix) >= _SHORTEST_PART:
                rest = self._lookup(word[len(prefix) :])
                if rest:
                    return sound + rest
        return self._compound(word)

    def _compound(self, word: str) -> str | None:
        best = None
        for cut in range(_SHORTEST_PART - 1, len(word) - _SHORTEST_PART + 2):
            if min(cut, len(word) - cut) < _SHORTEST_PART - (len(word) > 7):
                continue
            first, second = self._lookup(word[:cut]), self._lookup(word[cut:])
            if first and second and (best is None or abs(2 * cut - len(word)) < best[0]):
                best = abs(2 * cut - len(word)), first + _stress_weaker(second)
        return best[1] if best else None

    def _guessed(self, word: str) -> str:
        labels = self._crf.tag(crf_features(word))
        phones = [p for label in labels for p in _decoded(label).split("|") if p and p != "_"]
        return to_misaki(phones) if phones else self._spelled(word)

    def _spelled(self, word: str) -> str:
        names = [self.known(c.upper()) or "" for c in word if c.isalpha()]
        return "".join(_stress_weaker(n) if i < len(names) - 1 else n for i, n in enumerate(names))


def _undoubled(stem: str) -> str:
    """`runn` -> `run`; nothing where the last letter is not doubled."""
    return stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] else ""


def with_s(stem: str) -> str:
    if not stem:
        return stem
    return stem + ("ᵻz" if stem[-1] in _SIBILANTS else "s" if stem[-1] in "ptkfθ" else "z")


def _with_ed(stem: str) -> str:
    if stem[-1] == "t" and len(stem) > 1 and stem[-2] in _VOWELS + "ɹ":
        return stem[:-1] + "Tᵻd"
    return stem + ("ᵻd" if stem[-1] in "td" else "t" if stem[-1] in "pkfθʃsʧ" else "d")


def in_alphabet(phonemes: str, allowed: frozenset[str]) -> tuple[str, list[str]]:
    """Letters outside the alphabet replaced by their nearest, or left out and named in the second value."""
    out, lost = [], []
    for letter in phonemes:
        mapped = letter if letter in allowed else _MAP_TO_ALPHABET.get(letter, "")
        if not mapped:
            lost.append(letter)
        out.append(mapped)
    return "".join(out), lost
