"""The table of text tokens and the tokenizer's configuration."""

from __future__ import annotations

import logging

import pytest

from spear_spec.errors import ConfigError, TextError
from spear_spec.text import PAD_ID, SYMBOLS, PhonemeTokenizer, Tokenizer
from spear_spec.text.unknown_words import in_alphabet

TWO = PhonemeTokenizer(["af_heart", "am_michael"])


def test_the_table_is_frozen() -> None:
    """The order is that of the shipped voice's embedding: a change here breaks every trained model."""
    assert "".join(SYMBOLS[1:]) == " .,?!;:—…“”()ˈˌAIOWYiuæɑɐɔəɛɜɪʊʌᵊᵻbdfhjklmnpstvwzðŋɡɹTʃʒʤʧθ"
    assert SYMBOLS[PAD_ID] == "<pad>"
    assert len(set(SYMBOLS)) == len(SYMBOLS) == 60
    assert TWO.vocab == (*SYMBOLS, "<af_heart>", "<am_michael>")


def test_holds_every_letter_that_misaki_can_write() -> None:
    from misaki.en import US_VOCAB

    assert in_alphabet("".join(sorted(US_VOCAB)), frozenset(SYMBOLS))[1] == []


def test_encode() -> None:
    assert isinstance(TWO, Tokenizer)
    ids = TWO.encode("Hello, world!", "am_michael")
    assert ids == TWO.encode_phonemes("həlˈO, wˈɜɹld!", "am_michael")
    assert [TWO.vocab[i] for i in ids] == ["<am_michael>", *"həlˈO, wˈɜɹld!"]
    assert max(ids) < len(TWO.vocab)


def test_round_trip_and_other_speakers() -> None:
    tokenizer = PhonemeTokenizer(["anna", "bert", "cleo"])
    again = PhonemeTokenizer.from_dict(tokenizer.to_dict())
    assert again.vocab == tokenizer.vocab
    assert again.speakers == ("anna", "bert", "cleo")
    assert again.encode("Yes.", "cleo") == tokenizer.encode("Yes.", "cleo")
    nobody = PhonemeTokenizer()
    assert nobody.vocab == SYMBOLS
    assert nobody.speakers == ()
    # phonemes keep their ids whoever speaks
    assert again.encode("Yes.", "anna")[1:] == TWO.encode("Yes.", "af_heart")[1:]


@pytest.mark.parametrize("change", [
    {"kind": "graphemes"},
    {"extra": 1},
    {"symbols": ["<pad>", "a"]},
    {"symbols": list(TWO.vocab) + ["b"]},
    {"symbols": list(TWO.vocab[1:]) + ["<pad>"]},
    {"symbols": "abc"},
    {"speakers": ["nobody"]},
    {"speakers": [1]},
])  # fmt: skip
def test_foreign_configuration_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        PhonemeTokenizer.from_dict({**TWO.to_dict(), **change})


def test_missing_key_is_refused() -> None:
    with pytest.raises(ConfigError):
        PhonemeTokenizer.from_dict({"kind": PhonemeTokenizer.KIND})


@pytest.mark.parametrize("text", ["", "   ", "...", "***", "\u200b"])
def test_nothing_to_say(text: str) -> None:
    with pytest.raises(TextError, match="nothing to speak"):
        TWO.encode(text, "af_heart")


def test_unknown_speaker_and_letters() -> None:
    with pytest.raises(TextError, match="af_heart"):
        TWO.encode("Yes.", "nobody")
    with pytest.raises(TextError, match="nobody"):
        TWO.encode_phonemes("a", "nobody")
    with pytest.raises(TextError, match="'q'"):
        TWO.encode_phonemes("kq", "af_heart")


def test_letters_outside_the_alphabet_are_mapped_or_named() -> None:
    letters = frozenset(SYMBOLS)
    assert in_alphabet("bˈɛɾɚ", letters) == ("bˈɛTəɹ", [])
    assert in_alphabet("b✗t", letters) == ("bt", ["✗"])


def test_guesses_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "spear_spec"):
        TWO.encode("Hi 😀 Привет", "af_heart")
    assert "grinning face" in caplog.text
    assert "Latin letters" in caplog.text
