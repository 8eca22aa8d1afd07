"""The text alphabet: what one text token can be. The order is the model's embedding table, so it never changes.

Phoneme letters are misaki's American ones (one letter a phoneme: `A` = eɪ, `I` = aɪ, `O` = oʊ, `W` = aʊ, `Y` = ɔɪ,
`T` = the flap of "better"). Speakers stand last, so that another voice may bring its own without moving the phonemes.
The end-of-text token is not here: its id is the length of the table, as in spear-tts-pytorch.
"""

from __future__ import annotations

from spear_spec.errors import TextError

PAD = "<pad>"
PAD_ID = 0
STRESS = ("ˈ", "ˌ")
PUNCTUATION = (" ", ".", ",", "?", "!", ";", ":", "—", "…", "“", "”", "(", ")")
VOWELS = ("A", "I", "O", "W", "Y", "i", "u", "æ", "ɑ", "ɐ", "ɔ", "ə", "ɛ", "ɜ", "ɪ", "ʊ", "ʌ", "ᵊ", "ᵻ")
CONSONANTS = (
    "b", "d", "f", "h", "j", "k", "l", "m", "n", "p", "s", "t", "v", "w", "z", "ð", "ŋ", "ɡ", "ɹ", "T", "ʃ", "ʒ",
    "ʤ", "ʧ", "θ",
)  # fmt: skip
PHONEMES: tuple[str, ...] = (*PUNCTUATION, *STRESS, *VOWELS, *CONSONANTS)
SPEAKERS: tuple[str, ...] = ("af_heart", "am_michael")


def speaker_symbol(speaker: str) -> str:
    """The text token that stands in front of the phonemes and names who speaks."""
    return f"<{speaker}>"


SYMBOLS: tuple[str, ...] = (PAD, *PHONEMES, *map(speaker_symbol, SPEAKERS))

_ID = {symbol: i for i, symbol in enumerate(SYMBOLS)}


def encode_phonemes(phonemes: str, speaker: str) -> list[int]:
    """Ids of the speaker token and of each phoneme letter; no end token.

    Raises:
        TextError: a letter or speaker that the table does not hold (training data must be clean).
    """
    token = speaker_symbol(speaker)
    if token not in _ID:
        raise TextError(f"unknown speaker {speaker!r}; known are {', '.join(SPEAKERS)}")
    unknown = sorted(set(phonemes) - _ID.keys())
    if unknown:
        raise TextError(f"phonemes hold letters outside the alphabet: {' '.join(map(repr, unknown))}")
    return [_ID[token], *(_ID[letter] for letter in phonemes)]
