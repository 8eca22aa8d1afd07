"""Dates and times of day to words, in American order."""

from __future__ import annotations

import re

from spear_spec.text.numbers import cardinal, ordinal, year

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_MONTH_OF = {m[:3].lower(): m for m in MONTHS}
_MONTH = r"(?P<month>Jan(?:uary|\.)?|Feb(?:ruary|\.)?|Mar(?:ch|\.)?|Apr(?:il|\.)?|May|June?\.?|July?\.?|Aug(?:ust|\.)?|Sept?(?:ember|\.)?|Oct(?:ober|\.)?|Nov(?:ember|\.)?|Dec(?:ember|\.)?)"
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])"
_YEAR = r"(?P<year>[12]\d{3})"
_WEEKDAYS = {"Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday",
             "Thur": "Thursday", "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday"}  # fmt: skip


def _month_day_year(month: str, day: str, year_text: str | None) -> str:
    return f"{month} {ordinal(day)}" + (f", {_year(year_text)}" if year_text else "")


def _year(text: str) -> str:
    return year(text) if len(text) == 4 else cardinal(text) if text[0] != "0" else f"oh {cardinal(text[1])}"


def _named(match: re.Match[str]) -> str:
    groups = match.groupdict()
    return _month_day_year(_MONTH_OF[match["month"][:3].lower()], match["day"], groups.get("year"))


def _day_first(match: re.Match[str]) -> str:
    month = _MONTH_OF[match["month"][:3].lower()]
    the = "" if match["the"] else "the "
    return f"{match['the'] or ''}{the}{ordinal(match['day'])} of {month}" + (
        f", {_year(match['year'])}" if match["year"] else ""
    )


def _numeric(match: re.Match[str]) -> str:
    first, second, last = int(match["first"]), int(match["second"]), match["year"]
    if first > 12 >= second:
        first, second = second, first  # day first, as most of the world writes it
    if not (1 <= first <= 12 and 1 <= second <= 31):
        return match[0]
    return _month_day_year(MONTHS[first - 1], str(second), last)


def _iso(match: re.Match[str]) -> str:
    month = int(match["month"])
    return _month_day_year(MONTHS[month - 1], match["day"], match["year"]) if 1 <= month <= 12 else match[0]


def _month_year(match: re.Match[str]) -> str:
    return f"{_MONTH_OF[match['month'][:3].lower()]} {_year(match['year'])}"


def _clock(match: re.Match[str]) -> str:
    hour, minute = int(match["hour"]), match["minute"]
    if hour > 24 or (minute and int(minute) > 59):
        return match[0]
    half = match["half"]
    spoken = cardinal(str(hour))
    if minute and int(minute):
        spoken += f" oh {cardinal(minute[1])}" if minute[0] == "0" else f" {cardinal(minute)}"
    elif not half:
        spoken += " o'clock" if 1 <= hour <= 12 else " hundred hours"
    if match["second"]:
        spoken += f" and {cardinal(str(int(match['second'])))} seconds"
    if half:
        spoken += f" {half[0].lower()}.m."
    return spoken


_HALF = r"(?P<half>[ap]\.m\.|[ap]\.?m\b\.?(?=$|[^a-z])|[AP]\.M\.|[AP]M\b)"

_RULES = (
    (re.compile(rf"\b{_YEAR}-(?P<month>\d\d)-(?P<day>\d\d)(?=\D|$)"), _iso),
    (re.compile(r"(?<![\w/.-])(?P<first>\d{1,2})(?P<sep>[/.-])(?P<second>\d{1,2})(?P=sep)(?P<year>[12]\d{3}|\d\d)(?![\w/-])"), _numeric),
    (re.compile(rf"\b{_MONTH} {_DAY}(?:st|nd|rd|th)?(?:,? {_YEAR})\b"), _named),
    (re.compile(rf"\b{_MONTH} {_DAY}(?:st|nd|rd|th)?\b(?![:.]\d)(?!,\d)"), _named),
    (re.compile(rf"\b(?P<the>the )?{_DAY}(?:st|nd|rd|th)?(?: of)? {_MONTH}(?:,? {_YEAR})?\b(?<!\bMay)(?<!\bMarch)", re.I), _day_first),
    (re.compile(rf"\b(?P<the>the )?{_DAY}(?:st|nd|rd|th)?(?: of)? (?P<month>May|March)(?:,? {_YEAR})?\b"), _day_first),
    (re.compile(rf"\b{_MONTH},? {_YEAR}\b"), _month_year),
    (re.compile(rf"(?<![\w:.])(?P<hour>\d{{1,2}}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?: ?{_HALF})?(?![\w:])"), _clock),
    (re.compile(rf"(?<![\w:.,])(?P<hour>\d{{1,2}})(?P<minute>)(?P<second>) ?{_HALF}"), _clock),
    (re.compile(r"\b(?P<name>" + "|".join(_WEEKDAYS) + r")\.(?=,? [A-Z0-9])"), lambda m: _WEEKDAYS[m["name"]]),
    (re.compile(r"\b(?P<month>Jan|Feb|Aug|Sept?|Oct|Nov|Dec)\."), lambda m: _MONTH_OF[m["month"][:3].lower()]),
)  # fmt: skip


def speak_dates(text: str) -> str:
    """Replace dates and times of day by words: `Jan. 5, 1999`, `12/05/2024`, `5 January`, `3:45 pm`, `2024-05-12`."""
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text
