"""Abbreviations that are spoken as the words they stand for, and whether a point behind one ends the sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable

from spear_spec.text import tables


def one_of(words: Iterable[str]) -> str:
    """A pattern for any of the words, the longest first."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_STARTER = one_of(tables.STARTERS)
_STARTS = re.compile(rf"\s+[\"'“‘(]*(?:{_STARTER})\b")
_COUNTED = rf"(?:{'|'.join(tables.COUNTED)})\b"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "Jun", "Jul", "Aug", "Sep", "Sept", "Oct", "Nov", "Dec")
_DAYS = ("Mon", "Tue", "Tues", "Wed", "Thu", "Thur", "Thurs", "Fri", "Sat", "Sun")

# ---- the ends of sentences
_NEXT_LOWER = re.compile(r"\s*[\"'“‘(\[]*[a-z]")
_NEXT_NUMBER = re.compile(r"\s*#?(?:\d|[VX]\b|[IVX]{2,}\b)")
_ANY_MONTH = "|".join((*_MONTHS, "May"))
_NEXT_YEAR = re.compile(rf"\s*(?:\d{{3,4}}\b(?!,\d)|\d{{1,2}} (?:{_ANY_MONTH}))")
_LAST_WORD = re.compile(r"(?<![\w.])(?:et )?([\w.]+)\.[\"'”’)\]»*_]*$")
_NAME_BEFORE = re.compile(r"(?:\b[A-Z][\w'’]*|\d(?:st|nd|rd|th))\s+\w+\.\W*$")
_INITIALS = re.compile(r"(?:[A-Z]\.)*[A-Z]")
_HALF_DAY = re.compile(r"[ap]\.m", re.I)
_NEVER = frozenset({*tables.WORDS, *tables.KEPT} - tables.MAY_END)
_WINDOW = 40  # letters looked at to either side of a point


def ends_a_sentence(text: str, start: int, mark: int, end: int) -> bool:
    """Whether the marks at `mark:end` of the text end the sentence that begins at `start`: not those behind an
    abbreviation or initials, nor before a small letter.
    """
    following = text[end : end + _WINDOW]
    if text[mark] != ".":
        return not (text[end - 1] in "\"'”’)" and _NEXT_LOWER.match(following))  # "Why?" he asked.
    if _NEXT_LOWER.match(following):
        return False
    if text.startswith("..", mark):
        return True
    last = _LAST_WORD.search(text[max(start, end - _WINDOW) : end])
    if last is None:
        return True
    word = last[1]
    if word in tables.ALSO_WORDS:
        return not numbers_something(text[max(start, mark - _WINDOW) : mark + 1], following)
    if word in tables.CURRENCY_ALIASES or word in tables.BOOK_NAMES:
        return not _NEXT_NUMBER.match(following)
    if word in tables.BEFORE_YEAR and _NEXT_YEAR.match(following):
        return False
    if word in tables.STREETS:
        named = _NAME_BEFORE.search(text[max(start, end - _WINDOW) : end]) is not None
        return named and (not following.strip() or _STARTS.match(following) is not None)
    if word in tables.BEFORE_NUMBER and word not in tables.MAY_END:
        return not _NEXT_NUMBER.match(following) and (word not in _NEVER or _STARTS.match(following) is not None)
    if word in _NEVER:
        return not following.strip()
    if word in _MONTHS or word in _DAYS:
        return not following.strip() or _STARTS.match(following) is not None
    if _HALF_DAY.fullmatch(word):
        return True
    # J. D. Tippit, the U.S. Army: initials do not end a sentence unless one word that often starts one comes next
    return not (_INITIALS.fullmatch(word) and word != "I" and following.strip() and not _STARTS.match(following))


_KNOWN = frozenset(
    {*_NEVER, *tables.MAY_END, *tables.ALSO_WORDS, *tables.STREETS, *tables.BEFORE_NUMBER, *_MONTHS, *_DAYS}
)


def may_go_on(text: str, mark: int, end: int) -> bool:
    """Whether only the next word tells if the marks at `mark:end` end a sentence: behind abbreviations and quotes."""
    if text[end - 1] in "\"'”’)":
        return True
    if text[mark] != ".":
        return False
    last = _LAST_WORD.search(text[max(0, end - _WINDOW) : end])
    return last is not None and ("." in last[1] or (len(last[1]) == 1 and last[1].isalpha()) or last[1] in _KNOWN)


_SAID = re.compile(rf"\b(?:{one_of(tables.SAYING)}),? [\"“'‘]?no\.$", re.I)
_SAID_NO = re.compile(rf"\b(?:{one_of(tables.SAYING_WITH_NO)}),? [\"“'‘]?no\.$", re.I)
_A_COUNT = re.compile(rf"\s*(?:\d[\d,.]*\d|\d)\s+(?:\w+\s+)?{_COUNTED}")


_THINGS = re.compile(rf"\b(?:{one_of(tables.THINGS)})\.$")
_PIECES = re.compile(rf"\s*\d[\d,.]* (?!(?:{one_of(tables.NOT_COUNTED)})\b)[a-z]{{2,20}}s\b")
_LIMIT = re.compile(r"^\W*M(?:ax|in)\.$|\bmax\.$")
_SAID_OF = re.compile(r"\bno\.$")
_SOME_OF = re.compile(r"\s*(?:\d[\d,.]*\d|\d) of (?:them|us|you|those|these|the \w+s)\b")


def numbers_something(before: str, following: str) -> bool:
    """Whether the `no.`, `art.` at the end of `before` numbers what follows, and is not the word: no answer, no count
    of something (`He said no. 10 minutes later`).
    """
    if not _NEXT_NUMBER.match(following) or _SAID_NO.search(before):
        return False
    if _LIMIT.search(before):
        return True
    if (_THINGS.search(before) and _PIECES.match(following)) or (_SAID_OF.search(before) and _SOME_OF.match(following)):
        return False
    return not (_A_COUNT.match(following) or (_SAID.search(before) and re.match(r"\s*\d{2,} [a-z]", following)))


# ---- the words
_BOOKS = tables.BOOK_NAMES | tables.BOOKS_BEFORE_A_VERSE


def _book(match: re.Match[str]) -> str:
    number = {"1": "First ", "2": "Second ", "3": "Third "}.get(match["number"] or "", "")
    return f"{number}{_BOOKS[match['name']]} "


_LATIN = (
    *(
        (re.compile(r"(?<![\w.])" + re.escape(short).replace(r"\.", r"\. ?", 1) + r",?(?!\w)", re.I), f"{long},")
        for short, long in tables.LATIN.items()
    ),
    *(
        (re.compile(rf"(?<![\w.-]){short}\. ?(?=\d{{3,4}}\b(?!,\d)|\d{{1,2}} (?:{_ANY_MONTH}))"), f"{long} ")
        for short, long in tables.BEFORE_YEAR.items()
    ),
    (re.compile(r"(?<=\dth|\dst|\dnd|\drd) c\.(?=\s)"), " century"),
    (re.compile(r"(?<=\dth|\dst|\dnd|\drd) c\.$"), " century."),
    (re.compile(r"\ba\.k\.a\.|\baka\b", re.I), "also known as"),
    (re.compile(r"\bet al\b\.?(?P<end>(?=\s+[A-Z]))?"), "and others"),
    (re.compile(r"(?<![\w.])P\.P\.S\.:?"), "P P S,"),
    (re.compile(r"(?<![\w.])P\.S\.:?"), "P S,"),
)
_KEY = re.compile(rf"\b(?P<name>{one_of(tables.KEYS)})(?=[ +-])")
_BOOK = re.compile(rf"(?<![\w.])(?:(?P<number>[123]) ?)?(?P<name>{one_of(tables.BOOK_NAMES)})\. (?=\d)")
_SHORT = re.compile(
    rf"(?<![\w/])(?P<name>{one_of(tables.SHORT_FORMS)})(?![\w/]|\.\w)(?!(?<=\bvs)\.|(?<=\battn)\.)", re.I
)
_WORD = re.compile(rf"(?<![\w.])(?P<name>{one_of(tables.WORDS)})\.(?=(?P<after>\s*)(?P<next>\S{{0,12}}))")
_NUMBER_WORD = re.compile(
    rf"(?<![\w.])(?P<name>{one_of(tables.BEFORE_NUMBER)})(?P<point>\.) ?"
    r"(?=#?\d|[IVX]+\b|[A-Z]?\d|[A-Z]{1,5}-?\d|[A-Z]\b(?!\.))"
)
_CHAT = re.compile(
    rf"(?<![\w.@#/'’-])(?P<name>{one_of((*tables.CHAT, *(n.capitalize() for n in tables.CHAT if len(n) > 2)))})"
    r"(?![\w@/'’-]|\.\w)"
)
_TIS = re.compile(r"(?<!\w)['‘’]tis\b", re.I)
_AND = re.compile(r"(?<=[a-z]) ['‘’]n['’] (?=[a-z])(?<!\brock 'n' )", re.I)
_SUBJECT = re.compile(rf"(?<![\w.])(?P<name>{one_of(tables.SUBJECTS)}):(?= )")
_DOSE = re.compile(rf"(?<![\w.])(?P<name>{one_of(tables.DOSES)})(?P<end>\s*$|(?=\s+[A-Z]))?(?!\w)")
_SIZE = re.compile(rf"(?<=\d )(?P<name>{one_of(tables.SIZES)})\.(?= [a-z])")
_LEAST = re.compile(rf"(?<![\w.])(?P<name>[Mm]in|[Mm]ax)\. (?=(?:{one_of(tables.LIMITED)})\b)")
_VERSE = re.compile(
    rf"(?<![\w.])(?:(?P<number>[123]) ?)?(?P<name>{one_of(tables.BOOKS_BEFORE_A_VERSE)})\. (?=\d{{1,3}}:\d)"
)
_POINT = r"\b(?P<end>\.(?=\s*$)|)\.?"  # it stays where it ends the text
_BESIDE = (  # where the words around it tell
    (re.compile(r"(?<=\d) ea" + _POINT), " each"),
    (re.compile(r"(?<=[Bb]y )vol" + _POINT), "volume"),
    (re.compile(r"(?<=[Bb]y )wt" + _POINT), "weight"),
    (re.compile(r"(?<=\dst |\dnd |\drd |\dth )fl" + _POINT), "floor"),
    (
        re.compile(r"(?:(?<=\b[Pp]age )|(?<=\b[Pp]ages ))(?P<page>\d{1,4}) ?ff?" + _POINT),
        r"\g<page> and following",
    ),
)
_STATE = re.compile(rf"(?<=[a-z], )(?P<name>{one_of(tables.STATE_POINTS)})\.")
_STATE_CODE = re.compile(
    rf"(?<=[a-z],) (?P<name>{one_of(tables.STATES)})(?P<zip>,? \d{{5}})?\b(?![.\w-])"
    rf"|(?<=[a-z]) (?P<bare>{one_of(tables.STATES)})(?= \d{{5}}\b)"
)
_DIRECTION = re.compile(rf"(?<=\d )(?P<name>{one_of(tables.DIRECTIONS)})\.? (?=[A-Z0-9])")
_ANY_STREET = one_of({*tables.STREETS, *tables.STREETS.values()})
_DIRECTION_FIRST = re.compile(rf"\b(?P<name>{one_of(tables.DIRECTIONS)})\. (?=[A-Z][\w'’]* (?:{_ANY_STREET})\b)")
_DIRECTION_AFTER = re.compile(
    rf"(?P<street>\b(?:{one_of(tables.STREETS)})\.?|\b(?:{one_of(tables.STREETS.values())}),?) "
    rf"(?P<name>{one_of(tables.DIRECTIONS)})\b(?!\.?\w)"
)
_STREET = re.compile(
    rf"(?P<name>\b[A-Z][\w'’]*|\b\d+(?:st|nd|rd|th)) (?P<type>{one_of(tables.STREETS)})(?P<point>\.)?(?![\w'’.])"
)
_SURE_STREETS = set(tables.STREETS) - tables.STREETS_AFTER_A_NAME - {"Bldg"}
_ALWAYS = re.compile(rf"\b(?P<type>{one_of(_SURE_STREETS)})(?P<point>\.|\b)(?!\w)")
_SAINT = re.compile(r"\bSt\.? ?(?=[A-Z][a-z])")
_SAINTE = re.compile(r"\bSte\. ?(?=[A-Z][a-z])")
_LONELY_STREET = re.compile(r"\bSt\.(?!\w)")
_NEXT_WORD = re.compile(r"\s+(?P<word>[A-Z][\w'’]*)")


def _chat(match: re.Match[str]) -> str:
    name = match["name"]
    said = tables.CHAT[name.lower()]
    return said if name.islower() else said[0].upper() + said[1:]


def _dose(match: re.Match[str]) -> str:
    return tables.DOSES[match["name"]] + ("." if match["end"] is not None else "")


def _expand(match: re.Match[str]) -> str:
    """The word; the point stays where it also ends the sentence (`... and Sons, Inc. They`)."""
    name, after, following = match["name"], match["after"], match["next"]
    ends = not following or (name in tables.MAY_END and bool(after) and following[0].isupper())
    return tables.WORDS[name] + ("." if ends else "")


def _street(match: re.Match[str]) -> str:
    """`Main St.`, `Elm Dr` to words, unless it is Saint or Doctor that is meant."""
    name, kind, text = match["name"], match["type"], match.string
    following = _NEXT_WORD.match(text, match.end())
    word = following["word"] if following else ""
    starts = word in tables.STARTERS
    if name in tables.STARTERS or name in tables.NO_STREET_NAME:
        return match[0]
    if kind == "St" and word and not starts and (word.removesuffix("'s").removesuffix("’s") in tables.SAINTS):
        return match[0]
    if kind in ("Dr", "Fr") and word and not (starts and match["point"]):
        return match[0]
    if kind in tables.STREETS_AFTER_A_NAME and not match["point"] and word and kind != "St":
        return match[0]
    ends = match["point"] and (starts or not text[match.end() :].strip())
    return f"{name} {tables.STREETS[kind]}" + ("." if ends else "")


def _kind_of_road(match: re.Match[str]) -> str:
    rest = match.string[match.end() :]
    ends = match["point"] == "." and (not rest.strip() or _STARTS.match(rest))
    return tables.STREETS[match["type"]] + ("." if ends else "")


def _numbered(match: re.Match[str]) -> str:
    text, name = match.string, match["name"]
    before, following = (
        text[max(0, match.start() - _WINDOW) : match.start("point") + 1],
        text[match.end() : match.end() + _WINDOW],
    )
    if name in tables.ALSO_WORDS and not numbers_something(before, following):
        return match[0]
    if name in tables.NEEDS_A_DIGIT and not following[:1].isdigit():
        return match[0]
    return tables.BEFORE_NUMBER[name] + " "


def _state(match: re.Match[str]) -> str:
    return f" {tables.STATES[match['name'] or match['bare']]}" + (match["zip"] or "")


def speak_abbreviations(text: str) -> str:
    """Replace abbreviations by words: `Prof.`, `e.g.`, `No. 5`, `Main St.`, `w/o`; `Mr.`, `Dr.` are the lexicon's
    own.
    """
    text = _CHAT.sub(_chat, text)
    text = _AND.sub(" and ", _TIS.sub("tizz", text))  # not `tease`
    if "." not in text and "/" not in text and not any(c.isupper() for c in text):
        return text
    text = _SUBJECT.sub(lambda m: tables.SUBJECTS[m["name"]] + ":", text)
    text = _DOSE.sub(_dose, text)
    for pattern, words in _LATIN:
        text = pattern.sub(words, text)
    text = _KEY.sub(lambda m: tables.KEYS[m["name"]], text)
    text = _VERSE.sub(_book, text)
    text = _BOOK.sub(_book, text)
    text = _SHORT.sub(lambda m: tables.SHORT_FORMS.get(m["name"].lower(), m["name"]), text)
    text = _STATE.sub(lambda m: tables.STATE_POINTS[m["name"]], text)
    text = _STATE_CODE.sub(_state, text)
    text = _DIRECTION.sub(lambda m: tables.DIRECTIONS[m["name"]] + " ", text)
    text = _DIRECTION_FIRST.sub(lambda m: tables.DIRECTIONS[m["name"]] + " ", text)
    text = _DIRECTION_AFTER.sub(lambda m: f"{m['street']} {tables.DIRECTIONS[m['name']]}", text)
    text = _SIZE.sub(lambda m: tables.SIZES[m["name"]], text)
    text = _LEAST.sub(lambda m: m["name"] + "imum ", text)
    text = _NUMBER_WORD.sub(_numbered, text)
    for pattern, words in _BESIDE:
        text = pattern.sub(rf"{words}\g<end>", text)
    text = _STREET.sub(_street, text)
    text = _ALWAYS.sub(_kind_of_road, text)
    text = _SAINTE.sub("Sainte ", text)
    text = _SAINT.sub("Saint ", text)
    text = _LONELY_STREET.sub(lambda m: "Street" if text[m.end() :].strip() else "Street.", text)
    return _WORD.sub(_expand, text)
