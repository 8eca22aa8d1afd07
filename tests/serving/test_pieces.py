"""Where text that arrives in pieces is cut."""

from __future__ import annotations

import random

import pytest

from spear_spec.serving.pieces import Cutter
from spear_spec.text.sentences import split_sentences


def cut(*pieces: str) -> list[str]:
    cutter = Cutter()
    out = [part.text for piece in pieces for part in cutter.feed(piece)]
    return out + [part.text for part in cutter.finish()]


def before_the_end(*pieces: str) -> list[str]:
    cutter = Cutter()
    return [part.text for piece in pieces for part in cutter.feed(piece)]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("It rained. ", ["It rained."]),
        ("It rained.", ["It rained."]),  # more than one word came at once: it is complete
        ("He met Dr. ", []),
        ("He came at 5 p.m. ", []),  # whether it ends here, the next word tells
        ("It costs 3.", []),
        ("It costs 3. ", ["It costs 3."]),
        ("Is it so? Yes", ["Is it so?"]),
        ("It costs 1,000 pounds and 20 pence in all", []),
        ("One two three four five, six", []),  # five words are too few
        ("One two three four five six, seven", ["One two three four five six,"]),
        ("One two three four five six,seven", []),
        ("Only 5 of the 1,000, that is", []),
        ("Only 5 of the 1,000 came, that is", ["Only 5 of the 1,000 came,"]),
        ("They said that Mr. Smith and Mrs. Jones of St. Paul", []),
        ("He thought of it for a while — then", ["He thought of it for a while —"]),
    ],
)
def test_what_is_spoken_before_more_comes(text: str, want: list[str]) -> None:
    assert before_the_end(text) == want


def test_a_number_or_a_name_is_not_cut_at_the_edge_of_a_piece() -> None:
    assert before_the_end("It costs 3", ".", "5", "0", " pounds") == []
    assert before_the_end("See example", ".", "com", " now") == []
    assert cut("It costs 3", ".", "5", "0", " pounds", ".") == ["It costs 3.50 pounds."]


def test_only_the_first_clause_comes_before_its_sentence() -> None:
    text = "One two three four five six, seven eight nine ten eleven twelve, and so on. "
    assert cut(*(w + " " for w in text.split())) == [
        "One two three four five six,",
        "seven eight nine ten eleven twelve, and so on.",
    ]


def test_a_sentence_without_end_is_cut_at_clauses() -> None:
    parts = before_the_end(*("word " * 9 + "word, " for _ in range(20)))
    assert len(parts) > 2 and all(part.endswith("word,") for part in parts)


@pytest.mark.parametrize("seed", range(20))
def test_any_pieces_give_the_sentences_of_the_whole(seed: int) -> None:
    """Without commas there are no clauses: cut anywhere, the sentences are those of the text."""
    rng = random.Random(seed)
    sentences = [
        "Dr. Smith met J. D. Tippit on the 5th.", "It was 5 p.m. when he left.", "No. 5 is alive!", "Why?",
        "The U.S. Army paid $3.50 each.", "See example.com for it.", "He said no. Then he left.", "Yes... it is.",
        "Mrs. Jones came in.", "It was Jan. 5 then.", "I am I.",
    ]  # fmt: skip
    text = " ".join(rng.choice(sentences) for _ in range(12))
    pieces, at = [], 0
    while at < len(text):
        size = rng.randint(1, 3)  # as a language model writes
        pieces.append(text[at : at + size])
        at += size
    assert "".join(pieces) == text
    assert cut(*pieces) == list(split_sentences(text))


def test_the_silence_between_follows_the_lines() -> None:
    cutter = Cutter()
    parts = cutter.feed("One is one. Two is two.\nThree is three.\n\nFour is four. One two three four five six, sev")
    parts += cutter.finish()
    assert [(part.text[:3], part.pause_s) for part in parts] == [
        ("One", None), ("Two", 0.1), ("Thr", 0.25), ("Fou", 0.4), ("One", 0.1),
    ]  # fmt: skip
