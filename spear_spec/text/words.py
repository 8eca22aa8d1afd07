"""Words that are written as no dictionary has them: drawn out, divided, or longer than any word is."""

from __future__ import annotations

import re
from itertools import product

from spear_spec.text import tables

_DRAWN = re.compile(r"(?<![\w'’-])(?=[A-Za-z]{0,40}([A-Za-z])\1\1)[A-Za-z]{3,60}(?![\w'’])", re.I)
_THREE = re.compile(r"([a-z])\1{2,}")
_MOST_RUNS = 4
_CALLS = tuple((re.compile(pattern), word) for pattern, word in tables.DRAWN_OUT.items())
_FEW = 3  # capitals in a row that may be an acronym: AAA, WWW


def _drawn(match: re.Match[str]) -> str:
    """`Noooo` -> `No`, `looong` -> `long`, `goood` -> `good`; what stands in a lexicon decides."""
    word = match[0]
    low = word.lower()
    if (word.isupper() and len(word) <= _FEW) or low == "www":
        return word
    for pattern, call in _CALLS:
        if pattern.fullmatch(low):
            return call.capitalize() if word[0].isupper() else call
    from spear_spec.text.g2p import shared_g2p

    g2p = shared_g2p()
    if g2p.knows(low):
        return word
    runs = len(_THREE.findall(low))
    found = low
    if runs <= _MOST_RUNS:
        parts = _THREE.split(low)  # text, letter, text, letter, ..., text
        candidates = [
            "".join(p * (choice[i // 2] if i % 2 else 1) for i, p in enumerate(parts))
            for choice in product((2, 1), repeat=runs)
        ]
        found = next((c for c in candidates if g2p.knows(c, common=True)), None) or next(
            (c for c in candidates if g2p.knows(c)), _THREE.sub(r"\1\1", low)
        )
    else:
        found = _THREE.sub(r"\1\1", low)
    if word.isupper() and not g2p.knows(found, common=True):
        return word if len(word) <= 6 else found
    return (
        found.capitalize() if word[0].isupper() and not word.isupper() else found.upper() if word.isupper() else found
    )


def speak_words(text: str) -> str:
    """Drawn-out words as the word that is meant."""
    return _DRAWN.sub(_drawn, text) if _MAYBE_DRAWN.search(text) else text


_MAYBE_DRAWN = re.compile(r"([A-Za-z])\1\1", re.I)

# ---- what costs more than its length: taggers and lexicons look at all parts of a run of letters and marks at once
_RUN = re.compile(r"\S+")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^A-Za-z]")
_MOST_PARTS = 8
_LONGEST_WORD = 34
_MARKS = re.compile(r"([.,?!;:'\"()\-—…“”])[.,?!;:'\"()\-—…“”]{3,}")
_LONG = re.compile(rf"[A-Za-z]{{{_LONGEST_WORD}}}(?=[A-Za-z])")


def bounded(text: str) -> str:
    """The text with runs of marks, of hyphens and of letters cut down to what a word may be."""
    if len(text) > 3:
        text = _MARKS.sub(lambda m: m[0][:3], text)
        text = _RUN.sub(_bounded_run, text)
    return text


def _bounded_run(match: re.Match[str]) -> str:
    run = match[0]
    if len(run) > _MOST_PARTS and len(_PART.findall(run)) > _MOST_PARTS:
        run = re.sub(r"(?<=[A-Za-z])[-'](?=[A-Za-z])", " ", run)
        run = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[^\sA-Za-z'])(?=[A-Za-z])|(?<=[A-Za-z])(?=[(“\"])", " ", run)
    return _LONG.sub(r"\g<0> ", run)
