"""The contract of a front end: segments in order, within their limit, with their pauses, made when asked for."""

from __future__ import annotations

import logging
from itertools import islice

import pytest

from spear_spec.errors import ConfigError, TextError
from spear_spec.text import FrontEnd, PhonemeFrontEnd, PhonemeTokenizer, Segment
from spear_spec.text.front_end import MOST_PHONEMES, MOST_TOLD, PAUSES_S
from spear_spec.text.sentences import Break

TOKENIZER = PhonemeTokenizer(("af_heart", "am_michael"))
FRONT_END = PhonemeFrontEnd(TOKENIZER)


def segments(text: str) -> list[Segment]:
    return list(FRONT_END.segments(text, "af_heart"))


def test_it_is_a_front_end() -> None:
    assert isinstance(FRONT_END, FrontEnd)
    assert FRONT_END.speakers == ("af_heart", "am_michael")
    assert FRONT_END.num_token_ids == len(TOKENIZER.vocab)


def test_segments_are_the_sentences() -> None:
    text = "Speak slowly. One word at a time."
    first, second = segments(text)
    assert (first.text, second.text) == ("Speak slowly.", "One word at a time.")
    assert (first.ids, second.ids) == tuple(TOKENIZER.encode(s.text, "af_heart") for s in (first, second))
    assert (first.pause_s, second.pause_s) == (0.0, PAUSES_S[Break.SENTENCE])
    assert {first.rate, second.rate} == {1.0}
    assert FRONT_END.phonemes(text) == "spˈik slˈOli. wˈʌn wˈɜɹd æt ɐ tˈIm."


def test_who_speaks_comes_first() -> None:
    heart, michael = (next(iter(FRONT_END.segments("Yes.", who))).ids for who in FRONT_END.speakers)
    assert heart[0] != michael[0] and heart[1:] == michael[1:]
    assert max(michael) < FRONT_END.num_token_ids


def test_short_sentences_are_joined_where_the_model_was_trained_for_it() -> None:
    text = "Yes. No. I do not know."
    assert [s.text for s in segments(text)] == ["Yes.", "No.", "I do not know."]
    joining = PhonemeFrontEnd(TOKENIZER, join=True)
    assert [s.text for s in joining.segments(text, "af_heart")] == [text]
    again = PhonemeFrontEnd.from_dict(joining.to_dict())
    assert again.join and not PhonemeFrontEnd.from_dict(FRONT_END.to_dict()).join
    assert "join" not in FRONT_END.to_dict()  # bundles of today keep their form


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Shopping list\n- Milk\n- Eggs", [("Shopping list", None), ("Milk", Break.LINE), ("Eggs", Break.LINE)]),
        ("# Heading\nIt begins. It ends.",
         [("Heading", None), ("It begins.", Break.LINE), ("It ends.", Break.SENTENCE)]),
        ("One paragraph\n\nAnother one.", [("One paragraph", None), ("Another one.", Break.PARAGRAPH)]),
        ("milk\neggs\nbread", [("milk", None), ("eggs", Break.LINE), ("bread", Break.LINE)]),
        ("1. Open it.\n2. Close it.", [("1. Open it.", None), ("2. Close it.", Break.LINE)]),
        ("Title\n=====\nText.", [("Title", None), ("Text.", Break.LINE)]),
        ("It breaks in the\nmiddle of a line.", [("It breaks in the middle of a line.", None)]),
        ("A long line that is wrapped at some sixty columns, as in Old\nEnglish mail, goes on.", [
            ("A long line that is wrapped at some sixty columns, as in Old English mail, goes on.", None)]),
        ("> quoted\n> and wrapped", [("quoted and wrapped", None)]),
        ("He said no. 10 minutes later he left.",
         [("He said no.", None), ("10 minutes later he left.", Break.SENTENCE)]),
        ("The towns, e.g. Paris, are loud.", [("The towns, e.g. Paris, are loud.", None)]),
        ("He lives on Main St. She does not.", [("He lives on Main St.", None), ("She does not.", Break.SENTENCE)]),
        ("We saw St. Paul there.", [("We saw St. Paul there.", None)]),
    ],
)  # fmt: skip
def test_pieces_and_pauses(text: str, pieces: list[tuple[str, Break | None]]) -> None:
    assert [(s.text, s.pause_s) for s in segments(text)] == [(t, 0.0 if b is None else PAUSES_S[b]) for t, b in pieces]


@pytest.mark.parametrize(
    "text",
    [
        "😀" * 50, "W" * 220, ">" * 300, "漢字" * 200, "word " * 100, "WWW " * 60, "1" * 400, "$1,000,000.99 " * 20,
        "a" * 219, "ﷺ" * 40, "-" * 50 + "x",
    ],
)  # fmt: skip
def test_a_segment_is_within_fifteen_seconds(text: str) -> None:
    """Whatever the letters come to: emoji, acronyms, signs, numbers."""
    found = segments(text)
    assert max(len(s.ids) for s in found) <= MOST_PHONEMES + 1
    assert "".join("".join(s.text for s in found).split()) == "".join(text.split())


def test_a_cut_is_at_a_clause_if_there_is_one() -> None:
    text = (
        "The USA, the UK, the UAE, and the WHO met the IMF, WTO, FBI, CIA, NSA; then the DEA, WWF, WWW, IRS, FDA "
        "and EPA met HSBC, KPMG, UBS, IBM."
    )
    assert len(text) < 190
    first, *rest = segments(text)
    assert rest and first.text[-1] in ",;" and all(s.pause_s == PAUSES_S[Break.CUT] for s in rest)


def test_segments_are_made_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    front_end = PhonemeFrontEnd(PhonemeTokenizer(("af_heart", "am_michael")))
    phonemes = front_end.tokenizer.phonemes
    monkeypatch.setattr(front_end.tokenizer, "phonemes", lambda *of: (said.append(of[0]), phonemes(*of))[1])
    numbers = (f"This is sentence number {i}." for i in range(10_000))
    assert len(list(islice(front_end.segments(" ".join(numbers), "af_heart"), 3))) == 3
    assert len(said) == 3


@pytest.mark.parametrize("text", ["", "  \n ", "...", "***\n\n* * *", "\u200b" * 30])
def test_nothing_to_say(text: str) -> None:
    with pytest.raises(TextError, match="nothing to speak"):
        segments(text)
    assert FRONT_END.phonemes(text) == ""


def test_wrong_use_is_one_clear_line() -> None:
    with pytest.raises(TextError, match="af_heart"):
        next(iter(FRONT_END.segments("Yes.", "nobody")))
    with pytest.raises(TextError, match="string"):
        next(iter(FRONT_END.segments(None, "af_heart")))  # type: ignore[arg-type]
    for change in ({"join": 1}, {"kind": "other"}, {"extra": 1}, {"symbols": []}):
        with pytest.raises(ConfigError):
            PhonemeFrontEnd.from_dict({**FRONT_END.to_dict(), **change})
    with pytest.raises(ConfigError):
        PhonemeFrontEnd.from_dict([])  # type: ignore[arg-type]


def test_a_warning_is_told_once_for_each_text(caplog: pytest.LogCaptureFixture) -> None:
    """However many of its segments have it: two hundred lines of faces are one warning."""
    with caplog.at_level(logging.WARNING, "spear_spec"):
        assert len(segments("I laughed 😀 at it.\n\n" * 200)) == 200
        segments("Again 😀.")
    assert caplog.text.count("grinning face") == 2


def test_a_text_of_nothing_but_guesses_has_a_bounded_number_of_warnings(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "spear_spec"):
        segments("".join(f"It is {chr(0x4E00 + n)} now.\n\n" for n in range(60)))
    assert len(caplog.records) == MOST_TOLD + 1
    assert [r.message for r in caplog.records].count("text: its further warnings are left out") == 1


def test_guesses_are_logged_once_for_each_segment(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "spear_spec"):
        segments("Hi 😀. Bye.")
    assert caplog.text.count("grinning face") == 1
