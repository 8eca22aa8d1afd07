"""Digits to words: cardinals, ordinals, decimals, years, ranges, fractions, telephone numbers."""

from __future__ import annotations

import re
from functools import lru_cache

from spear_spec.text import tables

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LONGEST = 15  # beyond a quadrillion nobody follows: the digits are read one by one
_DENOMINATORS = {2: "half", 4: "quarter"}
NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"  # 7, 1,234, 3.14
QUANTITY = rf"(?:\d{{1,2}}/\d{{1,2}}(?![\d/])|{NUMBER}(?:[ -]\d{{1,2}}/\d{{1,2}}(?![\d/]))?)"  # also 1/2, 3 1/2


@lru_cache(maxsize=4096)
def _words(number: int, to: str) -> str:
    from num2words import num2words

    return str(num2words(number, to=to)).replace(" and ", " ").replace(",", "")


def digits(text: str, zero: str = "zero") -> str:
    """`"2024"` -> `"two zero two four"`; anything but digits is left out."""
    return " ".join(_DIGITS[int(c)] if c != "0" else zero for c in text if c.isdecimal())


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


def quantity(text: str) -> str:
    """A number that may hold a fraction: `"3 1/2"` -> `"three and a half"`, `"3/4"` -> `"three quarters"`."""
    match = re.fullmatch(r"(?:(?P<whole>[\d,.]+)[ -])?(?P<over>\d+)/(?P<under>\d+)", text)
    if match is None:
        return f"zero{cardinal('0' + text)[4:]}" if text.startswith(".") else cardinal(text)
    part = fraction(match["over"], match["under"])
    return f"{cardinal(match['whole'])} and {re.sub('^one ', 'a ', part)}" if match["whole"] else part


def _sign(sign: str) -> str:
    return "minus " if sign else ""


def _decade(match: re.Match[str]) -> str:
    text = match["number"]
    if len(text) == 4 and text.endswith("00"):
        return f"{cardinal(text[:2])} hundreds" if text[1] != "0" else f"{cardinal(text)}s"
    if len(text) == 4:
        return f"{cardinal(text[:2])} {plural(cardinal(text[2:]))}"
    return plural(cardinal(text))


def _is_year(text: str) -> bool:
    return len(text) == 4 and text.isdecimal() and 1100 <= int(text) <= 2099


def _plain(match: re.Match[str]) -> str:
    text = match["number"]
    spoken = year(text) if _is_year(text) and not match["sign"] else quantity(text)
    return _sign(match["sign"]) + spoken


def _range(match: re.Match[str]) -> str:
    low, high = match["low"], match["high"]
    if low == high:
        drawn = int(low) < 20 if low.isdecimal() else False
        said = re.search(
            rf"\b(?:{'|'.join(tables.DRAWN)})\b", match.string[max(0, match.start() - 60) : match.end() + 20]
        )
        return f"{cardinal(low)} {'to ' if drawn and said else ''}{cardinal(high)}"
    if _is_year(low):
        return f"{year(low)} to {cardinal(high) if len(high) == 2 else year(high)}"
    return f"{cardinal(low)} to {cardinal(high)}"


def _telephone(match: re.Match[str]) -> str:
    groups = re.findall(r"\d+", match[0])
    plus = "plus " if match[0].lstrip("(").startswith("+") else ""
    return plus + ", ".join(map(_group, groups))


def _group(number: str) -> str:
    return "eight hundred" if number == "800" else digits(number, "oh")


def _unpunctuated_telephone(match: re.Match[str]) -> str:
    number = match["number"]
    lead, number = (number[:-10], number[-10:]) if len(number) > 10 else ("", number)
    groups = [lead, number[:-7], number[-7:-4], number[-4:]]
    return (match.groupdict().get("cue") or "") + ", ".join(_group(g) for g in groups if g)


def _code(match: re.Match[str]) -> str:
    groups = re.findall(r"\d+", match[0])
    if all(len(g) < 3 and g[0] != "0" for g in groups):
        return ", ".join(map(cardinal, groups))  # they are 12-4-1, a formation of 4-4-2
    return ", ".join(map(digits, groups))


def _zip(match: re.Match[str]) -> str:
    more = match["more"]
    return f"{match['cue']}{digits(match['number'], 'oh')}" + (f", {digits(more, 'oh')}" if more else "")


def _one_by_one(match: re.Match[str]) -> str:
    return f"{match['cue']}{digits(match['number'], 'oh' if len(match['number']) == 3 else 'zero')}"


def _called(match: re.Match[str]) -> str:
    """Flight 370, Room 101, Flight 1549: in pairs."""
    number = match["number"]
    return match["cue"] + (
        _hundreds(number) if len(number) == 3 else year(number) if number[0] != "0" else digits(number)
    )


def _house(match: re.Match[str]) -> str:
    number, door = match["number"], match["door"]
    dated = _is_year(number) and _IN_A_YEAR.search(match.string[max(0, match.start() - 10) : match.start()])
    said = year(number) if dated else in_pairs(number)
    return f"{said} {door}" if door else said


def _members(number: str) -> str:
    """49ers."""
    return number + ("rs" if number.endswith("e") else "ers")


_IN_A_YEAR = re.compile(r"\b(?:in|since|by|until|before|after|of) $", re.I)


def _signs(match: re.Match[str]) -> str:
    """A code sign by sign, with a pause between its groups."""
    groups = re.findall(r"[A-Z\d]+", match["code"])
    return match["cue"] + ", ".join(" ".join(digits(c) if c.isdecimal() else c for c in group) for group in groups)


def _hexadecimal(match: re.Match[str]) -> str:
    return "zero x " + " ".join(digits(c) if c.isdecimal() else c.upper() for c in match["number"])


_CHESS = {"x": "takes", "+": "check", "++": "double check", "#": "mate"}


def _move(match: re.Match[str]) -> str:
    """`Qxd5+` -> `Q takes D five check`; `Ba2+` is an ion."""
    who, takes, to, becomes, mark = (match[g] for g in ("who", "takes", "to", "becomes", "mark"))
    ion = mark == "+" and who + to[0] in tables.ELEMENTS
    if not (takes or becomes or (mark and who and not ion)):
        return match[0]
    said = [*who, "takes" if takes else "", *to, f"promotes to {becomes}" if becomes else "", _CHESS.get(mark, "")]
    return " ".join(cardinal(word) if word.isdecimal() else word.upper() if len(word) == 1 else word for word in said)


def _over(match: re.Match[str]) -> str:
    """`3/4` a fraction, `50/50` and `80/20` as they are, `8/10` a rating."""
    over, under, text = match["over"], match["under"], match.string
    whole = f"{over}/{under}"
    around = text[max(0, match.start() - 40) : match.end() + 20]
    if match.groupdict().get("th"):
        said = f"{cardinal(over)} {ordinal(under)}"
        return said if over == "1" else said + "s"
    if len(over) == 3 and 40 <= int(under) <= 120 and re.search(r"\b(?:BP|[Pp]ressure)\b", around):
        return f"{_hundreds(over)} over {cardinal(under)}"
    if over == "20" and re.search(r"\b(?:vision|eyesight|sight|eyes?)\b", around, re.I):
        return f"{cardinal(over)} {cardinal(under)}"
    if under in ("5", "10", "100") and re.match(rf" (?:{'|'.join(tables.OUT_OF)})\b", text[match.end() :]):
        return f"{cardinal(over)} out of {cardinal(under)}"
    if whole in tables.NUMBERS_BY_NAME:
        return tables.NUMBERS_BY_NAME[whole]
    if under in ("2", "4", "8", "16") and (
        re.match(rf"[ -](?:{'|'.join(tables.METERS)})\b", text[match.end() :])
        or re.search(r"\btime signature\b[^.]{0,12}$", text[max(0, match.start() - 40) : match.start()])
    ):
        return f"{cardinal(over)} {cardinal(under)}"
    rated = re.search(rf"\b(?:{'|'.join(tables.RATED)})\b", text[max(0, match.start() - 40) : match.start()], re.I)
    if under in ("5", "10", "100") and (rated or over == under):
        return f"{cardinal(over)} out of {cardinal(under)}"
    if over == under or (int(over) + int(under) == 100 and len(over) == 2 and int(under) >= 10):
        return f"{cardinal(over)} {cardinal(under)}"
    return fraction(over, under)


def _versions(match: re.Match[str]) -> str:
    version = match.groupdict().get("version")
    return ("version " if version else match.groupdict().get("cue") or "") + " point ".join(
        map(cardinal, match["parts"].split("."))
    )


def _short_year(match: re.Match[str]) -> str:
    number = match["number"]
    if number[0] != "0":
        return cardinal(number)
    return "oh oh" if number == "00" else f"oh {cardinal(number[1])}"


def _letter_decimal(match: re.Match[str]) -> str:
    whole, _, part = match["number"].partition(".")
    said = cardinal(part) if len(part) == 2 and part[0] != "0" else digits(part)
    return f" {cardinal(whole)} point {said}"


def _formula(match: re.Match[str]) -> str:
    """CO2, H2SO4: element symbols and counts, letter by letter."""
    parts = re.findall(r"[A-Z][a-z]?|\d+", match[0])
    symbols = [p for p in parts if not p.isdigit()]
    if any(s not in tables.ELEMENTS for s in symbols) or (len(symbols) == 1 and len(symbols[0]) > 1):
        return match[0]
    return " ".join(cardinal(p) if p.isdigit() else " ".join(p.upper()) for p in parts)


def _verse(match: re.Match[str]) -> str:
    last = f" to {cardinal(match['last'])}" if match["last"] else ""
    return f"{match['cue']}{cardinal(match['low'])} {cardinal(match['high'])}{last}"


def _pair(match: re.Match[str]) -> str:
    low, high = (year(n) if len(n) == 4 else cardinal(n) for n in (match["low"], match["high"]))
    return f"{low} by {high}"


_AMOUNT_BEFORE = r"(?<![\w.,/])"
_PHONE = "|".join(tables.PHONE_WORDS)
_NAMES = "|".join(sorted(set(tables.VERSIONED), key=len, reverse=True))
_CALLED = "|".join(sorted(tables.CALLED, key=len, reverse=True))
_ROADS = "|".join(sorted({*tables.STREETS.values(), "Way", "Row", "Broadway", "Walk", "Loop"}))
_STATES = "|".join([*tables.STATES.values(), *tables.STATES])

_SALT = re.compile(rf"(?<![\w-])(?:{'|'.join(sorted(tables.FORMULAS))})(?![\w-])")

_RULES = (
    # codes of their own kind: ISSN 2049-3630, 0xFF
    (re.compile(
        rf"(?P<cue>\b(?:{'|'.join(sorted(tables.SPELLED_CODES))})(?: number| no\.?| is|:)*(?:-1[03]:?)? )"
        r"(?P<code>[A-Z]{0,4}\d(?:[ -]?[A-Z\d]){3,40})(?![\w])"), _signs),
    (re.compile(r"\b0x(?P<number>[0-9A-Fa-f]{1,16})\b"), _hexadecimal),
    (re.compile(
        r"(?<![\w-])(?P<who>[KQRBN][a-h]?[1-8]?|[a-h](?=x|[1-8]=)|)(?P<takes>x)?(?P<to>[a-h][1-8])(?:=(?P<becomes>[QRBN]))?"
        r"(?P<mark>\+{1,2}|#)?(?![\w+])"), _move),
    (re.compile(
        r"(?P<cue>\b(?:hit|hits|hitting|bat|bats|batted|batting|slugging|slugged|averaging|average of) )"
        r"\.(?P<number>\d{3})(?!\w)"), lambda m: m["cue"] + _hundreds(m["number"])),
    (re.compile(r"(?<![\w.,])(?P<number>\d{2})ers\b"), lambda m: _members(cardinal(m["number"]))),
    # ZIP codes, three-digit numbers that one dials, numbers that are spelled
    (re.compile(
        r"(?P<cue>\b(?:zip|postal|post)(?: ?codes?)?(?: is| number)?:? )(?P<number>\d{5})(?:-(?P<more>\d{4}))?(?![\w-"
        r"])", re.I), _zip),
    (re.compile(rf"(?P<cue>\b(?:{_STATES}),? )(?P<number>\d{{5}})(?:-(?P<more>\d{{4}}))?(?![\w,-]|\.\d)"), _zip),
    (re.compile(
        rf"(?P<cue>\b(?:call|calls|called|calling|dial|dials|dialed|dialing|phone|phoned|ring|text|texted|to) )(?P<nu"
        rf"mber>{'|'.join(tables.EMERGENCY)})(?![\w,-]|\.\d| \w+s\b)", re.I), _one_by_one),
    (re.compile(
        rf"(?P<cue>)\b(?P<number>{'|'.join(tables.EMERGENCY)})(?= (?:call|calls|caller|callers|operator|operators|dis"
        rf"patcher|emergency|line)\b)"), _one_by_one),
    (re.compile(r"(?P<cue>\b[Aa]rea codes? )(?P<number>\d{3})\b"), _one_by_one),
    (re.compile(
        rf"(?P<cue>\b(?:{'|'.join(sorted(tables.SPELLED_AFTER, key=len, reverse=True))})(?: (?:number|code|no))?(?: i"
        rf"s|:|,)? )(?P<number>\d{{4,20}}|0\d{{1,3}})(?![\w,/]|[.-]\d)"), _one_by_one),
    (re.compile(
        rf"(?P<cue>\b(?:{_CALLED}) )(?P<number>\d{{3,4}})(?![\w,]|[.-]\d)"),
        _called),
    (re.compile(
        r"(?P<cue>\b(?:[Ff]lights?|[Tt]rains?) (?:[A-Z][A-Z\d]|[A-Z]{1,3}))[ -]?(?P<number>\d{3,4})(?![\w,]|[.-]\d)"),
        lambda m: f"{m['cue']} {in_pairs(m['number'])}"),
    (re.compile(r"(?P<cue>\b(?:Boeing|Airbus)(?: A)?) ?(?P<number>\d{3})-(?P<kind>\d{1,4})(?=[A-Z]{0,3}\b)"),
        lambda m: f"{m['cue']} {_hundreds(m['number'])} {in_pairs(m['kind'])}"),
    # houses: 123 Main Street, 221B Baker Street
    (re.compile(
        rf"(?<![\w.,$£€/-])(?P<number>\d{{3,5}})(?P<door>[A-Z])?"
        rf"(?= (?:[A-Z][\w'’]*,? |\d{{1,3}}(?:st|nd|rd|th) ){{1,3}}(?:{_ROADS})\b)"),
        _house),
    # years before 1100 and of an era: in 1066, 476 AD, AD 79
    (re.compile(
        r"(?P<cue>\b(?:[Ii]n|[Ss]ince|[Uu]ntil|[Yy]ear|[Ff]rom) )(?P<number>10[1-9]\d)(?!\w|[.,]\d|[-–/:%]"
        r"| [a-z]+s\b| (?:people|men|women|percent|million))"), _called),
    (re.compile(r"(?P<cue>)(?<![\w.,])(?P<number>[1-9]\d{2,3})(?= ?(?:BC|AD|BCE|CE|B\.C|A\.D)\b)"), _called),
    (re.compile(r"(?P<cue>\b(?:AD|A\.D\.|CE) )(?P<number>[1-9]\d{2,3})(?![\w,]|[.-]\d)"), _called),
    (re.compile(
        r"(?P<phone>(?<=\d{3}[-. ])\d{4}),? ?(?:[xX]|[Ee]xt\.?|[Ee]xtension) ?(?P<number>\d{1,6})(?!\w|[.,-]\d)"),
        lambda m: f"{m['phone']} extension {_extension(m['number'])}"),
    (re.compile(r"(?P<cue>\b[Ee]xtension )(?P<number>\d{3})(?!\w|[.,-]\d)"), _one_by_one),
    # telephone numbers: +1 (555) 123-4567, 555-123-4567, 555-1234, 6314467123
    (re.compile(
        r"(?<![\w.])(?:\+?\d{1,3}[ -.]?)?(?:\(\d{2,4}\)[ -]?|\d{3}[-. ])\d{3}[-. ]\d{4}(?!\w|[-,.]\d)"), _telephone),
    (re.compile(r"(?<!\w)\+\d{1,3}(?:[ -]\d{2,5}){2,5}(?!\w)"), _telephone),
    (re.compile(r"(?<![\w.,-])0\d{2,4}[ -]\d{3,4}[ -]?\d{3,4}(?!\w|[-,.]\d)"), _telephone),
    (re.compile(r"(?<![\w-])\d{3}-\d{4}(?![\w-])"), _telephone),
    (re.compile(
        r"(?P<cue>\b(?:[Tt]ext|[Dd]ial|SMS) (?:[A-Z]{2,12} to )?)(?P<number>\d{5,6})(?!\w|[.,-]\d)"), _one_by_one),
    (re.compile(r"\b1-8\d\d-(?=[A-Z])"), lambda m: _telephone(m) + " "),
    (re.compile(
        rf"(?P<cue>\b(?:{_PHONE})\b:?(?: (?:me|us|him|her|them|at|on|is|number|no|to)\b:?){{0,3}} )(?P<number>\d{{7,1"
        rf"2}})(?!\w|[.,-]\d)", re.I), _unpunctuated_telephone),
    (re.compile(r"(?<![\w.,$£€-])(?P<number>[2-9]\d\d[2-9]\d{6})(?!\w|[.,-]\d)"), _unpunctuated_telephone),
    (re.compile(r"(?<![\w.,-])\d{4}(?: \d{4}){2,4}(?![\w-]|[.,]\d)"), _code),
    # codes: 978-3-16-148410-0
    (re.compile(r"(?<![\w.,-])\d+(?:-\d+){2,20}(?![\w-])"), _code),
    # version numbers and addresses: 2.0.1, 192.168.0.1, Python 3.10
    (re.compile(r"(?<![\w.])(?P<version>[vV]\.? ?)?(?P<parts>\d+(?:\.\d+){2,8})(?![\w]|\.\d)"), _versions),
    (re.compile(
        rf"(?P<cue>\b(?:{_NAMES})(?: version)? )(?P<parts>\d{{1,3}}\.[1-9]\d)(?![\w%]|[.,]\d| (?:percent|million|bill"
        rf"ion))"), _versions),
    (re.compile(r"(?<=§)(?P<cue> ?)(?P<parts>\d{1,3}\.[1-9]\d)(?!\w|\.\d)"), _versions),
    (re.compile(r"\b(?:v(?=\d)|V(?=\d+\.))(?P<number>\d+(?:\.\d+)?)\b"), lambda m: "version " + cardinal(m["number"])),
    # years of two digits, decades: '07, 1990s, the '90s, 80s
    (re.compile(r"(?<![\w'’‘])['’‘](?P<number>\d\d)(?![\w'’]|[.,:]\d)"), _short_year),
    (re.compile(r"(?:(?<!\w)['’‘](?=\d0s))?\b(?P<number>\d{3}0|\d0)['’]?s\b"), _decade),
    (re.compile(
        r"(?<![\w.,/])(?P<number>\d{1,3}(?:,\d{3})+|\d+)(?:st|nd|rd|th)\b", re.I), lambda m: ordinal(m["number"])),
    (re.compile(
        r"(?<![\w.,/])(?P<whole>\d+)[ -](?P<over>\d{1,2})/(?P<under>\d{1,2})(?![\w/])"),
        lambda m: quantity(f"{m['whole']} {m['over']}/{m['under']}")),
    (re.compile(r"(?<![\w.,/])(?P<over>\d{1,3})/(?P<under>\d{1,3})(?![\w/])"), _over),
    (re.compile(r"(?<![\w.,/])(?P<over>\d{1,3})/(?P<under>\d{1,6})(?P<th>th|st|nd|rd)s?\b"), _over),
    (re.compile(r"(?<![\w,/])(?P<over>\d{1,2}\.\d)/(?P<under>5|10|100)(?![\w/]|\.\d)"),
        lambda m: f"{cardinal(m['over'])} out of {cardinal(m['under'])}"),
    (re.compile(r"(?<=\bHTTP)/(?=\d)"), lambda _: " "),
    (re.compile(r"§§ ?"), lambda _: "sections "),
    # sizes and ratios: 1920x1080, 4 x 6, 16:9
    (re.compile(r"(?<![\w.,])(?P<low>\d{1,5}) ?[xX×] ?(?P<high>\d{1,5})(?![\w]|[.,]\d)"), _pair),
    (re.compile(
        r"(?<![\w.,])(?P<number>\d+(?:\.\d+)?)x(?= (?:more|less|as|the|better|worse|[a-z]{3,12}er)\b)"),
        lambda m: f"{cardinal(m['number'])} times"),
    (re.compile(
        rf"(?P<cue>\b(?:{'|'.join(tables.BOOKS)}) )(?P<low>\d{{1,3}}):(?P<high>\d{{1,3}})(?:[-–](?P<last>\d{{1,3}}))?"
        rf"(?!\w)"),
     _verse),
    (re.compile(
        r"(?<![\w.,:])(?P<low>\d{1,4}):(?P<high>\d{1,3}(?:,\d{3})+|\d{1,6})(?![\w:]|[.,]\d)"),
        lambda m: f"{cardinal(m['low'])} to {cardinal(m['high'])}"),
    # letters with decimals: GPT-3.5, H.264; chemistry: CO2
    (re.compile(r"(?<=[A-Za-z])[- ]?(?<! )(?P<number>\d{1,4}\.\d{1,4})(?![\d]|\.\d)"), _letter_decimal),
    (re.compile(r"\b(?P<letter>[A-Z])\.(?P<number>\d{3})\b"), lambda m: f"{m['letter']} {_hundreds(m['number'])}"),
    (re.compile(r"(?<![\w-])(?=[A-Za-z]{0,6}\d)(?:[A-Z][a-z]?\d{0,2}){1,8}(?![\w])"), _formula),
    # ranges: 10-20, 1914–1918, 10--20; not 555-1234-5 chains
    (re.compile(rf"(?<![\w.,/-])(?P<low>{NUMBER})(?: ?[–—-] ?|--)(?P<high>{NUMBER})(?![\w/-])"), _range),
    # numbers standing in or beside letters: 5G, MP3, A4, x86 are read as number and letters
    (re.compile(r"(?<=\d)a(?![\w'’])"), lambda _: "A"),  # 3a: the letter
    (_SALT, lambda m: " ".join(m[0].upper())),
    (re.compile(r"(?<=[A-Za-z])(?P<number>\d+)(?=[A-Za-z])"), lambda m: f" {_in_word(m['number'])} "),
    (re.compile(r"(?<=[A-Za-z])-?(?P<number>\d+)(?![\w])"), lambda m: f" {_in_word(m['number'])}"),
    (re.compile(r"(?<![\w.,])(?P<number>\d{4})(?=p\b)"), lambda m: f"{year(m['number'])} "),
    (re.compile(r"(?<![\w.,])(?P<number>\d+(?:\.\d+)?)(?=[A-Za-z])"), lambda m: f"{cardinal(m['number'])} "),
    (re.compile(rf"(?<![\w.])(?P<sign>[-−](?=\d|\.\d))?(?P<number>{NUMBER}|\.\d+)(?!\d)"), _plain),
    (re.compile(r"\d+"), lambda m: f" {digits(m[0])} "),
)  # fmt: skip


def _extension(number: str) -> str:
    return digits(number, "oh") if len(number) > 2 or number[0] == "0" else cardinal(number)


def _in_word(number: str) -> str:
    if len(number) == 3:
        return _hundreds(number)
    if len(number) == 4 and 1900 <= int(number) <= 2099:
        return year(number)  # FY2023
    return cardinal(number) if len(number) <= 2 and number[0] != "0" else digits(number)


def in_pairs(number: str) -> str:
    """How houses, flights and ports are called: `"123"` -> `"one twenty-three"`, `"1005"` -> `"ten oh five"`,
    `"4500"` -> `"forty-five hundred"`, `"12345"` -> `"twelve three forty-five"`.
    """
    if number[0] == "0" or len(number) > 5:
        return digits(number)
    if len(number) == 3:
        return _hundreds(number)
    if len(number) < 3 or number[1:].strip("0") == "" or number.endswith("000"):
        return cardinal(number)
    first, rest = cardinal(number[:2]), number[2:]
    if rest == "00":
        return f"{first} hundred"
    if len(rest) == 3 and rest[0] != "0":
        return f"{first} {_hundreds(rest)}"
    low = rest.lstrip("0")
    return " ".join([first, *["oh"] * (len(rest) - len(low)), cardinal(low)])


def _hundreds(number: str) -> str:
    """Three digits of a name: 747 -> seven forty-seven, 101 -> one oh one, 500 -> five hundred."""
    if number[0] == "0":
        return digits(number)
    if number[1:] == "00":
        return cardinal(number)
    low = f"oh {cardinal(number[2])}" if number[1] == "0" else cardinal(number[1:])
    return f"{cardinal(number[0])} {low}"


_GROUPS = re.compile(
    r"(?<![\w.,])\d{1,3}(?:,\d{2})+,\d{3}(?![\w,])"  # ₹1,00,000
    r"|(?<!\d )(?<![\w.,])\d{1,3}(?: \d{3}){0,3}(?: 000)(?![\w,]|[. ]\d)"
    r"|(?<![\w.,])\d{1,3}(?:\.000){2,4}(?!\w|[.,]\d)"
)


def join_groups(text: str) -> str:
    """Numbers whose digits are grouped in another way than by commas in threes: `1,00,000`, `25 000`."""
    return _GROUPS.sub(lambda m: re.sub(r"[,. ]", "", m[0]), text)


def speak_numbers(text: str) -> str:
    """Replace every number in the text by words; dates, times, money and units were taken before."""
    if not any(c.isdecimal() for c in text):
        return _SALT.sub(lambda m: " ".join(m[0].upper()), text)
    text = re.sub(r"[^\W\D]", lambda m: str(int(m[0])), text)  # digits of other scripts
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text
