"""Written text to words: the rules in the order in which they depend on each other."""

from __future__ import annotations

import re
from functools import lru_cache

from spear_spec.text.abbreviations import speak_abbreviations
from spear_spec.text.characters import clean, speak_characters
from spear_spec.text.dates import speak_dates
from spear_spec.text.links import speak_links
from spear_spec.text.money import speak_money_and_units
from spear_spec.text.numbers import speak_numbers

_SPACE = re.compile(r"\s+")
_SPACE_BEFORE = re.compile(r"(?<=[\w)”\"']) (?=[.,;:!?…](?:\s|$))")
_TIGHT_DASH = re.compile(r"(?<=\S)—|—(?=\S)")
_REPEATED = re.compile(r"([,;:!?])(?:\s*\1)+")


def is_speakable(text: str) -> bool:
    """Whether anything of the text can be spoken: `***` and `...` cannot."""
    return any(c.isalnum() for c in text) or any(c.isalpha() for c in _normalize(text)[0])


def normalize(text: str) -> tuple[str, list[str]]:
    """Words and punctuation only, plain English letters, on one line.

    Returns:
        the text, and warnings about characters that were guessed at or left out.
    """
    words, warnings = _normalize(text)
    return words, list(warnings)


@lru_cache(maxsize=256)
def _normalize(text: str) -> tuple[str, tuple[str, ...]]:
    text = clean(text)
    text = speak_links(text)
    text = speak_abbreviations(text)
    text = speak_dates(text)
    text = speak_money_and_units(text)
    text = speak_numbers(text)
    text, warnings = speak_characters(text)
    text = _TIGHT_DASH.sub(" — ", text)  # else the tagger sees one word
    text = _SPACE.sub(" ", text).strip()
    text = _SPACE_BEFORE.sub("", text)
    return _REPEATED.sub(r"\1", text), tuple(warnings)
