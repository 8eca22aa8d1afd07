"""Digits to words: cardinals, ordinals, decimals, years, ranges, fractions, telephone numbers."""

from __future__ import annotations

import re
from functools import lru_cache

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LONGEST = 15  # beyond a quadrillion nobody follows: the digits are read one by one
_DENOMINATORS = {2: "half", 4: "quarter"}
NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"  # 7, 1,234, 3.14


@lru_cache(maxsize=4096)
def _words(number: int, to: str) -> str:
    from num2words import num2words

    return str(num2words(number, to=to)).replace(" and ", " ").replace(",", "")


def digits(text: str) -> str:
    """`"2024"` -> `"two zero two four"`; anything but digits is left out."""
    return " ".join(_DIGITS[int(c)] for c in text if c.isdecimal())


def cardinal(text: str) -> str:
    """`"1,204"` -> `"one thousand two hundred four"`, `"3.05"` -> `"three point zero five"`."""
    whole, _, fraction = text.replace(",", "").partition(".")
    if len(whole) > _LONGEST or (len(whole) > 1 and whole[0] == "0"):
        spoken = digits(whole)
    else:
        spoken = _words(int(whole or "0"), "cardinal")
    return f"{spoken} point {digits(fraction)}" if fraction else spoken


def ordinal(text: str) -> str:
    """`"21"` -> `"twenty-first"`."""
    plain = text.replace(",", "")
    return digits(plain) if len(plain) > _LONGEST else _words(int(plain), "ordinal")


def year(text: str) -> str:
    """`"1999"` -> `"nineteen ninety-nine"`, `"1905"` -> `"nineteen oh five"`, `"2007"` -> `"two thousand seven"`."""
    number = int(text)
    high, low = divmod(number, 100)
    if not 1000 < number < 10000 or (high % 10 == 0 and low < 10):
        return cardinal(str(number))
    if low == 0:
        return f"{cardinal(str(high))} hundred"
    return f"{cardinal(str(high))} {'oh ' if low < 10 else ''}{cardinal(str(low))}"


def plural(words: str) -> str:
    """Plural of a spoken number: `"ninety"` -> `"nineties"`, `"six"` -> `"sixes"`."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith(("x", "s")) else "s")


def fraction(numerator: str, denominator: str) -> str:
    """`3, 4` -> `"three quarters"`, `1, 3` -> `"one third"`, `22, 7` -> `"twenty-two over seven"`."""
    over, under = int(numerator), int(denominator)
    if under < 2 or under > 20 or over > 99:
        return f"{cardinal(numerator)} over {cardinal(denominator)}"
    name = _DENOMINATORS.get(under) or ordinal(denominator)
    if over != 1:
        name = "halves" if under == 2 else name + "s"
    return f"{cardinal(numerator)} {name}"


_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_ROMAN_FORM = re.compile(r"M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")


def roman(text: str) -> int | None:
    """Value of a well-formed Roman numeral, else None."""
    if not text or not _ROMAN_FORM.fullmatch(text):
        return None
    values = [_ROMAN[c] for c in text]
    return sum(-v if v < max(values[i + 1 :], default=0) else v for i, v in enumerate(values))


def _sign(sign: str) -> str:
    return "minus " if sign else ""


def _decade(match: re.Match[str]) -> str:
    text = match["number"]
    if len(text) == 4 and text.endswith("00"):
        return f"{cardinal(text[:2])} hundreds" if text[1] != "0" else f"{cardinal(text)}s"
    if len(text) == 4:
        return f"{year(text[:2] + '01').split()[0]} {plural(cardinal(text[2:]))}"
    return plural(cardinal(text))


def _is_year(text: str) -> bool:
    return len(text) == 4 and text.isdecimal() and 1100 <= int(text) <= 2099


def _plain(match: re.Match[str]) -> str:
    text = match["number"]
    spoken = year(text) if _is_year(text) and not match["sign"] else cardinal(text)
    return _sign(match["sign"]) + spoken


def _range(match: re.Match[str]) -> str:
    low, high = match["low"], match["high"]
    if low == high:
        return f"{cardinal(low)} {cardinal(high)}"
    if _is_year(low):
        short = len(high) == 2
        return (
            f"{year(low)} to {year(low[:2] + high) if not short else cardinal(high)}"
            if short
            else f"{year(low)} to {year(high)}"
        )
    return f"{cardinal(low)} to {cardinal(high)}"


def _telephone(match: re.Match[str]) -> str:
    groups = re.findall(r"\d+", match[0])
    return ("plus " if match[0].lstrip("(").startswith("+") else "") + ", ".join(digits(g) for g in groups)


_ROMAN_AFTER = (
    r"Chapter|Part|Book|Volume|Vol\.|Act|Scene|Section|Article|Appendix|Phase|Stage|Type|Class|War|Title|Level|Figure|"
    r"Table|Mark|Schedule|Canto|Psalm|Amendment"
)
_REGNAL = (
    r"Henry|Louis|George|Edward|Charles|James|William|Richard|Elizabeth|John|Paul|Pius|Leo|Gregory|Benedict|Philip|"
    r"Frederick|Peter|Catherine|Napoleon|Nicholas|Alexander|Ferdinand|Ivan|Robert|Pope [A-Z][a-z]+|King [A-Z][a-z]+"
)

_RULES = (
    (re.compile(rf"\b(?P<cue>{_ROMAN_AFTER}) (?P<roman>[IVXLC]+)\b"), lambda m: _roman_after(m, cardinal)),
    (re.compile(rf"\b(?P<cue>{_REGNAL}) (?P<roman>[VX]|I(?! [a-z])|[IVXL]{{2,}})\b(?!\.)"), lambda m: _roman_after(m, lambda n: "the " + ordinal(n))),
    # telephone numbers: +1 (555) 123-4567, 555-123-4567, 555-1234
    (re.compile(r"(?<![\w.])(?:\+\d{1,3}[ -.]?)?(?:\(\d{2,4}\)[ -]?|\d{3}[-.])\d{3}[-. ]\d{4}(?!\w)"), _telephone),
    (re.compile(r"(?<!\w)\+\d{1,3}(?:[ -]\d{2,5}){2,5}(?!\w)"), _telephone),
    (re.compile(r"(?<![\w-])\d{3}-\d{4}(?![\w-])"), _telephone),
    # codes: 978-3-16-148410-0
    (re.compile(r"(?<![\w.,-])\d+(?:-\d+){2,}(?![\w-])"), _telephone),
    # version numbers and addresses: 2.0.1, 192.168.0.1
    (re.compile(r"\b(?P<version>[vV])?(?P<parts>\d+(?:\.\d+){2,})\b"),
     lambda m: ("version " if m["version"] else "") + " point ".join(map(cardinal, m["parts"].split(".")))),
    (re.compile(r"\b[vV](?P<number>\d+(?:\.\d+)?)\b"), lambda m: "version " + cardinal(m["number"])),
    # decades: 1990s, the '90s, 80s
    (re.compile(r"(?:['’](?=\d0s))?\b(?P<number>\d{3}0|\d0)['’]?s\b"), _decade),
    (re.compile(r"(?<![\w.,])(?P<number>\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", re.I), lambda m: ordinal(m["number"])),
    (re.compile(r"(?<![\w.,/])24/7(?![\w/])"), lambda m: "twenty-four seven"),
    (re.compile(r"(?<![\w.,/])(?P<whole>\d+)[ -](?P<over>\d{1,2})/(?P<under>\d{1,2})(?![\w/])"),
     lambda m: f"{cardinal(m['whole'])} and {fraction(m['over'], m['under']).replace('one ', 'a ', 1)}"),
    (re.compile(r"(?<![\w.,/])(?P<over>\d{1,3})/(?P<under>\d{1,3})(?![\w/])"), lambda m: fraction(m["over"], m["under"])),
    # ranges: 10-20, 1914–1918; not 555-1234-5 chains
    (re.compile(rf"(?<![\w.,/-])(?P<low>{NUMBER}) ?[–—-] ?(?P<high>{NUMBER})(?![\w/-])"), _range),
    # numbers standing in or beside letters: 5G, MP3, A4, x86 are read as number and letters
    (re.compile(r"(?<=[A-Za-z])(?P<number>\d+)(?=[A-Za-z])"), lambda m: f" {_in_word(m['number'])} "),
    (re.compile(r"(?<=[A-Za-z])-?(?P<number>\d+)(?![\w])"), lambda m: f" {_in_word(m['number'])}"),
    (re.compile(r"(?<![\w.,])(?P<number>\d+(?:\.\d+)?)(?=[A-Za-z])"), lambda m: f"{cardinal(m['number'])} "),
    (re.compile(rf"(?<![\w.])(?P<sign>[-−](?=\d|\.\d))?(?P<number>{NUMBER}|\.\d+)(?!\d)"), _plain),
    (re.compile(r"\d+"), lambda m: f" {digits(m[0])} "),
)  # fmt: skip


def _roman_after(match: re.Match[str], say) -> str:  # type: ignore[no-untyped-def]
    value = roman(match["roman"])
    return match[0] if value is None else f"{match['cue']} {say(str(value))}"


def _in_word(number: str) -> str:
    return (
        cardinal(number)
        if len(number) <= 2 and number[0] != "0"
        else digits(number)
        if len(number) != 3
        else _hundreds(number)
    )


def _hundreds(number: str) -> str:
    """Three digits of a name: 747 -> seven forty-seven, 101 -> one oh one, 500 -> five hundred."""
    if number[0] == "0":
        return digits(number)
    if number[1:] == "00":
        return cardinal(number)
    low = f"oh {cardinal(number[2])}" if number[1] == "0" else cardinal(number[1:])
    return f"{cardinal(number[0])} {low}"


def speak_numbers(text: str) -> str:
    """Replace every number in the text by words; dates, times, money and units were taken before."""
    if not any(c.isdecimal() for c in text) and not re.search(r"\b[IVXLC]+\b", text):
        return text
    text = re.sub(r"[^\W\D]", lambda m: str(int(m[0])), text)  # digits of other scripts
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text
