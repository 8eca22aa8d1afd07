"""The W3C's Pronunciation Lexicon Specification 1.0: what of it says how a word is spoken."""

from __future__ import annotations

from spear_spec.errors import ConfigError, TextError
from spear_spec.text.ipa import ALPHABETS
from spear_spec.text.lexicon import Entry
from spear_spec.text.xml import Bounded, parse

_ELEMENTS = ("lexicon", "meta", "metadata", "lexeme", "grapheme", "phoneme", "alias", "example")


class _Reader(Bounded):
    def __init__(self, name: str) -> None:
        super().__init__(lambda message: ConfigError(f"lexicon {name}, {message}"))
        self.entries: list[Entry] = []
        self._alphabet, self._own = "ipa", ""
        self._text: list[str] | None = None
        self._skipped = 0
        self._graphemes: list[str] = []
        self._said: list[tuple[bool, Entry]] = []  # preferred or not, phonemes or an alias of a word without name

    def start(self, name: str, attributes: dict[str, str], qualified: str) -> None:
        if self._skipped or name in ("metadata", "example"):
            self._skipped += 1
            return
        if self._depth == 1 and name != "lexicon":
            raise self.wrong(f"a pronunciation lexicon begins with <lexicon>, not <{name:.40}>")
        if name not in _ELEMENTS:
            raise self.wrong(f"<{name:.40}> is not of a pronunciation lexicon")
        if name == "lexicon":
            self._alphabet = self._known(attributes.get("alphabet", "ipa"))
        elif name == "lexeme":
            self._graphemes, self._said = [], []
        elif name in ("grapheme", "phoneme", "alias"):
            self._text = []
            self._own = self._known(attributes.get("alphabet", self._alphabet))
            self._preferred = attributes.get("prefer") in ("true", "1")

    def characters(self, content: str) -> None:
        if self._text is not None and not self._skipped:
            self._text.append(content)

    def end(self, name: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        text, self._text = " ".join("".join(self._text or []).split()), None
        try:
            if name == "grapheme":
                self._graphemes.append(text)
            elif name == "phoneme":
                self._said.append((self._preferred, Entry.spoken("", ALPHABETS[self._own](text))))
            elif name == "alias":
                self._said.append((self._preferred, Entry.of("alias", text.strip("/"))))
            elif name == "lexeme":
                self._lexeme()
        except TextError as error:
            raise self.wrong(str(error)) from None

    def _lexeme(self) -> None:
        if not self._graphemes or not self._said:
            raise self.wrong("a lexeme needs a grapheme, and a phoneme or an alias")
        _, said = max(self._said, key=lambda known: known[0])  # the preferred one, else the first
        for grapheme in self._graphemes:
            word = Entry.of(grapheme, "word").word
            self.entries.append(Entry(word, said.words, said.phonemes))

    def _known(self, alphabet: str) -> str:
        if alphabet not in ALPHABETS:
            raise self.wrong(f"the alphabet {alphabet!r:.40} is not known: {', '.join(ALPHABETS)}")
        return alphabet


def read_pls(text: str, name: str) -> list[Entry]:
    """The entries of a lexicon in the order of the file.

    Raises:
        ConfigError: it is not one, with line and column.
    """
    reader = _Reader(name)
    parse(text, reader)
    return reader.entries
