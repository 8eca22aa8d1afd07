"""Written text to words."""

from __future__ import annotations

import pytest

from spear_spec.text import normalize
from spear_spec.text.normalize import is_speakable
from spear_spec.text.roman import roman

TABLE = [
    # numbers
    ("7 of 1,204 and 3.05", "seven of one thousand two hundred four and three point zero five"),
    ("-5 or .5 or 007", "minus five or zero point five or zero zero seven"),
    ("1st, 22nd and 103rd", "first, twenty-second and one hundred third"),
    ("2,000 men in 2000", "two thousand men in two thousand"),
    ("in 1905, 1984, 1800 and 2024",
     "in nineteen oh five, nineteen eighty-four, eighteen hundred and twenty twenty-four"),
    ("the 1990s and the '80s", "the nineteen nineties and the eighties"),
    ("1914-1918, pages 10–20", "nineteen fourteen to nineteen eighteen, pages ten to twenty"),
    ("3/4 cup, 1 1/2 cups, 1/3", "three quarters cup, one and a half cups, one third"),
    ("version v2.0.1 at 192.168.0.1",
     "version version two point zero point one at "
     "one hundred ninety-two point one hundred sixty-eight point zero point one"),
    ("50-50, 978-3-16-0", "fifty fifty, nine seven eight, three, one six, zero"),
    ("no—go", "no — go"),
    ("call 555-123-4567", "call five five five, one two three, four five six seven"),
    ("+1 (555) 123-4567", "plus one, five five five, one two three, four five six seven"),
    ("Henry VIII, World War II, Chapter IV", "Henry the eighth, World War two, Chapter four"),
    ("Paul L. Bentley and King Sargon I., I think", "Paul L. Bentley and King Sargon I., I think"),
    ("MP3, 5G, B-52, Boeing 747", "MP three, five G, B fifty-two, Boeing seven forty-seven"),
    ("12345678901234567890",
     "one two three four five six seven eight nine zero one two three four five six seven eight nine zero"),
    # dates and times
    ("Jan. 5, 1999", "January fifth, nineteen ninety-nine"),
    ("on 5 January 2010", "on the fifth of January, twenty ten"),
    ("the 4th of July", "the fourth of July"),
    ("12/05/2024 and 31/12/1999", "December fifth, twenty twenty-four and December thirty-first, nineteen ninety-nine"),
    ("2024-05-12", "May twelfth, twenty twenty-four"),
    ("You may 5 times", "You may five times"),
    ("at 3:45 pm or 10 a.m.", "at three forty-five p.m. or ten a.m."),
    ("at 10:00, 14:30 and 9:05 AM", "at ten o'clock, fourteen thirty and nine oh five a.m."),
    # money, percentages, units
    ("$12.50, $1, $0.99, $1.5 million",
     "twelve dollars and fifty cents, one dollar, ninety-nine cents, one point five million dollars"),
    ("£3m, €4.2 billion, 20€, $1,000.00",
     "three million pounds, four point two billion euros, twenty euros, one thousand dollars"),
    ("5% to 7.5 %", "five percent to seven point five percent"),
    ("20°C, -5 °F, 60 mph, 1 km, 10kg",
     "twenty degrees Celsius, minus five degrees Fahrenheit, sixty miles per hour, one kilometer, ten kilograms"),
    ("5'10\" tall, 5-10 km", "five feet ten inches tall, five to ten kilometers"),
    ("5 in the morning", "five in the morning"),
    # abbreviations
    ("Prof. Oak, No. 5, pp. 3-4", "Professor Oak, number five, pages three to four"),
    ("e.g. tea, i.e. leaves, etc.", "for example, tea, that is, leaves, et cetera."),
    ("Buy from Smith, Inc. They sell.", "Buy from Smith, Incorporated. They sell."),
    ("on Main St. near St. John", "on Main Street near Saint John"),
    ("Mr. and Mrs. Smith", "Mr. and Mrs. Smith"),
    ("no. Five came", "no. Five came"),
    # links and marks
    ("see https://www.example.com/a?x=1.", "see w w w dot example dot com slash a question mark x equals one."),
    ("me@foo-bar.org or example.com", "me at foo dash bar dot org or example dot com"),
    ("**bold** and [text](http://x.y)", "bold and text"),
    ("# Title", "Title"),
    ("the #1 song, #winning @bob", "the number one song, hashtag winning at bob"),
    ("2 + 2 = 4 & more", "two plus two equals four and more"),
    # characters
    ("“It’s”\u00a0fine\u200b…", "“It's” fine…"),
    ("naïve café", "naive cafe"),
    ("½ m²", "one half square meter"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "words"), TABLE)
def test_words(text: str, words: str) -> None:
    assert normalize(text)[0] == words


def test_plain_text_is_untouched() -> None:
    text = 'He said, "No -- never!"; she (his wife) did not: why?'
    assert normalize(text) == (text, [])


def test_what_is_guessed_is_named() -> None:
    words, warnings = normalize("Привет 😀 \uea50")
    assert words == "Privet grinning face"
    assert any("Привет"[0] in w for w in warnings)
    assert any("grinning face" in w for w in warnings)
    assert any("U+EA50" in w for w in warnings)


def test_an_accent_is_no_reason_to_warn() -> None:
    assert normalize("Zoë's naïve façade")[1] == []


@pytest.mark.parametrize(
    ("text", "says"),
    [("***", False), ("...", False), ("", False), (" \n", False), ("😀", True), ("7", True), ("日本", True)],
)
def test_speakable(text: str, says: bool) -> None:
    assert is_speakable(text) is says


@pytest.mark.parametrize(
    ("text", "value"), [("IV", 4), ("MCMXCIX", 1999), ("XLII", 42), ("IIII", None), ("VX", None), ("", None)]
)
def test_roman(text: str, value: int | None) -> None:
    assert roman(text) == value


def test_a_terminals_colours_are_not_read() -> None:
    assert normalize("\x1b[31;1mred\x1b[0m \x1b]0;title\x07and plain")[0] == "red and plain"
