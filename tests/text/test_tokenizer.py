"""The table of text tokens and the tokenizer's configuration."""

from __future__ import annotations

import logging

import pytest

from spear_spec.errors import ConfigError, TextError
from spear_spec.text import PAD_ID, SPEAKERS, SYMBOLS, PhonemeTokenizer, Tokenizer, encode_phonemes
from spear_spec.text.unknown_words import in_alphabet


def test_the_table_is_frozen() -> None:
    """The order is that of the shipped voice's embedding: a change here breaks every trained model."""
    assert "".join(SYMBOLS[1:-2]) == " .,?!;:—…“”()ˈˌAIOWYiuæɑɐɔəɛɜɪʊʌᵊᵻbdfhjklmnpstvwzðŋɡɹTʃʒʤʧθ"
    assert (SYMBOLS[PAD_ID], *SYMBOLS[-2:]) == ("<pad>", "<af_heart>", "<am_michael>")
    assert len(set(SYMBOLS)) == len(SYMBOLS) == 62


def test_holds_every_letter_that_misaki_can_write() -> None:
    from misaki.en import US_VOCAB

    assert in_alphabet("".join(sorted(US_VOCAB)), frozenset(SYMBOLS))[1] == []


def test_encode() -> None:
    tokenizer = PhonemeTokenizer()
    assert isinstance(tokenizer, Tokenizer)
    ids = tokenizer.encode("Hello, world!", "am_michael")
    assert ids == encode_phonemes("həlˈO, wˈɜɹld!", "am_michael")
    assert [SYMBOLS[i] for i in ids] == ["<am_michael>", *"həlˈO, wˈɜɹld!"]
    assert max(ids) < len(SYMBOLS)


def test_round_trip_and_other_speakers() -> None:
    tokenizer = PhonemeTokenizer(["anna", "bert", "cleo"])
    again = PhonemeTokenizer.from_dict(tokenizer.to_dict())
    assert again.vocab == tokenizer.vocab
    assert again.speakers == ("anna", "bert", "cleo")
    assert again.encode("Yes.", "cleo") == tokenizer.encode("Yes.", "cleo")
    default = PhonemeTokenizer()
    assert default.vocab == SYMBOLS
    assert default.speakers == SPEAKERS
    # phonemes keep their ids whoever speaks
    assert again.encode("Yes.", "anna")[1:] == default.encode("Yes.", "af_heart")[1:]


@pytest.mark.parametrize("change", [
    {"kind": "graphemes"},
    {"extra": 1},
    {"symbols": ["<pad>", "a"]},
    {"symbols": list(SYMBOLS) + ["b"]},
    {"symbols": list(SYMBOLS[1:]) + ["<pad>"]},
    {"symbols": "abc"},
    {"speakers": ["nobody"]},
    {"speakers": [1]},
])  # fmt: skip
def test_foreign_configuration_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        PhonemeTokenizer.from_dict({**PhonemeTokenizer().to_dict(), **change})


def test_missing_key_is_refused() -> None:
    with pytest.raises(ConfigError):
        PhonemeTokenizer.from_dict({"kind": PhonemeTokenizer.KIND})


@pytest.mark.parametrize("text", ["", "   ", "...", "***", "\u200b"])
def test_nothing_to_say(text: str) -> None:
    with pytest.raises(TextError, match="nothing to speak"):
        PhonemeTokenizer().encode(text, "af_heart")


def test_unknown_speaker_and_letters() -> None:
    with pytest.raises(TextError, match="af_heart"):
        PhonemeTokenizer().encode("Yes.", "nobody")
    with pytest.raises(TextError, match="nobody"):
        encode_phonemes("a", "nobody")
    with pytest.raises(TextError, match="'q'"):
        encode_phonemes("kq", "af_heart")


def test_letters_outside_the_alphabet_are_mapped_or_named() -> None:
    letters = frozenset(SYMBOLS)
    assert in_alphabet("bˈɛɾɚ", letters) == ("bˈɛTəɹ", [])
    assert in_alphabet("b✗t", letters) == ("bt", ["✗"])


def test_guesses_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "spear_spec"):
        PhonemeTokenizer().encode("Hi 😀 Привет", "af_heart")
    assert "grinning face" in caplog.text
    assert "Latin letters" in caplog.text
