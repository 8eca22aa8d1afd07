"""Dates and times of day to words, in American order."""

from __future__ import annotations

import re

from spear_spec.text.numbers import cardinal, ordinal, year

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_MONTH_OF = {m[:3].lower(): m for m in MONTHS}
_MONTH = (
    r"(?P<month>Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?\.?|July?\.?|Aug(?:ust|\.)?|"
    r"Sept?(?:ember|\.)?|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)"
)
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])"
_LAST_DAY = r"(?P<last>0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?P<year>[12]\d{3})"
_WEEKDAYS = {"Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday",
             "Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday"}  # fmt: skip
_SURE_DAYS = "Tues|Tue|Wed|Thurs|Thur|Thu|Fri"  # the others are words too
_ANY_DAY = "|".join(sorted(_WEEKDAYS, key=len, reverse=True))
_DASH = r" ?[–—-] ?"


def _month(text: str) -> str:
    return _MONTH_OF[text[:3].lower()]


def _month_day_year(month: str, day: str, year_text: str | None) -> str:
    return f"{month} {ordinal(day)}" + (f", {_year(year_text)}" if year_text else "")


def _year(text: str) -> str:
    return year(text) if len(text) == 4 else cardinal(text) if text[0] != "0" else f"oh {cardinal(text[1])}"


def _named(match: re.Match[str]) -> str:
    groups = match.groupdict()
    return _month_day_year(_month(match["month"]), match["day"], groups.get("year"))


def _named_days(match: re.Match[str]) -> str:
    said = f"{_month(match['month'])} {ordinal(match['day'])} to {ordinal(match['last'])}"
    return said + (f", {_year(match['year'])}" if match["year"] else "")


def _day_first(match: re.Match[str]) -> str:
    return f"{match['article'] or 'the '}{ordinal(match['day'])} of {_month(match['month'])}" + (
        f", {_year(match['year'])}" if match["year"] else ""
    )


def _numeric(match: re.Match[str]) -> str:
    first, second, last, between = int(match["first"]), int(match["second"]), match["year"], match["sep"]
    if len(last) == 2 and between != "/" and not (match["first"][0] == match["second"][0] == "0"):
        return match[0]  # 3.10.12 and 2-6-10 are versions and codes
    if first > 12 >= second:
        first, second = second, first  # day first, as most of the world writes it
    if not (1 <= first <= 12 and 1 <= second <= 31):
        return match[0]
    return _month_day_year(MONTHS[first - 1], str(second), last)


def _without_year(match: re.Match[str]) -> str:
    month, day = int(match["first"]), int(match["second"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{match['cue']} {MONTHS[month - 1]} {ordinal(str(day))}"


def _iso(match: re.Match[str]) -> str:
    month, day = int(match["month"]), int(match["day"])
    ok = 1 <= month <= 12 and 1 <= day <= 31
    return _month_day_year(MONTHS[month - 1], match["day"], match["year"]) if ok else match[0]


def _month_year(match: re.Match[str]) -> str:
    return f"{_month(match['month'])} {_year(match['year'])}"


def _months(match: re.Match[str]) -> str:
    return f"{_month(match['month'])} to {_month(match['last'])}"


def _clock_words(hour: str, minute: str | None, second: str | None, half: str | None, *, first: bool = False) -> str:
    """first: of a range, where the hour alone is enough."""
    value = int(hour)
    spoken = cardinal(str(value))
    if minute and int(minute):
        spoken += f" oh {cardinal(minute[1])}" if minute[0] == "0" else f" {cardinal(minute)}"
    elif not half and minute and not first:
        spoken += " o'clock" if 1 <= value <= 12 else " hundred hours"
    if second:
        spoken += f" and {cardinal(str(int(second)))} seconds"
    return f"{spoken} {half[0].lower()}.m." if half else spoken


def _is_time(hour: str, minute: str | None) -> bool:
    return int(hour) <= 24 and int(minute or "0") <= 59


def _clock(match: re.Match[str]) -> str:
    if not _is_time(match["hour"], match["minute"]):
        return match[0]
    return _clock_words(match["hour"], match["minute"], match["second"], match["half"])


def _hours(match: re.Match[str]) -> str:
    """5:30-6:30 pm, 9-5 pm, 9am-5pm, 10:00–11:00."""
    if not (_is_time(match["hour"], match["minute"]) and _is_time(match["hour2"], match["minute2"])):
        return match[0]
    if not (match["minute"] or match["minute2"] or match["half"] or match["half2"]):
        return match[0]
    exact = match["minute2"] and not match["half2"] and not int(match["minute2"])
    early = match["minute"] if int(match["minute"] or "0") else None
    start = _clock_words(match["hour"], early, None, match["half"], first=True)
    if exact and int(match["hour"]) > 12 and not early:
        start += " hundred"
    return f"{start} to {_clock_words(match['hour2'], match['minute2'], None, match['half2'])}"


def _half(name: str) -> str:
    return rf"(?P<{name}>[ap]\.m\.|[ap]\.?m\b\.?(?=$|[^a-z])|[AP]\.M\.|[AP]M\b)"


_AT = r"(?P<{0}>\d{{1,2}})(?::(?P<{1}>\d\d))?(?: ?{2})?"
_FROM, _TO = _AT.format("hour", "minute", _half("half")), _AT.format("hour2", "minute2", _half("half2"))
_RANGE = rf"(?<![\w:./,$£€-]){_FROM}{_DASH}{_TO}(?![\w:%/-]|[.,]\d)"
_SHORT_MONTH = "Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec"

_RULES = (
    (re.compile(rf"\b{_YEAR}(?P<between>[-/])(?P<month>\d\d)(?P=between)(?P<day>\d\d)(?=\D|$)"), _iso),
    (re.compile(
        r"(?<![\w/.-])(?P<first>\d{1,2})(?P<sep>[/.-])(?P<second>\d{1,2})(?P=sep)(?P<year>[12]\d{3}|\d\d)(?![\w/-]|\."
        r"\d)"), _numeric),
    (re.compile(
        rf"\b(?P<cue>[Oo]n|[Uu]ntil|[Bb]y|[Ss]ince|[Dd]ue|[Dd]ated|[Ww]eek of|(?:{_ANY_DAY})\.?,?"
        r"|[A-Z][a-z]{2,5}day,?) (?P<first>\d{1,2})/(?P<second>\d{1,2})(?![\w/]|\.\d)"), _without_year),
    (re.compile(
        rf"\b{_MONTH} {_DAY}(?:st|nd|rd|th)?{_DASH}{_LAST_DAY}(?:st|nd|rd|th)?(?:,? {_YEAR})?\b(?![:%])"), _named_days),
    (re.compile(rf"\b{_MONTH} {_DAY}(?:st|nd|rd|th)?(?:,? {_YEAR})\b"), _named),
    (re.compile(rf"\b{_MONTH} {_DAY}(?:st|nd|rd|th)?\b(?![:.]\d|[-–]\d)(?!,\d)"), _named),
    (re.compile(
        rf"\b(?P<article>[Tt]he |[Tt]his |[Ee]very |[Aa] )?(?<![\d.,/:-]){_DAY}(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,?"
        rf" {_YEAR})?(?<!\bMay)(?<!\bMarch)(?!\w)"), _day_first),
    (re.compile(
        rf"\b(?P<article>[Tt]he |[Tt]his |[Ee]very |[Aa] )?(?<![\d.,/:-]){_DAY}(?:st|nd|rd|th)?(?: of)? (?P<month>May"
        rf"|March)(?:,? {_YEAR})?\b"), _day_first),
    (re.compile(rf"\b{_MONTH},? {_YEAR}\b"), _month_year),
    (re.compile(rf"\b(?P<month>{_SHORT_MONTH})\.?{_DASH}(?P<last>{_SHORT_MONTH})\b\.?(?!\w)"), _months),
    (re.compile(_RANGE), _hours),
    (re.compile(
        rf"(?<![\w:.])(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?: ?{_half('half')})?"
        r"(?![\w:]|,\d{3})"),
        _clock),
    (re.compile(rf"(?<![\w:.,])(?P<hour>\d{{1,2}})\.(?P<minute>[0-5]\d)(?P<second>) ?{_half('half')}"), _clock),
    (re.compile(r"(?<![\w:.,])(?P<hour>[01]\d|2[0-4])00(?= (?:hours|hrs)\b)"),
        lambda m: f"{'zero ' if m['hour'][0] == '0' else ''}{cardinal(str(int(m['hour'])))} hundred"),
    (re.compile(rf"(?<![\w:.,])(?P<hour>\d{{1,2}})(?P<minute>)(?P<second>) ?{_half('half')}"), _clock),
    (re.compile(
        rf"\b(?P<name>{_ANY_DAY})\.?{_DASH}(?P<last>{_ANY_DAY})\b\.?(?!\w)"),
        lambda m: f"{_WEEKDAYS[m['name']]} to {_WEEKDAYS[m['last']]}"),
    (re.compile(
        rf"\b(?P<name>{_SURE_DAYS})\.(?=\s*$|\s+(?:The|He|She|It|They|We|You|I|This|That|But)\b)"),
        lambda m: _WEEKDAYS[m["name"]] + "."),
    (re.compile(rf"\b(?P<name>{_SURE_DAYS})\.(?!\w)"), lambda m: _WEEKDAYS[m["name"]]),
    (re.compile(
        r"\b(?P<name>Tues|Tue|Wed|Thurs|Thur|Thu|Fri|Mon|Sun)(?=,? (?:\d|Jan|Feb|Mar|Apr|May|Ju[nl]|Aug|Sep|Oct|Nov|D"
        r"ec))"), lambda m: _WEEKDAYS[m["name"]]),
    (re.compile(
        r"\b(?P<name>Mon|Sat|Sun)\.(?=,? [a-z0-9]|,? (?:Jan|Feb|Mar|Apr|May|Ju[nl]|Aug|Sep|Oct|Nov|Dec)|,)"),
        lambda m: _WEEKDAYS[m["name"]]),
    (re.compile(r"(?<=\b[Oo]n )(?P<name>Mon|Sat|Sun)\b(?P<point>\.?)"), lambda m: _WEEKDAYS[m["name"]] + m["point"]),
    (re.compile(
        r"\b(?P<month>Jan|Feb|Aug|Sept?|Oct|Nov|Dec|Apr)\.(?P<end>(?=\s*$))?"),
        lambda m: _month(m["month"]) + ("." if m["end"] is not None else "")),
    (re.compile(r"\b(?P<month>Mar|Jun|Jul)\.(?=,? [a-z0-9])"), lambda m: _month(m["month"])),
)  # fmt: skip


_HALF_LETTER = re.compile(r"(?<![\w:.])(?P<time>\d{1,2}:\d\d)(?P<half>[ap])(?!\w|\.\w)")  # 6:45a
_TO_NOON = re.compile(r"(?:(?<=[ap]\.m\.)|(?<=\d[ap]m))[-–](?=(?:noon|midnight)\b)")
_FROM_NOON = re.compile(r"(?<=\bnoon)[-–](?=\d)")


def speak_dates(text: str) -> str:
    """Replace dates and times of day by words: `Jan. 5, 1999`, `12/05/2024`, `5 January`, `3:45 pm`, `2024-05-12`."""
    text = _HALF_LETTER.sub(r"\g<time> \g<half>m", text)
    text = _FROM_NOON.sub(" to ", _TO_NOON.sub(" to ", text))
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text
