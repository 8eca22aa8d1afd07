"""Text to text tokens: the protocol and its phoneme implementation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

from spear_spec.errors import ConfigError, TextError
from spear_spec.text.normalize import normalize
from spear_spec.text.stand_ins import NONE, Place, StandIns
from spear_spec.text.symbols import PAD, PHONEMES, SYMBOLS, speaker_symbol
from spear_spec.text.unknown_words import in_alphabet
from spear_spec.text.written import Spoken, Word, written_words

log = logging.getLogger("spear_spec")


@dataclass(frozen=True)
class TextTokens:
    """A sentence as the model reads it.

    ids: speaker token, then one id for each phoneme letter; no end token. phonemes: the letters. words: the normalised
    text. unknown: words that the main lexicon lacked. warnings: what was guessed at or left out, one line each.
    """

    ids: list[int]
    phonemes: str
    words: str
    unknown: list[str]
    warnings: list[str]


@runtime_checkable
class Tokenizer(Protocol):
    """Text to ids below `len(vocab)`; id 0 is padding, `len(vocab)` is the end of the text, which the caller
    appends.
    """

    @property
    def vocab(self) -> tuple[str, ...]: ...

    def encode(self, text: str, speaker: str) -> list[int]: ...

    def to_dict(self) -> dict[str, Any]: ...


class PhonemeTokenizer:
    """English text to misaki's phoneme letters, a speaker token in front.

    The same code makes the phonemes for training and for speaking. Light to create: the lexicons and the tagger are
    loaded by the first text.
    """

    KIND = "misaki-en-us"

    def __init__(self, speakers: Iterable[str] = (), vocab: Iterable[str] | None = None) -> None:
        self.speakers = tuple(speakers)
        self._vocab = tuple(vocab) if vocab is not None else (*SYMBOLS, *map(speaker_symbol, self.speakers))
        self._ids = {symbol: i for i, symbol in enumerate(self._vocab)}
        missing = [s for s in (*SYMBOLS, *map(speaker_symbol, self.speakers)) if s not in self._ids]
        if missing or len(self._ids) != len(self._vocab) or self._vocab[0] != PAD:
            raise ConfigError(
                f"text symbols must start with {PAD}, be distinct and hold every phoneme and speaker; "
                f"missing: {missing}"
            )
        self._letters = frozenset(PHONEMES)

    @property
    def vocab(self) -> tuple[str, ...]:
        """All symbols in the order of their ids."""
        return self._vocab

    def phonemes(self, text: str, stand_ins: StandIns = NONE) -> tuple[str, str, list[str], list[str]]:
        """(phonemes, normalised text, unknown words, warnings) of a sentence.

        The phonemes are empty if nothing can be spoken. stand_ins: of the text that the sentence is from.
        """
        from spear_spec.text.g2p import shared_g2p

        words, warnings = normalize(text)
        words, given, more = stand_ins.resolve(words)
        warnings += more
        if not any(c.isalpha() for c in words):
            return "", words, [], warnings
        raw, unknown = shared_g2p()(words, given)
        phonemes, lost = in_alphabet(raw, self._letters)
        if lost:
            warnings = [*warnings, f"sounds outside the alphabet left out: {' '.join(sorted(set(lost)))}"]
        return phonemes.strip(), words, unknown, warnings

    def places(self, ids: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Where the spoken words lie in ids that `encode_phonemes` made: the first letter, and one past the last."""
        found: list[tuple[int, int]] = []
        beside = False  # the letter before belongs to the same word
        for at, one in enumerate(ids):
            symbol = self._vocab[one]
            if symbol == " " or symbol not in self._letters:
                beside = False
            elif symbol.isalpha():
                found[-1 if beside else len(found) :] = [(found[-1][0] if beside else at, at + 1)]
                beside = True
        return tuple(found)

    def words(self, text: str, stand_ins: StandIns = NONE) -> tuple[Word, ...]:
        """The written words of a sentence, with their places in `encode`'s ids."""
        from spear_spec.text.g2p import shared_g2p

        words, _ = normalize(text)
        places = stand_ins.places(words)
        words, given, _ = stand_ins.resolve(words)
        spoken: list[Spoken] = []
        at, place = 1, 0  # behind the speaker's token; in the normalised text
        last: Place | None = None
        for word, raw, blank in shared_g2p().by_word(words, given) if any(c.isalpha() for c in words) else ():
            phonemes, _ = in_alphabet(raw, self._letters)
            if at == 1:
                phonemes = phonemes.lstrip()
            if any(c.isalpha() for c in phonemes):
                inside = next((p for p in places if p.start <= place < p.end), None)
                first = at
                if inside is not None and inside is last:  # more of what one stand-in stands for
                    first = spoken.pop().first
                spoken.append(Spoken(word if inside is None else inside.name, first, at + len(phonemes)))
                last = inside
            at += len(phonemes) + (len(blank) if at > 1 or phonemes else 0)
            place += len(word) + len(blank)
        found = written_words(text, spoken)
        return tuple(_as_written(word, text, stand_ins) for word in found) if stand_ins else found

    def look_ahead(self, texts: Iterable[str], stand_ins: StandIns = NONE) -> None:
        """Prepare texts together that will be asked for one by one: a third of the work."""
        from spear_spec.text.g2p import shared_g2p

        shared_g2p().look_ahead(stand_ins.resolve(normalize(text)[0])[0] for text in texts)

    def tokenize(self, text: str, speaker: str) -> TextTokens:
        """Everything known about a sentence.

        Raises:
            TextError: the text holds nothing that can be spoken, or the voice has no such speaker.
        """
        phonemes, words, unknown, warnings = self.phonemes(text)
        if not any(c.isalpha() for c in phonemes):
            shown = text if len(text) <= 40 else text[:40] + "..."
            raise TextError(f"there is nothing to speak in {shown!r}: give it at least one word")
        return TextTokens(self.encode_phonemes(phonemes, speaker), phonemes, words, unknown, warnings)

    def encode(self, text: str, speaker: str) -> list[int]:
        """Ids of a sentence: the speaker token, then its phonemes; what had to be guessed at is logged as a warning.

        Raises:
            TextError: as in `tokenize`.
        """
        tokens = self.tokenize(text, speaker)
        for warning in tokens.warnings:
            log.warning("text: %s", warning)
        return tokens.ids

    def encode_phonemes(self, phonemes: str, speaker: str) -> list[int]:
        """Ids of the speaker token and of each phoneme letter.

        Raises:
            TextError: a letter or a speaker that the table does not hold.
        """
        token = self._ids.get(speaker_symbol(speaker))
        if token is None:
            raise TextError(f"unknown speaker {speaker!r}: this voice has {', '.join(self.speakers)}")
        unknown = sorted(set(phonemes) - self._letters)
        if unknown:
            raise TextError(f"phonemes hold letters outside the alphabet: {' '.join(map(repr, unknown))}")
        return [token, *(self._ids[letter] for letter in phonemes)]

    def to_dict(self) -> dict[str, Any]:
        """For a voice's config.json."""
        return {"kind": self.KIND, "speakers": list(self.speakers), "symbols": list(self._vocab)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote.

        Raises:
            ConfigError: unknown or missing keys, another kind of tokenizer, symbols that do not fit.
        """
        if not isinstance(values, Mapping) or set(values) != {"kind", "speakers", "symbols"}:
            raise ConfigError("text: expected an object with exactly kind, speakers and symbols")
        if values["kind"] != cls.KIND:
            raise ConfigError(f"text: unknown kind {values['kind']!r}, this version reads {cls.KIND!r}")
        for key in ("speakers", "symbols"):
            if not isinstance(values[key], (list, tuple)) or not all(isinstance(s, str) and s for s in values[key]):
                raise ConfigError(f"text: {key} must be a list of strings")
        return cls(values["speakers"], values["symbols"])


def _as_written(word: Word, text: str, stand_ins: StandIns) -> Word:
    """A word of the text with stand-ins, in the text as it was written."""
    written = stand_ins.written(text[word.start : word.end])
    start = len(stand_ins.written(text[: word.start]))
    return Word(written, start, start + len(written), word.first, word.last)
