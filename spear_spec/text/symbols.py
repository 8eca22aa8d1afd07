"""The text alphabet: what one text token can be. The order is the model's embedding table, so it never changes.

Phoneme letters are misaki's American ones (one letter a phoneme: `A` = eɪ, `I` = aɪ, `O` = oʊ, `W` = aʊ, `Y` = ɔɪ,
`T` = the flap of "better"). Speakers stand last, so that another voice may bring its own without moving the phonemes.
The end-of-text token is not here: its id is the length of the table, as in spear-tts-pytorch.
"""

from __future__ import annotations

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


def speaker_symbol(speaker: str) -> str:
    """The text token that stands in front of the phonemes and names who speaks."""
    return f"<{speaker}>"


SYMBOLS: tuple[str, ...] = (PAD, *PHONEMES)  # of a voice that has no speakers yet
