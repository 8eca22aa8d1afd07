"""A user's lexicon: found in a text as it says, in each of its forms; a bad line named with its number."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spear_spec.errors import ConfigError
from spear_spec.text import Lexicon, PhonemeFrontEnd, PhonemeTokenizer, Reading, read
from spear_spec.text.lexicon import _pattern, load_lexicon
from spear_spec.text.stand_ins import StandIns

FRONT = PhonemeFrontEnd(PhonemeTokenizer(("af_heart",)))


def said(text: str, lexicon: dict[str, str] | None = None, **options: object) -> str:
    reading = Reading.of(lexicon=lexicon, **options)  # type: ignore[arg-type]
    return " ".join(
        "".join(FRONT.tokenizer.vocab[i] for i in segment.ids[1:]) for segment in read(FRONT, text, "af_heart", reading)
    )


def test_a_respelling_is_read_like_text() -> None:
    lexicon = {"SQL": "sequel", "Worcester": "wooster", "W3C": "World Wide Web Consortium"}
    text = "SQL in Worcester, by the W3C. SQL's fine; (Worcester)."
    for word, alias in lexicon.items():
        text_ = text.replace(word, alias)
        assert text_ != text
    plain = text
    for word, alias in lexicon.items():
        plain = plain.replace(word, alias)
    assert said(text, lexicon) == said(plain)


def test_ipa_is_spoken_as_it_stands() -> None:
    found = said("Mr. Nguyen said so. The NGUYEN family, Nguyen's, agrees!", {"nguyen": "/nwɪn/"})
    assert found == "mˈɪstəɹ nwˈɪn sˈɛd sˌO. ðə nwˈɪn fˈæmᵊli, nwˈɪnz, əɡɹˈiz!"


def test_segments_show_what_was_written() -> None:
    reading = Reading.of(lexicon={"nguyen": "/nwɪn/", "data base": "dah ta base"})
    text = "Mr. Nguyen's data\nbase (NGUYEN)."
    assert [s.text for s in read(FRONT, text, "af_heart", reading)] == ["Mr. Nguyen's data base (NGUYEN)."]


@pytest.mark.parametrize(
    ("entry", "text", "found"),
    [
        ("nguyen", "Nguyen, NGUYEN and nguyen", ["Nguyen", "NGUYEN", "nguyen"]),  # small letters: any case
        ("US", "US, us and Us", ["US"]),  # capitals: that form alone
        ("data base", "A data  base, a Data\nbase; data-base", ["data base", "Data base"]),
        ("cat", "concatenate a cat's cats: cat, cat-like, scat.", ["cat", "cat"]),
        ("cat", "www.cat.com cat@cat.org /cat/cat #cat cat", ["cat"]),
        ("c++", "C++ or c++, c+", ["C++", "c++"]),
        (".NET", "ASP.NET and .NET", [".NET"]),
        ("at&t", "AT&T's", ["AT&T"]),
        ("o'neil", "O'Neil", ["O'Neil"]),
        ("naïve", "Naïve NAÏVE", ["Naïve", "NAÏVE"]),
    ],
)
def test_what_an_entry_matches(entry: str, text: str, found: list[str]) -> None:
    stand_ins = StandIns(text)
    applied = Lexicon.of({entry: "zzz"}).apply(text, stand_ins)  # type: ignore[union-attr]
    assert [spoken.written for spoken in _in_order(applied, stand_ins)] == found
    assert stand_ins.written(applied).split() == text.split()


def _in_order(text: str, stand_ins: StandIns) -> list:  # type: ignore[type-arg]
    return [stand_ins._of(match) for match in stand_ins._pattern.finditer(text)]


def test_the_longest_entry_and_the_exact_form_go_first() -> None:
    lexicon = Lexicon.of({"new": "a", "new york": "b", "New York City": "c", "YORK": "d", "york": "e"})
    assert lexicon is not None
    stand_ins = StandIns()
    applied = lexicon.apply("New York City, new York, new YORK x, York, YORK, new.", stand_ins)
    assert [s.words for s in _in_order(applied, stand_ins)] == ["c", "b", "b", "e", "d", "a"]


def test_stand_ins_are_words_that_the_text_does_not_hold() -> None:
    text = "qqbabababa xq zq " * 3
    stand_ins = StandIns(text)
    applied = Lexicon.of({"xq": "yes"}).apply(text, stand_ins)  # type: ignore[union-attr]
    assert stand_ins.written(applied) == text
    assert said(text.strip(), {"xq": "yes"}) == said(text.strip().replace("xq", "yes"))


TSV = "# mine\n\nnguyen\t/nwɪn/\nSQL\tsequel\r\n"
PLS = """<?xml version="1.0"?>
<lexicon version="1.0" xmlns="http://www.w3.org/2005/01/pronunciation-lexicon" alphabet="ipa" xml:lang="en-US">
  <meta name="author" content="me"/>
  <lexeme><grapheme>nguyen</grapheme><grapheme>Nwin</grapheme><phoneme>ˈnuj.ɛn</phoneme>
    <phoneme prefer="true">nwɪn</phoneme><example>Mr. <b/>Nguyen</example></lexeme>
  <lexeme><grapheme>SQL</grapheme><alias>sequel</alias></lexeme>
</lexicon>"""


def test_the_forms_of_a_file(tmp_path: Path) -> None:
    forms = {
        "a.tsv": TSV,
        "a.json": json.dumps({"nguyen": "/nwɪn/", "SQL": "sequel"}),
        "a.pls": PLS,
        "b": "\ufeff" + TSV,
    }
    for name, text in forms.items():
        path = tmp_path / name
        path.write_text(text, encoding="utf-8", newline="")
        found = load_lexicon(path).to_json()
        assert {key: found[key] for key in ("nguyen", "SQL")} == {"nguyen": "/nwˈɪn/", "SQL": "sequel"}
        assert Lexicon.of(str(path)).to_json() == Lexicon.of(path).to_json() == found  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\nno tab\n", "line 2: expected word<TAB>"),
        ("a\tb\n\tb\n", "line 2: there is no word"),
        ("a\tb\n# x\nc\t \n", "line 3: .*no pronunciation"),
        ("a\t/k4t/\n", "line 1: .*'4'"),
        ("a\tb\na\tc\n", "line 2: 'a' stands in line 1"),
        ("a\t" + "b" * 300, "line 1: the respelling"),
        ("x" * 100 + "\tb", "line 1: the word is longer"),
        ("a\t//\n", "line 1"),
        ("a\t...\n", "line 1: the respelling"),
        ("", "no entries"),
        ("# only\n", "no entries"),
        ('{"a": "b",\n "c" 1}', "line 2"),
        ('{"a": 5}', "entry 1 .'a'."),
        ('{"a": "b", "a": "c"}', "'a' stands in it twice"),
        ('{"a": ' + "[" * 100_000, "lexicon"),
        ("<lexicon><lexeme><grapheme>a</grapheme></lexeme></lexicon>", "line 1, column"),
        ("<lexicon>\n<lexeme><grapheme>a</grapheme><phoneme>ʘ</phoneme></lexeme></lexicon>", "line 2, column .*U.0298"),
        ("<lexicon alphabet='x-sampa'/>", "x-sampa"),
        ("<other/>", "begins with <lexicon>"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><lexicon/>", "declarations"),
        ("<lexicon><lexeme></lexicon>", "line 1, column"),
    ],
)
def test_a_bad_line_is_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "own.lex"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        load_lexicon(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_lexicon(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("a\tb\nä\tc\n".encode("latin-1"))
    with pytest.raises(ConfigError, match="line 2: not UTF-8"):
        load_lexicon(tmp_path / "latin")
    with pytest.raises(ConfigError, match="cannot read"):
        load_lexicon(tmp_path / "missing")
    for wrong in (5, ["a"], {"a": 5}, {5: "a"}, {"": "a"}):
        with pytest.raises(ConfigError):
            Lexicon.of(wrong)


@given(st.dictionaries(st.text(min_size=1, max_size=8), st.text(max_size=8), max_size=4), st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_lexicon_is_used_or_refused(values: dict[str, str], text: str) -> None:
    try:
        lexicon = Lexicon.of(values)
    except ConfigError:
        return
    assert lexicon is not None
    stand_ins = StandIns(text)
    applied = lexicon.apply(text + " ".join(values), stand_ins)
    assert "".join(stand_ins.written(applied).split()) == "".join((text + " ".join(values)).split())


def test_a_large_lexicon_costs_as_much_as_what_it_is_asked_for() -> None:
    """Steps, not seconds: a word meets the entries that begin like it, and no pattern is made for others."""
    lexicon = Lexicon.of({f"word{i}": "x" for i in range(20_000)})
    assert lexicon is not None and max(map(len, lexicon._starting.values())) == 1
    made = _pattern.cache_info().misses
    stand_ins = StandIns()
    applied = lexicon.apply("word5 other " * 500, stand_ins)
    assert len(_in_order(applied, stand_ins)) == 500
    assert _pattern.cache_info().misses - made <= 1


def test_with_ssml() -> None:
    """Words outside the elements that say themselves how they are spoken."""
    body = "<speak>SQL and <sub alias='S Q L'>SQL</sub> and <phoneme ph='kæt'>SQL</phoneme>.</speak>"
    assert said(body, {"SQL": "sequel"}, ssml=True) == said("sequel and S Q L and cat.")
