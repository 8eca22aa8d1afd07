"""The International Phonetic Alphabet to the phoneme letters of the voices, which are misaki's for American English.

Broad transcriptions as dictionaries print them, of British and American English alike: what English does not tell
apart is left out (length, aspiration, syllable breaks, ties), a vowel that American English lacks becomes its
neighbour. A mark of stress stands in front of the syllable in IPA and in front of the vowel here.
"""

from __future__ import annotations

import unicodedata

from spear_spec.errors import TextError
from spear_spec.text.symbols import CONSONANTS, STRESS, VOWELS

# longest first; what is written with a tie or a length mark arrives here without it
_SOUNDS = {
    "eɪ": "A", "ei": "A", "aɪ": "I", "ai": "I", "ɑɪ": "I", "oʊ": "O", "ou": "O", "əʊ": "O", "əu": "O",
    "aʊ": "W", "au": "W", "ɑʊ": "W", "ɔɪ": "Y", "ɔi": "Y", "ɒɪ": "Y", "tʃ": "ʧ", "dʒ": "ʤ",
    "ɪə": "ɪɹ", "eə": "ɛɹ", "ɛə": "ɛɹ", "ʊə": "ʊɹ", "ɪəɹ": "ɪɹ", "eəɹ": "ɛɹ", "ɛəɹ": "ɛɹ", "ʊəɹ": "ʊɹ",
    "ɪər": "ɪɹ", "eər": "ɛɹ", "ɛər": "ɛɹ", "ʊər": "ʊɹ", "ɜɹ": "ɜɹ", "ɜr": "ɜɹ", "ɚɹ": "əɹ", "ɝɹ": "ɜɹ",
    "ə˞": "əɹ", "ɜ˞": "ɜɹ", "ɚ": "əɹ", "ɝ": "ɜɹ", "e": "ɛ", "a": "ɑ", "o": "O", "ɒ": "ɑ", "r": "ɹ", "ɻ": "ɹ", "ɾ": "T",
    "ʔ": "t", "g": "ɡ", "ɫ": "l", "ʍ": "w", "hw": "w", "ɨ": "ᵻ", "ʉ": "u", "y": "u", "ɘ": "ə", "ɵ": "ə", "ø": "ɜ",
    "œ": "ɜ",
    "x": "k", "χ": "k", "ç": "h", "ɦ": "h", "ɱ": "m", "ɲ": "nj", "ʎ": "lj", "c": "k", "ɟ": "ɡ", "ʋ": "v", "β": "v",
    "ɸ": "f", "ʁ": "ɹ", "ʀ": "ɹ", "ɣ": "ɡ", "q": "k", "ɬ": "l", "ʂ": "ʃ", "ʐ": "ʒ", "ʈ": "t", "ɖ": "d", "ɳ": "n",
    "ɭ": "l", "ɯ": "u", "ɤ": "ʌ", "ɶ": "ɑ", "ʏ": "u", "ɕ": "ʃ", "ʑ": "ʒ", "ʦ": "ts", "ʣ": "dz",
}  # fmt: skip
_SYLLABIC = {"l": "ᵊl", "n": "ᵊn", "m": "ᵊm", "ɹ": "əɹ"}
_LONG = {"a": "ɑ", "ɜ": "ɜɹ", "e": "ɛ", "o": "ɔ"}  # where a mark of length changes the vowel
_STRESS = {"ˈ": "ˈ", "'": "ˈ", "’": "ˈ", "ˌ": "ˌ", ",": "ˌ"}
_SYLLABIC_MARK = "\u0329"
_LENGTH = "ːˑ:"
_LEFT_OUT = frozenset(".|‖‿-ʰʷʲˠˤⁿˡ˞˺\u0361\u035c\u0306\u030d")  # syllables, ties, secondary articulation, no release
_KNOWN = frozenset(CONSONANTS + VOWELS) - frozenset("AIOWYT")  # capitals are misaki's own, not IPA
_WIDEST = max(map(len, _SOUNDS))
_WEAK = "əᵊᵻ"
_LONGEST = 400


def to_letters(ipa: str) -> str:
    """`ˈtoʊ.mə.toʊ` -> `tˈOməTO`-like letters; a space goes on as one.

    A transcription without any mark gets its stress on the first full vowel, as a word that is said by itself has.

    Raises:
        TextError: it is empty, too long, without a sound, or holds a symbol that is not known: it is named.
    """
    if len(ipa) > _LONGEST:
        raise TextError(f"a transcription of {len(ipa)} characters is too long: at most {_LONGEST}")
    text = unicodedata.normalize("NFD", ipa.strip().strip("/[]")).replace("c\u0327", "ç")
    out: list[str] = []  # letters, marks of stress, spaces
    at = 0
    while at < len(text):
        symbol = text[at]
        if symbol in _STRESS:
            out.append(_STRESS[symbol])
            at += 1
        elif symbol.isspace():
            out.append(" ")
            at += 1
        elif symbol in _LEFT_OUT or symbol in _LENGTH or _only_shades(symbol):
            at += 1
        else:
            sound, at = _sound(text, at)
            out.append(sound)
    letters = _stressed(_stress_at_vowels("".join(out)))
    if not any(c.isalpha() for c in letters):
        raise TextError(f"the transcription {ipa[:40]!r} holds no sound")
    return " ".join(letters.split())


def check_letters(letters: str) -> str:
    """Phonemes that are given in the voice's own letters, as `x-misaki`.

    Raises:
        TextError: a letter that the voices do not have, or none at all.
    """
    wrong = sorted(set(letters) - set(CONSONANTS) - set(VOWELS) - set(STRESS) - {" "})
    if wrong:
        raise TextError(f"no phoneme letter of the voices: {_named(wrong[0])}")
    if not any(c.isalpha() for c in letters):
        raise TextError(f"the transcription {letters[:40]!r} holds no sound")
    return " ".join(letters.split())


def _sound(text: str, at: int) -> tuple[str, int]:
    """The letters of the longest sound at this place, and where the next one starts."""
    bare, ends = "", []
    for i in range(at, len(text)):
        if text[i] in _LEFT_OUT and text[i] in "\u0361\u035c":
            continue  # a tie within a sound
        bare += text[i]
        ends.append(i + 1)
        if len(bare) == _WIDEST:
            break
    for width in range(len(bare), 0, -1):
        found = _SOUNDS.get(bare[:width]) or (bare[0] if width == 1 and bare[0] in _KNOWN else None)
        if found is None:
            continue
        end = ends[width - 1]
        marks = ""
        while end < len(text) and (text[end] in _LENGTH or unicodedata.combining(text[end])):
            marks += text[end]
            end += 1
        if width == 1 and any(mark in _LENGTH for mark in marks):
            found = _LONG.get(bare[0], found)
            if bare[0] == "ɜ" and text[end : end + 1] in ("r", "ɹ"):
                end += 1
        if _SYLLABIC_MARK in marks:
            found = _SYLLABIC.get(found, found)
        return found, end
    raise TextError(f"not a symbol of English in IPA: {_named(text[at])}")


def _only_shades(symbol: str) -> bool:
    """A diacritic, or a mark of tone."""
    return bool(unicodedata.combining(symbol)) or "\u02e5" <= symbol <= "\u02e9"


def _named(symbol: str) -> str:
    return f"{symbol!r} (U+{ord(symbol):04X} {unicodedata.name(symbol, 'without a name')})"


def _stress_at_vowels(letters: str) -> str:
    """Each mark right before the next vowel of its word; one without a vowel behind it goes."""
    out, waiting = "", ""
    for c in letters:
        if c in STRESS:
            waiting = c
        elif c == " ":
            out, waiting = out + c, ""
        else:
            if c in VOWELS and waiting:
                out, waiting = out + waiting, ""
            out += c
    return out


def _stressed(letters: str) -> str:
    """A word without a mark, with one on its first full vowel."""
    words = []
    for word in letters.split(" "):
        if not any(mark in word for mark in STRESS):
            at = next((i for i, c in enumerate(word) if c in VOWELS and c not in _WEAK), None)
            word = word if at is None else word[:at] + "ˈ" + word[at:]
        words.append(word)
    return " ".join(words)


ALPHABETS = {"ipa": to_letters, "x-misaki": check_letters}  # what `alphabet` may name
