"""Lines of the input: what is taken, and what is refused before anything is spoken."""

from __future__ import annotations

import json

import pytest

from spear_spec.bulk.lines import Line, parse_lines
from spear_spec.errors import TextError


def test_everything_a_line_can_say() -> None:
    text = json.dumps({"id": "a.b-c_1", "text": " Hello. ", "speaker": "x", "seed": 2**64 - 1, "speed": 2, "top_k": 5})
    [line] = parse_lines(text, jsonl=True, speakers=["x"])
    assert line == Line(1, "a.b-c_1", " Hello. ", "x", 2**64 - 1, 2, None, {"top_k": 5})
    assert Line(**line.to_dict()) == line


def test_blank_lines_keep_their_number() -> None:
    written = '{"text": "A."}\n\n{"text": "B\u2028b."}\n{"id": 7, "text": "C."}\n'
    lines = parse_lines(written, jsonl=True)
    assert [(line.number, line.id, line.text) for line in lines] == [
        (1, "000", "A."), (3, "002", "B\u2028b."), (4, "7", "C."),
    ]  # fmt: skip
    assert [(line.number, line.id) for line in parse_lines("A.\n\nB.\n", jsonl=False)] == [(1, "000"), (3, "002")]
    assert parse_lines("\n".join(["A."] * 1001), jsonl=False)[-1].id == "1000"
    assert parse_lines("\n".join(["A."] * 1001), jsonl=False)[0].id == "0000"


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 10**5, "line 2: not JSON"),
        ("[]", "line 2: must be an object"),
        ('{"id": "a"}', "has no text"),
        ('{"text": 3}', "text must be a string"),
        ('{"text": " "}', "text is empty"),
        ('{"text": "\\ud800"}', "surrogate"),
        ('{"text": "B.", "speeker": "x"}', "unknown key 'speeker'"),
        ('{"text": "B.", "speaker": "y"}', "no speaker 'y'"),
        ('{"text": "B.", "speaker": ["x"]}', "speaker must be a name"),
        ('{"text": "B.", "seed": -1}', "seed"),
        ('{"text": "B.", "seed": 1.5}', "seed"),
        ('{"text": "B.", "speed": 9}', "speed"),
        ('{"text": "B.", "speed": NaN}', "speed"),
        ('{"text": "B.", "speed": true}', "speed"),
        ('{"text": "B.", "temperature": "hot"}', "temperature"),
        ('{"text": "B.", "max_tokens": 0}', "max_tokens"),
        ('{"text": "B.", "id": "000"}', "is that of line 1"),
        ('{"text": "B.", "id": "../etc"}', "cannot name a file"),
        ('{"text": "B.", "id": "a/b"}', "cannot name a file"),
        ('{"text": "B.", "id": "a\\\\b"}', "cannot name a file"),
        ('{"text": "B.", "id": ".."}', "cannot name a file"),
        ('{"text": "B.", "id": "-rf"}', "cannot name a file"),
        ('{"text": "B.", "id": "a\\n"}', "cannot name a file"),
        ('{"text": "B.", "id": "a\\u0000"}', "cannot name a file"),
        ('{"text": "B.", "id": ""}', "cannot name a file"),
        ('{"text": "B.", "id": true}', "cannot name a file"),
        ('{"text": "B.", "id": "%s"}' % ("a" * 101), "cannot name a file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(written: str, said: str) -> None:
    with pytest.raises(TextError) as caught:
        parse_lines('{"text": "A."}\n' + written + "\n", jsonl=True, name="big.jsonl", speakers=["x"])
    assert said in str(caught.value)
    assert (
        "big.jsonl" in str(caught.value) and "line 2" in str(caught.value) and "Nothing was spoken" in str(caught.value)
    )
    assert len(str(caught.value)) < 400


def test_names_that_are_one_in_some_folders() -> None:
    with pytest.raises(TextError, match="some folders"):
        parse_lines('{"text": "A.", "id": "Ab"}\n{"text": "A.", "id": "aB"}', jsonl=True)


def test_many_mistakes_are_counted() -> None:
    with pytest.raises(TextError, match="and 95 more lines"):
        parse_lines("{}\n" * 100, jsonl=True)


def test_nothing() -> None:
    for jsonl in (False, True):
        with pytest.raises(TextError, match="holds no text"):
            parse_lines("\n \n", jsonl=jsonl)
