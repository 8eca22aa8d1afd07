"""Written text to words: the rules in the order in which they depend on each other."""

from __future__ import annotations

import re
from functools import lru_cache

from spear_spec.text.abbreviations import speak_abbreviations
from spear_spec.text.arithmetic import speak_arithmetic, speak_scripts
from spear_spec.text.characters import (
    clean,
    keep_accents,
    leave_out_faces,
    speak_characters,
    speak_greek,
    write_out_fractions,
)
from spear_spec.text.dates import speak_dates
from spear_spec.text.latex import speak_latex
from spear_spec.text.lines import flatten
from spear_spec.text.links import speak_links, speak_paths
from spear_spec.text.money import speak_money
from spear_spec.text.numbers import join_groups, speak_numbers
from spear_spec.text.roman import speak_roman
from spear_spec.text.units import speak_units
from spear_spec.text.words import bounded, speak_words

_RULES = (
    write_out_fractions, keep_accents, leave_out_faces, speak_links, join_groups,
    speak_abbreviations, speak_roman, speak_arithmetic, speak_dates, speak_money,
    speak_units, speak_scripts,
    speak_numbers, speak_greek,
)  # fmt: skip
_SPACE = re.compile(r"\s+")
_SPACE_BEFORE = re.compile(r"(?<=[\w)”\"']) (?=[.,;:!?…](?:\s|$))")
_TIGHT_DASH = re.compile(r"(?<=\S)—|—(?=\S)")
_DOUBLE_HYPHEN = re.compile(r"(?<=[\w.,!?'\"”’)])-{2,3}(?=[\w'\"“‘(])")
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
    text = speak_paths(flatten(clean(text)))
    text, left_out = speak_latex(text)
    for rule in _RULES:
        text = rule(text)
    text, warnings = speak_characters(text)
    text = speak_words(text)
    text = _TIGHT_DASH.sub(" — ", text)  # else the tagger sees one word
    text = _DOUBLE_HYPHEN.sub(" — ", text)
    text = _SPACE.sub(" ", text).strip()
    text = _SPACE_BEFORE.sub("", text)
    return bounded(_REPEATED.sub(r"\1", text)), (*left_out, *warnings)
