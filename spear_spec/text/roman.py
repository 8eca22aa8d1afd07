"""Roman numerals: of rulers and popes (`Louis XIV`, the fourteenth), of centuries, of parts and bowls."""

from __future__ import annotations

import re

from spear_spec.text import tables
from spear_spec.text.abbreviations import one_of
from spear_spec.text.numbers import cardinal, ordinal, year

_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100, "D": 500, "M": 1000}
_FORM = re.compile(r"M{0,3}(?:CM|CD|D?C{0,3})(?:XC|XL|L?X{0,3})(?:IX|IV|V?I{0,3})")


def roman(text: str) -> int | None:
    """Value of a well-formed Roman numeral, else None."""
    if not text or not _FORM.fullmatch(text):
        return None
    values = [_VALUES[c] for c in text]
    return sum(-v if v < max(values[i + 1 :], default=0) else v for i, v in enumerate(values))


_CENTURY = re.compile(
    rf"\b(?P<roman>[IVXLC]{{2,8}}|[VX]|I(?=[- ](?:cent|dyn|Corps|Legion)))(?:th|st|nd|rd)?"
    rf"(?P<rest>[- ](?:{tables.ORDINAL_BEFORE})\b)"
)
_AND_CENTURY = re.compile(
    rf"\b(?P<roman>[IVXLC]{{2,8}}|[VX])(?P<rest> (?:and|to|or) [a-z]{{3,}}(?:-[a-z]+)? (?:{tables.ORDINAL_BEFORE})\b)"
)
_ORDINAL_FORM = re.compile(r"\b(?P<roman>[IVXLC]{1,8})(?:th|st|nd|rd)\b")
_CUED = re.compile(
    rf"\b(?P<cue>{one_of(tables.NUMBERED)})(?P<point>\.?) (?P<roman>[IVXLC]{{1,8}}|[ivxl]{{1,7}})\b(?!['’]?[a-z])"
)
_LISTED = re.compile(
    rf"\b(?P<cue>(?:{one_of(tables.NUMBERED)})s?) "
    r"(?P<numerals>[IVXLC]{1,8}(?:(?:, (?:and )?| and | or | to | & | ?[–-] ?)[IVXLC]{1,8}\b){1,12})\b(?!['’]?[a-z])"
)
_POINT = re.compile(r"(?<=\()(?P<roman>i{2,3}|iv|vi{1,3}|ix|xi{1,3}|xi?v)(?=\))")  # Section 3(c)(ii)
_NUMERAL = re.compile(r"[IVXLC]+|[–-]")
_RULER = re.compile(
    rf"\b(?P<cue>{one_of(tables.RULERS)}|(?:Pope|King|Queen|Emperor|Tsar|Czar|Prince|Sultan) [A-Z][a-z]+) "
    r"(?P<roman>[IVXL]{1,7})\b(?P<after>'s|’s)?"
)
_PERSON = re.compile(rf"\b(?P<cue>(?:{one_of(tables.RULERS)}) [A-Z][a-z'’]+) (?P<roman>II|III|IV)\b")
_NAMED = re.compile(r"(?P<cue>\b[A-Z][\w'’]*[a-z]\w*|\b[A-Z]{3,}) (?P<roman>[IVXLC]{2,8})\b(?P<point>\.)?")
_HEADING = re.compile(
    r"(?:^\s*|(?<=[.!?:] ))(?:(?P<roman>[IVXL]{2,6})[.,]\s+(?=[A-Z])"
    rf"|(?P<single>[IVX])[.,]\s+(?=(?:{one_of(tables.SECTIONS)})\b))"
)
_CAPITAL_CUE = re.compile(
    rf"\b(?P<cue>{one_of(word.upper() for word in tables.TENTH)}) (?P<roman>[IVXLC]{{1,8}})\b(?!['’]?[a-z])"
)
_YEAR = re.compile(r"\bM[MDCLXVI]{3,12}\b")
_SINGLE_ONE = re.compile(rf"(?:\s+(?:{tables.AFTER_THE_FIRST})\b|\s*[,;:.!?)]|\s*$)")


_TITLE = re.compile(rf"\b(?:{one_of(tables.TITLES)}) $")
_GOES_ON = re.compile(rf" (?!(?:{one_of(tables.NOT_OF_A_RULER)})\b)[a-z]")


def _value(text: str) -> int | None:
    return roman(text.upper())


def _ordinal(match: re.Match[str]) -> str:
    value = _value(match["roman"])
    return match[0] if value is None else ordinal(str(value)) + match.groupdict().get("rest", "")


def _cardinal(match: re.Match[str]) -> str:
    numeral, cue = match["roman"], match["cue"]
    value = _value(numeral)
    if value is None or numeral in ("C", "L", "c", "l") or (numeral == "i" and cue[0].islower()):
        return match[0]
    if numeral in ("X", "x", "v") and cue.lower() not in tables.TENTH:
        return match[0]
    return f"{match['cue']} {cardinal(str(value))}"


def _capital(match: re.Match[str]) -> str:
    value = _value(match["roman"])
    return match[0] if value is None else f"{match['cue']} {cardinal(str(value))}"


def _listed(match: re.Match[str]) -> str:
    """Volumes I–III, Acts I and II."""
    values = [_value(m) for m in re.findall("[IVXLC]+", match["numerals"])]
    if None in values:
        return match[0]
    said = _NUMERAL.sub(lambda m: cardinal(str(_value(m[0]))) if m[0].isalpha() else " to ", match["numerals"])
    return f"{match['cue']} {said}"


def _ruler(match: re.Match[str]) -> str:
    text, numeral = match.string, match["roman"]
    value = _value(numeral)
    following = text[match.end() : match.end() + 20]
    if value is None:
        return match[0]
    if numeral == "I" and not match["after"] and not _SINGLE_ONE.match(following):
        before = text[max(0, match.start() - 12) : match.start()]
        titled = match["cue"].split()[0] in tables.TITLES or _TITLE.search(before) is not None
        if not (titled and _GOES_ON.match(following)):
            return match[0]
    if numeral in ("I", "V", "X", "L") and following.startswith(".") and re.match(r"\.,|\. ?[A-Z]\b", following):
        return match[0]  # an initial
    if numeral == "L" or (numeral == "I" and re.match(r"\.,", following)):
        return match[0]
    return f"{match['cue']} the {ordinal(str(value))}{match['after'] or ''}"


def _person(match: re.Match[str]) -> str:
    value = _value(match["roman"])
    return match[0] if value is None else f"{match['cue']} the {ordinal(str(value))}"


def _named(match: re.Match[str]) -> str:
    value = _value(match["roman"])
    if value is None or match["roman"] in tables.NOT_ROMAN or match["cue"] in tables.STARTERS:
        return match[0]
    return f"{match['cue']} {cardinal(str(value))}{match['point'] or ''}"


def _heading(match: re.Match[str]) -> str:
    value = _value(match["roman"] or match["single"])
    return match[0] if value is None else f"{cardinal(str(value))}, "


def _year(match: re.Match[str]) -> str:
    value = _value(match[0])
    return match[0] if value is None else year(str(value))


def speak_roman(text: str) -> str:
    """Replace Roman numerals by words where they are meant as numbers."""
    if not re.search(r"\b(?:[IVXLCDM]+|[ivxl]+)(?:th|st|nd|rd)?\b", text):
        return text
    text = _POINT.sub(lambda m: cardinal(str(_value(m["roman"]))), text)
    text = _YEAR.sub(_year, _HEADING.sub(_heading, text))
    text = _CENTURY.sub(_ordinal, text)
    text = _AND_CENTURY.sub(_ordinal, text)
    text = _ORDINAL_FORM.sub(_ordinal, text)
    text = _CAPITAL_CUE.sub(_capital, text)
    text = _LISTED.sub(_listed, text)
    text = _CUED.sub(_cardinal, text)
    text = _PERSON.sub(_person, text)
    text = _RULER.sub(_ruler, text)
    return _NAMED.sub(_named, text)
