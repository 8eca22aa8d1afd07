"""How ordinary writing sounds: pairs of a text and of the words that are to be heard."""

from __future__ import annotations

from pathlib import Path

import pytest

from spear_spec.text import PhonemeFrontEnd, PhonemeTokenizer
from spear_spec.text.g2p import HALF_ENTRIES, shared_g2p
from spear_spec.text.symbols import PUNCTUATION, STRESS

SILENT = frozenset((*PUNCTUATION, *STRESS))


def pairs(name: str) -> list[tuple[str, str]]:
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    return [tuple(line.replace("\\n", "\n").split("\t")) for line in lines]  # type: ignore[misc]


def sounds(phonemes: str) -> str:
    return "".join(c for c in phonemes if c not in SILENT)


@pytest.mark.parametrize(("written", "heard"), [*pairs("reading.tsv"), *pairs("kinds.tsv")])
def test_sounds_as_it_should(written: str, heard: str) -> None:
    tokenizer = PhonemeTokenizer()
    assert sounds(tokenizer.phonemes(written)[0]) == sounds(tokenizer.phonemes(heard)[0])


def test_the_front_end_says_the_same_sentence_by_sentence() -> None:
    front_end = PhonemeFrontEnd()
    wrong = [
        w for w, heard in pairs("reading.tsv") if sounds(front_end.phonemes(w)) != sounds(front_end.phonemes(heard))
    ]
    assert wrong == []


@pytest.mark.parametrize("word", HALF_ENTRIES)
def test_no_half_words(word: str) -> None:
    """Their parts are spoken in full."""
    g2p = shared_g2p()
    assert sounds(g2p(word)[0]) == sounds("".join(g2p(part)[0] for part in word.split("-")))


def test_letter_a() -> None:
    say = PhonemeTokenizer().phonemes
    for text in (
        "Vitamin A helps.",
        "He got an A in art.",
        "Plan A failed.",
        "A is for apple.",
        "A plus B",
        "Take point A.",
        "A, B and C",
    ):
        assert "ˈA" in say(text)[0], text
    for text in ("A man came.", "I saw A Tale of Two Cities.", "What a day!"):
        assert "ɐ" in say(text)[0], text
