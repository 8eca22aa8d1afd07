"""What `say-as` asks for: a text to the words that it is spoken as."""

from __future__ import annotations

import re

from spear_spec.errors import TextError
from spear_spec.text.characters import speak_characters
from spear_spec.text.dates import MONTHS
from spear_spec.text.normalize import normalize
from spear_spec.text.numbers import NUMBER, cardinal, digits, ordinal, quantity, year

# the names of the letters, in the voices' own: `A` alone would be taken for the article
LETTERS = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", (
    "ˈA", "bˈi", "sˈi", "dˈi", "ˈi", "ˈɛf", "ʤˈi", "ˈAʧ", "ˈI", "ʤˈA", "kˈA", "ˈɛl", "ˈɛm", "ˈɛn", "ˈO", "pˈi", "kjˈu",
    "ˈɑɹ", "ˈɛs", "tˈi", "jˈu", "vˈi", "dˈʌbᵊlju", "ˈɛks", "wˈI", "zˈi",
)))  # fmt: skip
_MARKS = {
    "-": "dash", "–": "dash", "—": "dash", ".": "dot", ",": "comma", "!": "exclamation mark", "?": "question mark",
    ":": "colon", ";": "semicolon", "'": "apostrophe", "’": "apostrophe", '"': "quote", "(": "open parenthesis",
    ")": "close parenthesis", "_": "underscore", "*": "asterisk", "~": "tilde", "^": "caret", "\\": "backslash",
    "[": "open bracket", "]": "close bracket", "{": "open brace", "}": "close brace", "|": "vertical bar",
    "<": "less than", ">": "greater than", "…": "dots", "`": "backquote",
}  # fmt: skip
_LONGEST = 500
_PARTS = {"m": r"(?P<m>\d{1,2}|[A-Za-z]{3,9}\.?)", "d": r"(?P<d>\d{1,2})", "y": r"(?P<y>\d{4}|\d{2})"}
DATES = ("mdy", "dmy", "ymd", "ydm", "md", "dm", "ym", "my", "d", "m", "y")
KINDS = ("characters", "spell-out", "verbatim", "cardinal", "number", "ordinal", "digits", "telephone", "date", "time",
         "currency", "fraction", "unit")  # fmt: skip


def say_as(kind: str, text: str, form: str = "") -> str:
    """The words; kind: one of `KINDS` save the three that spell, see `spelled`. form: of a date, such as `mdy`.

    Raises:
        TextError: the kind is not known, or the text is not of that kind.
    """
    text = " ".join(text.split())
    if not text:
        return ""
    if len(text) > _LONGEST:
        raise TextError(f"say-as takes at most {_LONGEST} characters")
    if kind in ("cardinal", "number", "ordinal"):
        return _number(text, kind if kind == "ordinal" else "cardinal")
    if kind == "digits":
        return _checked(", ".join(digits(group) for group in re.findall(r"\d+", text)), text, kind)
    if kind == "telephone":
        return _telephone(text)
    if kind == "date":
        return _date(text, form)
    if kind == "time":
        return _time(text)
    if kind == "fraction":
        match = re.fullmatch(r"([-−]?)((?:\d+[ +-])?\d+/\d+|[\d,]+(?:\.\d+)?)", text)
        if match is None or re.search(r"/0+$", text):
            raise TextError(f"{text[:40]!r} is not a fraction such as 3/4 or 2 1/2")
        return ("minus " if match[1] else "") + quantity(match[2].replace("+", " "))
    if kind in ("currency", "unit"):
        return _checked(normalize(text)[0] if any(c.isdecimal() for c in text) else "", text, kind)
    raise TextError(f"say-as interpret-as {kind[:40]!r} is not known: {', '.join(KINDS)}")


def spelled(text: str) -> list[tuple[str, str, str]]:
    """(character, words, phonemes) of each character that has a name; the phonemes of a letter, "" of others.

    Raises:
        TextError: there are too many.
    """
    if len(text) > _LONGEST:
        raise TextError(f"say-as takes at most {_LONGEST} characters")
    out = []
    for c in text:
        if c.upper() in LETTERS:
            out.append((c, c.upper(), LETTERS[c.upper()]))
        elif not c.isspace():
            words = digits(c) if c.isdecimal() else _MARKS.get(c) or " ".join(speak_characters(c)[0].split())
            if words and any(x.isalpha() for x in words):
                out.append((c, words, ""))
    return out


def _checked(words: str, text: str, kind: str) -> str:
    if not words:
        raise TextError(f"{text[:40]!r} cannot be said as {kind}: it has no digits")
    return words


def _number(text: str, kind: str) -> str:
    match = re.fullmatch(rf"([-−+]?)({NUMBER}|\.\d+)(?:st|nd|rd|th)?", text)
    roman = re.fullmatch("[IVXLCDM]{1,15}", text)
    if match is None and roman is not None:
        from spear_spec.text.roman import roman as value

        found = value(text)
        match = re.fullmatch("()([0-9]+)", str(found)) if found else None
    if match is None or (kind == "ordinal" and "." in match[2]):
        raise TextError(f"{text[:40]!r} is not a number")
    said = ordinal(match[2]) if kind == "ordinal" else quantity(match[2])
    return {"": "", "+": "plus "}.get(match[1], "minus ") + said


def _telephone(text: str) -> str:
    if not re.fullmatch(r"[+(\d][\d ()./+–-]*(?:\s*(?:x|ext\.?)\s*\d+)?", text, re.I) or not re.search(r"\d", text):
        raise TextError(f"{text[:40]!r} is not a telephone number")
    text, _, extension = re.sub(r"(?i)\s*(?:ext\.?|x)\s*", "|", text).partition("|")
    groups = re.findall(r"\d+", text)
    if len(groups) == 1 and len(groups[0]) in (7, 10, 11):
        number = groups[0]
        groups = [number[:-10], number[-10:-7], number[-7:-4], number[-4:]]
    said = ", ".join("eight hundred" if group == "800" else digits(group, "oh") for group in groups if group)
    said = ("plus " if text.startswith("+") else "") + said
    return said + (f", extension {digits(extension, 'oh')}" if extension else "")


def _date(text: str, form: str) -> str:
    form = form.lower()
    if not form:
        return normalize(text)[0]
    if form not in DATES and form != "yyyymmdd":
        raise TextError(f"the format of a date is one of {', '.join(DATES)}, yyyymmdd; not {form[:40]!r}")
    between = r"[\s/.,-]+" if len(form) > 1 else ""
    pattern = r"(?P<y>\d{4})(?P<m>\d\d)(?P<d>\d\d)" if form == "yyyymmdd" else between.join(_PARTS[c] for c in form)
    match = re.fullmatch(pattern, text)
    parts = match.groupdict() if match else {}
    month, day, of_year = parts.get("m"), parts.get("d"), parts.get("y")
    name = _month(month) if month else None
    if match is None or (month and not name) or (day and not 1 <= int(day) <= 31):
        raise TextError(f"{text[:40]!r} is not a date of the form {form}")
    said = " ".join(filter(None, (name, ordinal(day) if day else None)))
    if not of_year:
        return said
    last = year(of_year) if len(of_year) == 4 or of_year[0] != "0" else f"oh {cardinal(of_year[1])}"
    return f"{said}, {last}" if day else f"{said} {last}".strip()


def _month(text: str) -> str | None:
    if text.isdecimal():
        return MONTHS[int(text) - 1] if 1 <= int(text) <= 12 else None
    low = text.lower().rstrip(".")
    return next((month for month in MONTHS if month.lower().startswith(low)), None)


def _time(text: str) -> str:
    match = re.fullmatch(r"(\d{1,2})(?::(\d\d))?(?::(\d\d))?\s*([ap])?\.?(?:m\.?)?", text, re.I)
    spent = re.fullmatch(r"(?:(\d+)\s*[h:])?\s*(?:(\d+)\s*['′m])\s*(?:(\d+)\s*(?:[\"″s]|''))?", text)
    if match is None or int(match[1]) > 24 or int(match[2] or 0) > 59 or int(match[3] or 0) > 59:
        if spent is None:
            raise TextError(f"{text[:40]!r} is not a time such as 3:45 pm or 1'30\"")
        named = [(n, unit) for n, unit in zip(spent.groups(), ("hour", "minute", "second")) if n]
        return " ".join(f"{cardinal(n)} {unit}{'s' * (int(n) != 1)}" for n, unit in named)
    clock = match[1] + (f":{match[2]}" if match[2] else ":00") + (f":{match[3]}" if match[3] else "")
    return normalize(clock + (f" {match[4].lower()}.m." if match[4] else ""))[0]
