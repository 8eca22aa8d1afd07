"""SSML: the phonemes of plain text that says the same, the pauses and rates asked for, one clear error otherwise."""

from __future__ import annotations

import logging
import re
import xml.sax.saxutils as sax

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spear_spec.errors import ConfigError, TextError
from spear_spec.text import PhonemeFrontEnd, PhonemeTokenizer, Reader, Reading, Segment, read
from spear_spec.text.bytes import ByteFrontEnd
from spear_spec.text.ipa import to_letters
from spear_spec.text.pauses import Pauses
from spear_spec.text.say_as import DATES, KINDS, LETTERS, say_as
from spear_spec.text.ssml import RATES, STRENGTHS, read_ssml

FRONT = PhonemeFrontEnd(PhonemeTokenizer(("af_heart",)))
WHO = "af_heart"


def spoken(body: str, **options: object) -> list[Segment]:
    return list(read(FRONT, f"<speak>{body}</speak>", WHO, Reading.of(ssml=True, **options)))  # type: ignore[arg-type]


def letters(segments: list[Segment]) -> list[str]:
    return ["".join(FRONT.tokenizer.vocab[i] for i in segment.ids[1:]) for segment in segments]


def plain(text: str) -> list[str]:
    return letters(list(FRONT.segments(text, WHO)))


PLAIN = [
    "It is as plain as can be.",
    "Two sentences. One of them has $5.50, and the other Dr. Smith & Co.",
    '5 < 7 > 3, said he; it\'s "fine" (really)!',
    "The 3rd of May, 1999 was a Monday.",
]


@pytest.mark.parametrize("text", PLAIN)
@pytest.mark.parametrize("frame", ["{}", "<p>{}</p>", "<p><s>{}</s></p>", "  \n {}\n ", "<prosody>{}</prosody>"])
def test_plain_text_is_spoken_as_without(text: str, frame: str) -> None:
    assert letters(spoken(frame.format(sax.escape(text)))) == plain(text)


def test_a_text_that_starts_with_a_bracket_is_text() -> None:
    text = "<speak>One.</speak>"
    assert plain(text) == plain("One.")  # as ever: tags are left out, no document is parsed
    assert letters(list(FRONT.segments("< 5 <break/>", WHO)))


# what is given takes the place of a word that is spoken so, and all around it stays as it is
GIVEN = [
    ("The <phoneme ph='ˈæpəl'>thing</phoneme> fell.", "The apple fell.", "ˈæpəl", "ˈæpᵊl"),
    ("I read <phoneme ph='bʊks'>B</phoneme>, and more.", "I read books, and more.", "bˈʊks", "bˈʊks"),
    ("(<phoneme ph='kæt'>Dr. 5</phoneme>) is here!", "(Cat) is here!", "kˈæt", "kˈæt"),
    ("\"<phoneme ph='kæt'>Dr.</phoneme>\" is here? Yes.", '"Cat" is here? Yes.', "kˈæt", "kˈæt"),
    ("He has to <phoneme ph='ɡoʊ'>X</phoneme>.", "He has to go.", "ɡˈO", "ɡˌO"),
    ("<phoneme ph='kæt'>X</phoneme>'s tail; a <phoneme ph='dɔɡz'>Y</phoneme>.", "Cat's tail; a dogs.", None, None),
    ("One <phoneme ph='ˈkæt'>e.g. U.S.</phoneme> more. Then two.", "One cat more. Then two.", None, None),
]


@pytest.mark.parametrize(("body", "text", "given_", "worked_out"), GIVEN)
def test_phonemes_leave_their_neighbours_alone(body: str, text: str, given_: str, worked_out: str) -> None:
    found, expected = letters(spoken(body)), plain(text)
    if given_ is not None:
        assert any(given_ in sentence for sentence in found)
        expected = [sentence.replace(worked_out, given_) for sentence in expected]
    assert found == expected


def test_what_was_written_is_shown() -> None:
    [one, two] = spoken("The <sub alias='World Wide Web'>W3</sub> of <phoneme ph='nwɪn'>Nguyen</phoneme>. Yes.")
    assert (one.text, two.text) == ("The W3 of Nguyen.", "Yes.")


@pytest.mark.parametrize(
    ("ipa", "expected"),
    [
        ("təˈmeɪtoʊ", "təmˈATO"), ("/ˈtʃɜːrtʃ/", "ʧˈɜɹʧ"), ("ˈd͡ʒʌd͡ʒ", "ʤˈʌʤ"), ("ˌɪntəˈnæʃ(ə)nəl", None),
        ("kæt", "kˈæt"), ("ðə", "ðə"), ("ˈbɒtl̩", "bˈɑtᵊl"), ("ˈbʌtn̩", "bˈʌtᵊn"), ("pʰɑː", "pˈɑ"), ("fɑðɚ", "fˈɑðəɹ"),
        ("nɜː", "nˈɜɹ"), ("ˈɡəʊ.ɪŋ", "ɡˈOɪŋ"), ("mɔ̃", "mˈɔ"), ("ˈstrɛŋθs", "stɹˈɛŋθs"), ("ˈwɔtɚ ˈboːt", "wˈɔtəɹ bˈɔt"),
        ("[ˈɾaɪt]", "TˈIt"), ("loχ", "lˈOk"),
    ],
)  # fmt: skip
def test_ipa(ipa: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(TextError, match=r"'\(' \(U\+0028 LEFT PARENTHESIS\)"):
            to_letters(ipa)
    elif ipa == "təˈmeɪtoʊ":
        assert to_letters(ipa) == "təmˈAtO"  # a transcription is not flapped for anybody
    else:
        assert to_letters(ipa) == expected


@pytest.mark.parametrize("wrong", ["", "ˈ", "ʘa", "k4t", "x" * 500, "kˈAt"])
def test_what_is_no_ipa(wrong: str) -> None:
    with pytest.raises(TextError):
        to_letters(wrong)


def test_the_names_of_letters_are_the_lexicon_s() -> None:
    from spear_spec.text.g2p import shared_g2p

    golds = shared_g2p()._misaki.lexicon.golds
    known = {letter: golds.get(letter) for letter in LETTERS}
    for letter, said in known.items():
        said = said.get("DEFAULT") if isinstance(said, dict) else said
        assert LETTERS[letter].replace("ˌ", "") == (said or "").replace("ˌ", ""), letter


SAY_AS = [
    ("cardinal", "", "1,204", "one thousand two hundred four"), ("cardinal", "", "-3.5", "minus three point five"),
    ("cardinal", "", "XIV", "fourteen"), ("ordinal", "", "21", "twenty-first"), ("ordinal", "", "3rd", "third"),
    ("digits", "", "2024", "two zero two four"),
    ("telephone", "", "+1 (800) 555-0199", "plus one, eight hundred, five five five, oh one nine nine"),
    ("telephone", "", "5551234 x 12", "five five five, one two three four, extension one two"),
    ("date", "mdy", "3/4/2021", "March fourth, twenty twenty-one"),
    ("date", "dmy", "3/4/2021", "April third, twenty twenty-one"), ("date", "ymd", "1999-12-31",
                                                                   "December thirty-first, nineteen ninety-nine"),
    ("date", "yyyymmdd", "20070102", "January second, two thousand seven"), ("date", "my", "3/05", "March oh five"),
    ("date", "y", "1905", "nineteen oh five"), ("date", "md", "Feb 2", "February second"),
    ("time", "", "3:45pm", "three forty-five p.m."), ("time", "hms24", "15:00", "fifteen hundred hours"),
    ("time", "", "1'30\"", "one minute thirty seconds"), ("currency", "", "$42.01", "forty-two dollars and one cent"),
    ("fraction", "", "2/3", "two thirds"), ("fraction", "", "2+1/2", "two and a half"),
    ("unit", "", "10 kg", "ten kilograms"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "form", "text", "words"), SAY_AS)
def test_say_as(kind: str, form: str, text: str, words: str) -> None:
    assert say_as(kind, text, form) == words
    body = f"It is <say-as interpret-as='{kind}' format='{form}'>{sax.escape(text)}</say-as>, then."
    assert letters(spoken(body)) == plain(f"It is {words}, then.")


@pytest.mark.parametrize(
    ("kind", "form", "text"),
    [("cardinal", "", "many"), ("ordinal", "", "1.5"), ("digits", "", "none"), ("telephone", "", "call me"),
     ("date", "mdy", "13/4/2021"), ("date", "dmy", "32/4/2021"), ("date", "xyz", "1"), ("time", "", "25:00"),
     ("time", "", "soon"), ("fraction", "", "1/0"), ("currency", "", "free"), ("unit", "", "kg"), ("loudly", "", "x"),
     ("cardinal", "", "9" * 600)],
)  # fmt: skip
def test_what_cannot_be_said_so(kind: str, form: str, text: str) -> None:
    with pytest.raises(TextError):
        say_as(kind, text, form)
    with pytest.raises(TextError, match="line 1, column"):
        spoken(f"<say-as interpret-as='{kind}' format='{form}'>{text}</say-as>")


def test_characters_are_named() -> None:
    [one] = letters(spoken("Say <say-as interpret-as='characters'>aB-7</say-as>."))
    assert one == "sˈA ˈA bˈi dˈæʃ sˈɛvən."
    many = spoken(f"Say <say-as interpret-as='spell-out'>{'W' * 40}</say-as>.")
    assert sum(s.count("dˈʌb") for s in letters(many)) == 40


def pauses(body: str, **options: object) -> list[float]:
    return [segment.pause_s for segment in spoken(body, **options)]


def test_breaks() -> None:
    assert pauses("One.<break time='1.5s'/> Two <break time='250ms'/>three. Four.") == [0.0, 1.5, 0.25, 0.1]
    assert pauses("<break time='2s'/>One.") == [2.0]
    assert pauses("One <break time='1s'/><break time='2s'/> two") == [0.0, 3.0]
    assert pauses("<p>One.</p><break strength='none'/><p>Two.</p>") == [0.0, 0.0]
    for strength, seconds in STRENGTHS.items():
        assert pauses(f"One <break strength='{strength}'/> two") == [0.0, seconds]
    assert pauses("One <break/> two")[1] == STRENGTHS["medium"]
    assert pauses("One. <break time='59s'/><break time='59s'/>Two.")[1] == 60.0


def test_paragraphs_and_sentences_have_the_usual_pauses() -> None:
    body = "<p><s>One</s><s>two</s></p><p>Three. Four.</p>"
    usual = Pauses()
    assert pauses(body) == [0.0, usual.sentence, usual.paragraph, usual.sentence]
    assert pauses(body, pause=(0.7, 2)) == [0.0, 0.7, 2.0, 0.7]


def test_rates() -> None:
    body = "It is <prosody rate='80%'>so <prosody rate='+50%'>fast</prosody> or</prosody> not."
    found = spoken(body + " <prosody rate='slow'>No.</prosody>")
    assert [(s.text, round(s.rate, 6)) for s in found] == [
        ("It is", 1.0), ("so", 0.8), ("fast", 1.2), ("or", 0.8), ("not.", 1.0), ("No.", 0.75),
    ]  # fmt: skip
    assert [s.pause_s for s in found] == [0.0, 0.0, 0.0, 0.0, 0.0, 0.1]  # none within the sentence
    for name, rate in RATES.items():
        assert spoken(f"<prosody rate='{name}'>x</prosody>")[0].rate == rate
    assert spoken("<prosody rate='-10%'>x</prosody>")[0].rate == pytest.approx(0.9)
    assert spoken("<prosody rate='1.5'>x</prosody>")[0].rate == 1.5


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("Hello.", "line 1, column 1"),
        ("", "line 1"),
        ("<p>Hello.</p>", "begins with <speak>"),
        ("<speak>\n <nonsense>x</nonsense></speak>", r"line 2, column 2: <nonsense>"),
        ("<speak><p>x</speak>", "line 1, column"),
        ("<speak>x &nbsp; y</speak>", "line 1, column"),
        ("<!DOCTYPE speak [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><speak>&b;</speak>", "declarations"),
        ("<!DOCTYPE speak [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><speak>&x;</speak>", "declarations"),
        ("<!DOCTYPE speak SYSTEM 'http://127.0.0.1:9/x.dtd'><speak>a</speak>", "declarations"),
        ("<speak>" + "<p>" * 100 + "x" + "</p>" * 100 + "</speak>", "nested more than 50"),
        (f"<speak><sub alias='{'a' * 100_000}'>x</sub></speak>", "attributes"),
        ("<speak><p " + " ".join(f"a{i}='1'" for i in range(100)) + ">x</p></speak>", "attributes"),
        ("<speak><phoneme ph='ʘ'>x</phoneme></speak>", r"line 1, column \d+: .*U\+0298 LATIN LETTER BILABIAL CLICK"),
        ("<speak><phoneme>x</phoneme></speak>", 'needs ph='),
        ("<speak><phoneme alphabet='x-sampa' ph='a'>x</phoneme></speak>", "ipa, x-misaki"),
        ("<speak><phoneme ph='a'><break/></phoneme></speak>", "holds text alone"),
        ("<speak><say-as interpret-as='shout'>x</say-as></speak>", "shout"),
        ("<speak><break time='soon'/></speak>", "soon"),
        ("<speak><break time='61s'/></speak>", "at most 60"),
        ("<speak><break strength='mild'/></speak>", "mild"),
        ("<speak><prosody rate='quick'>x</prosody></speak>", "quick"),
        ("<speak><prosody rate='300%'>x</prosody></speak>", "50% to 200%"),
        ("<speak><prosody rate='50%'><prosody rate='50%'>x</prosody></prosody></speak>", "25%"),
        ("<speak><lexicon uri='x'/></speak>", "lexicon="),
        ("<speak><speak>x</speak></speak>", "within <speak>"),
        ("<speak>\ud800</speak>", "UTF-8"),
        ("<speak><phoneme ph='" + "ab" * 150 + "'>x</phoneme></speak>", "phonemes"),
        ("<speak> <break/> ... </speak>", "nothing to speak"),
    ],
)  # fmt: skip
def test_one_clear_error(document: str, message: str) -> None:
    with pytest.raises(TextError, match=message) as caught:
        list(FRONT.read(document, WHO, Reading(ssml=True)))
    assert len(str(caught.value)) < 400


def test_other_elements_are_read_through_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "spear_spec"):
        body = "It <emphasis>is</emphasis> <emphasis>so</emphasis>.<metadata>no<x/></metadata>"
        assert letters(spoken(body + " <amazon:effect>Yes.</amazon:effect>")) == plain("It is so. Yes.")
    assert [record.message.count("<emphasis>") for record in caplog.records] == [1, 0]


def test_a_long_substitute_is_spoken_whole() -> None:
    alias = "It goes on and on, and nobody can stop it. Then it stops, after all, as everything does in the end."
    assert " ".join(letters(spoken(f"So. <sub alias='{alias}'>x</sub> Well."))) == " ".join(plain(f"So. {alias} Well."))


def test_front_ends_that_cannot_say_so() -> None:
    class Other:
        speakers, num_token_ids = ("a",), 3

        def segments(self, text: str, speaker: str) -> list[Segment]:
            return [Segment(text, [1])]

        def phonemes(self, text: str) -> str:
            return ""

    other = Other()
    assert not isinstance(other, Reader) and isinstance(FRONT, Reader) and isinstance(ByteFrontEnd(), Reader)
    assert list(read(other, "x", "a", Reading())) == [Segment("x", [1])]  # type: ignore[arg-type]
    for reading in (Reading(ssml=True), Reading.of(pause=1), Reading.of(lexicon={"a": "b"})):
        with pytest.raises(ConfigError, match="leave these out"):
            read(other, "x", "a", reading)  # type: ignore[arg-type]
    byte = ByteFrontEnd()
    assert [s.pause_s for s in read(byte, "One. Two.\n\nThree.", "en", Reading.of(pause=(0.5, 2)))] == [0.0, 0.5, 2.0]
    for reading in (Reading(ssml=True), Reading.of(lexicon={"a": "b"})):
        with pytest.raises(ConfigError, match="bytes"):
            read(byte, "x", "en", reading)


# ---- any document

WORDS = st.sampled_from(
    ["one", "Two.", "Dr. Smith", "5 km", "—", "…", "(yes)", "&", "\n\n", "$5", "U.S.", "it's", "x" * 60, "é"]
)
VALUES = st.sampled_from(["80%", "slow", "x", "1s", "500ms", "ˈkæt", "a b", "", "ordinal", "characters", "date", "3"])
NAMES = ["p", "s", "break", "prosody", "phoneme", "sub", "say-as", "emphasis", "mark", "metadata", "q"]
KEYS = ["rate", "time", "strength", "ph", "alias", "interpret-as", "format", "alphabet"]


def element(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    attributes = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3)
    return st.builds(
        lambda name, given_, inside: (
            f"<{name}" + "".join(f" {k}={sax.quoteattr(v)}" for k, v in given_.items()) + f">{''.join(inside)}</{name}>"
        ),
        st.sampled_from(NAMES), attributes, st.lists(children, max_size=3),
    )  # fmt: skip


@given(st.lists(st.recursive(WORDS.map(sax.escape), element, max_leaves=12), max_size=4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_document_is_read_or_refused(parts: list[str]) -> None:
    """Without phonemes, which take long; the passages together say the text, at rates and pauses within bounds."""
    document = f"<speak>{' '.join(parts)}</speak>"
    try:
        passages, stand_ins = read_ssml(document)
    except TextError as error:
        assert re.match(r"SSML, line \d+, column \d+: ", str(error))  # noqa: PT017  either is right
        return
    for passage in passages:
        assert 0.5 <= passage.rate <= 2 and (passage.pause_s is None or 0 <= passage.pause_s <= 60)
        words, given_, _ = stand_ins.resolve(passage.text)
        assert all(0 <= one.start < one.end <= len(words) for one in given_)


@given(st.text(max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_text_is_refused_or_read(text: str) -> None:
    with pytest.raises(TextError):
        read_ssml(text)
    read_ssml(f"<speak>{sax.escape(''.join(c for c in text if c.isprintable()))}</speak>")


def test_every_kind_is_known() -> None:
    assert len(set(KINDS)) == len(KINDS) == 13 and all(set(form) <= set("mdy") for form in DATES)


def test_words_are_where_they_are_spoken() -> None:
    """What stands behind a stand-in is the sound of the word that was written, whole."""
    body = "The <sub alias='World Wide Web'>W3</sub> of <phoneme ph='nwɪn'>Dr. 5</phoneme>'s, $5"
    [segment] = spoken(body + " <sub alias='a b'>x</sub>.")
    symbols = [FRONT.tokenizer.vocab[i] for i in segment.ids]
    assert [(word.text, "".join(symbols[word.first : word.last])) for word in segment.words] == [
        ("The", "ðə"), ("W3", "wˈɜɹld wˈId wˈɛb"), ("of", "ʌv"), ("Dr. 5's,", "nwˈɪnz"), ("$5", "fˈIv dˈɑləɹz"),
        ("x.", "".join(symbols[segment.words[-1].first : segment.words[-1].last])),
    ]  # fmt: skip
    assert all(segment.text[word.start : word.end] == word.text for word in segment.words)


def test_what_is_given_goes_before_what_neighbours_say() -> None:
    """`lead` before `pipes` is the metal, and is not where it is said how it is spoken."""
    worked_out, given_ = plain("The lead pipes."), letters(spoken("The <phoneme ph='liːd'>lead</phoneme> pipes."))
    assert "lˈɛd" in worked_out[0] and given_ == [worked_out[0].replace("lˈɛd", "lˈid")]
