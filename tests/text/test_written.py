"""Written words and what is spoken of them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_spec.text import PhonemeFrontEnd, PhonemeTokenizer
from spear_spec.text.written import Spoken, written_words

FRONT = PhonemeFrontEnd(PhonemeTokenizer(["someone"]))


def said(text: str) -> list[tuple[str, str]]:
    """(written, phonemes) of each word of a text, across its segments."""
    out = []
    for segment in FRONT.segments(text, "someone"):
        letters = [FRONT.tokenizer.vocab[i] for i in segment.ids]
        out += [(word.text, "".join(letters[word.first : word.last])) for word in segment.words]
    return out


@pytest.mark.parametrize(("text", "expected"), [
    ("Dr. Smith lives on Elm Dr.", "Dr.=dˈɑktəɹ Smith=smˈɪθ lives=lˈɪvz on=ˌɔn Elm=ˈɛlm Dr.=dɹˈIv"),
    ("It cost $5 million, e.g. 10%.", "It=ˌɪt cost=kˈɔst $5=fˈIv million,=mˈɪljᵊn_dˈɑləɹz e.g.=fɔɹ_ɪɡzˈæmpəl "
     "10%.=tˈɛn_pəɹsˈɛnt"),
    ("1 one 2 & 3", "1=wˈʌn one=wˈʌn 2=tˈu &=ænd 3=θɹˈi"),
    ("No, no, no: no!", "No,=nˈO no,=nˈO no:=nˈO no!=nˈO"),
    ("He left—she stayed.", "He=hˌi left—=lˈɛft she=ʃi stayed.=stˈAd"),
    ("Yes — no.", "Yes_—=jˈɛs no.=nˈO"),
    ("CO2 on 7/4/1776.", "CO2=sˈi_ˈO_tˈu on=ˌɔn 7/4/1776.=ʤəlˈI_fˈɔɹθ,_sˌɛvəntˈin_sˈɛvəntisˌɪks"),
])  # fmt: skip
def test_who_says_what(text: str, expected: str) -> None:
    assert " ".join(f"{word}={sound}".replace(" ", "_") for word, sound in said(text)) == expected


_TEXTS = st.lists(
    st.sampled_from(["the", "a", "No", "no,", "5", "$12.50", "Mr.", "&", "—", "U.S.", "(well-known)", "10-20", "3rd",
                     "it's", "2020", "2020.", "one", "two", "“so”", "x", "p.m.", "km", "7/4", "😀", "...", "Xyzzyq"]),
    min_size=1, max_size=14,
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(_TEXTS)
def test_words_cover_what_is_written_and_what_is_spoken(parts: list[str]) -> None:
    text = " ".join(["so", *parts])
    for segment in FRONT.segments(text, "someone"):
        words = segment.words
        covered = "".join(segment.text[w.start : w.end] for w in words)
        assert "".join(covered.split()) == "".join(segment.text.split())
        assert all(one.end <= two.start and one.last <= two.first for one, two in zip(words, words[1:]))
        assert all(segment.text[w.start : w.end] == w.text and w.first < w.last for w in words)
        inside = {n for w in words for n in range(w.first, w.last)}
        spoken = {n for n, i in enumerate(segment.ids) if n and FRONT.tokenizer.vocab[i].isalpha()}
        assert spoken <= inside


def test_expected_words_that_are_not_spoken_go_to_the_word_before() -> None:
    found = written_words("one two three", [Spoken("one", 1, 4), Spoken("three", 5, 9)])
    assert [(w.text, w.first, w.last) for w in found] == [("one two", 1, 4), ("three", 5, 9)]


def test_nothing_written_or_nothing_spoken() -> None:
    assert written_words("", [Spoken("a", 1, 2)]) == ()
    assert written_words("...", []) == ()
