"""Abbreviations that are spoken as the words they stand for, and those after which a sentence does not end."""

from __future__ import annotations

import re

# with the point, case as written
_WORDS = {
    "Prof": "Professor", "Gen": "General", "Col": "Colonel", "Maj": "Major", "Lt": "Lieutenant", "Sgt": "Sergeant",
    "Capt": "Captain", "Cpl": "Corporal", "Cmdr": "Commander", "Rev": "Reverend", "Hon": "Honorable", "Sen": "Senator",
    "Rep": "Representative", "Gov": "Governor", "Pres": "President", "Supt": "Superintendent", "Jr": "Junior", "Sr": "Senior",
    "Drs": "Doctors", "Messrs": "Messieurs", "Mt": "Mount", "Ft": "Fort", "Esq": "Esquire",
    "Inc": "Incorporated", "Ltd": "Limited", "Corp": "Corporation", "Bros": "Brothers", "Dept": "Department", "dept": "department",
    "Univ": "University", "Assn": "Association", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Hwy": "Highway",
    "etc": "et cetera", "approx": "approximately", "est": "established", "esp": "especially", "incl": "including",
    "vs": "versus", "cf": "compare", "ca": "circa", "viz": "namely", "misc": "miscellaneous",
    "Mme": "Madame", "Mlle": "Mademoiselle", "Sra": "Señora",
}  # fmt: skip
# only in front of a number
_BEFORE_NUMBER = {
    "No": "number", "no": "number", "Nos": "numbers", "nos": "numbers", "Nr": "number", "Vol": "volume", "vol": "volume",
    "Fig": "figure", "fig": "figure", "Figs": "figures", "Ch": "chapter", "ch": "chapter", "Sec": "section", "sec": "section",
    "Eq": "equation", "eq": "equation", "p": "page", "pp": "pages", "pg": "page", "Art": "article", "art": "article", "Ex": "exhibit",
    "Apt": "apartment", "apt": "apartment", "Rm": "room", "ext": "extension", "Ext": "extension", "Pt": "part",
}  # fmt: skip
# known to the lexicon as they are, or not worth a word of their own
_KEPT = ("Mr", "Mrs", "Ms", "Mx", "Dr", "St", "Co", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sep", "Sept", "Oct", "Nov", "Dec")
# words that often end a sentence although they are abbreviations
_MAY_END = {
    "etc",
    "Inc",
    "Ltd",
    "Corp",
    "Co",
    "Jr",
    "Sr",
    "Ave",
    "Blvd",
    "Rd",
    "Esq",
    "Bros",
    "est",
    "no",
    "art",
    "p",
    "St",
}
NOT_AN_END = frozenset({*_WORDS, *_BEFORE_NUMBER, *_KEPT, *_MONTHS} - _MAY_END - {"Mon", "Sat", "Sun", "Mar"})

_NUMBER_WORD = re.compile(
    rf"\b(?P<name>{'|'.join(sorted(_BEFORE_NUMBER, key=len, reverse=True))})\. ?(?=#?\d|[IVX]+\b)"
)
_WORD = re.compile(
    rf"\b(?P<name>{'|'.join(sorted(map(re.escape, _WORDS), key=len, reverse=True))})\.(?P<after>\s*)(?P<next>.?)"
)
_LATIN = (
    (re.compile(r"\be\. ?g\.,?(?=\W)", re.I), "for example,"),
    (re.compile(r"\bi\. ?e\.,?(?=\W)", re.I), "that is,"),
    (re.compile(r"\ba\.k\.a\.", re.I), "also known as"),
    (re.compile(r"\bw/o\b"), "without"),
    (re.compile(r"\bw/(?=\s)"), "with"),
    (re.compile(r"\b(?P<a>[Aa])nd/or\b"), "and or"),
    (re.compile(r"\bc/o\b"), "care of"),
    (re.compile(r"\bvs\b(?!\.)"), "versus"),
    (re.compile(r"\bn/a\b", re.I), "not applicable"),
)
_STREET = re.compile(r"(?<=[a-z] )St\.(?=\s*(?:$|[,;.]|[a-z]|and\b))")
_DIRECTION = re.compile(r"(?<=\d )(?P<name>[NSEW])\. (?=[A-Z])")
_DIRECTIONS = {"N": "North", "S": "South", "E": "East", "W": "West"}


def _expand(match: re.Match[str]) -> str:
    """The word; the point stays where it also ends the sentence (`... and Sons, Inc. They`)."""
    name, after, following = match["name"], match["after"], match["next"]
    ends = not following or (name in _MAY_END and after and following.isupper())
    return _WORDS[name] + ("." if ends else "") + after + following


def speak_abbreviations(text: str) -> str:
    """Replace abbreviations by words: `Prof.`, `e.g.`, `No. 5`, `Main St.`, `w/o`; `Mr.`, `Dr.` are the lexicon's
    own.
    """
    for pattern, words in _LATIN:
        text = pattern.sub(words, text)
    text = _STREET.sub(lambda m: "Street" if text[m.end() :].strip() else "Street.", text)
    text = _DIRECTION.sub(lambda m: _DIRECTIONS[m["name"]] + " ", text)
    text = _WORD.sub(_expand, text)
    return _NUMBER_WORD.sub(lambda m: _BEFORE_NUMBER[m["name"]] + " ", text)
