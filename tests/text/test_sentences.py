"""Sentence splitting and the length of pieces."""

from __future__ import annotations

from itertools import islice

import pytest

from spear_spec.text import split_sentences
from spear_spec.text.sentences import LONGEST, spoken_length

TABLE = [
    (
        "Dr. Smith went to Washington. He arrived on Jan. 5 at noon.",
        ["Dr. Smith went to Washington.", "He arrived on Jan. 5 at noon."]),
    ("The letter came that day from Dr. Smith of London.", ["The letter came that day from Dr. Smith of London."]),
    ("The officer J. D. Tippit was shot. He died at once there.",
     ["The officer J. D. Tippit was shot.", "He died at once there."]),
    ("She asked him, \"Why are you here?\" but got no answer.",
     ["She asked him, \"Why are you here?\" but got no answer."]),
    ("We all met at nine p.m. It was already dark outside.",
     ["We all met at nine p.m.", "It was already dark outside."]),
    ("He served in the U.S. Army for some twenty years.", ["He served in the U.S. Army for some twenty years."]),
    ("It costs $3.50 at the store. That is not very much!", ["It costs $3.50 at the store.", "That is not very much!"]),
    ("Wait for it... The answer is here, my dear friend.", ["Wait for it...", "The answer is here, my dear friend."]),
    ("Yes. No. I do not know.", ["Yes.", "No.", "I do not know."]),
    (
        "He said \"Stop right there now.\" Then she stopped walking.",
        ["He said \"Stop right there now.\"", "Then she stopped walking."]),
    ("A heading without a stop\n\nAnd then a paragraph follows.",
     ["A heading without a stop", "And then a paragraph follows."]),
    ("It breaks in the\nmiddle of a line.", ["It breaks in the middle of a line."]),
    ("***\n\nOnly this is spoken.\n\n* * *", ["Only this is spoken."]),
    ("", []),
    (" \n\n ... ", []),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentences"), TABLE)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert list(split_sentences(text)) == sentences


def test_a_long_sentence_is_cut_at_clauses() -> None:
    clause = "the rain went on and the river rose above the meadows of the town"
    text = "; ".join([clause] * 6) + "."
    pieces = list(split_sentences(text))
    assert len(pieces) > 1
    assert all(spoken_length(p) <= LONGEST for p in pieces)
    assert all(p.endswith((";", ".")) for p in pieces)
    assert " ".join(pieces) == text


@pytest.mark.parametrize("text", [
    "one long word after another without any kind of stop " * 20,
    "a" * 2000,
    " ".join(str(n) for n in range(1000, 1200)),
    "漢字" * 400,
])  # fmt: skip
def test_nothing_is_longer_than_the_limit_and_nothing_is_lost(text: str) -> None:
    pieces = list(split_sentences(text))
    assert all(0 < spoken_length(p) <= LONGEST for p in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_time_is_linear_without_a_single_stop() -> None:
    """Half a megabyte of words without punctuation: the work for a piece does not depend on what follows."""
    text = "word after word " * 32_000
    pieces = list(split_sentences(text))
    assert max(map(len, pieces)) <= LONGEST
    assert " ".join(pieces) == text.strip()


def test_no_crumb_is_left_at_the_end() -> None:
    text = " ".join(["word"] * (LONGEST // 5 + 3))
    first, second = split_sentences(text)
    assert min(len(first), len(second)) > LONGEST // 4


def test_sentences_come_one_at_a_time() -> None:
    """The first sentences of a huge text come without reading the rest."""
    looked_at: list[int] = []

    class Watched(str):
        def __getitem__(self, key: object) -> str:
            text = super().__getitem__(key)  # type: ignore[index]
            looked_at.append(len(text))
            return text

    huge = Watched("A sentence of a middling length stands here.\n\n" * 50_000)
    assert len(list(islice(split_sentences(huge), 3))) == 3
    assert sum(looked_at) < 1000
