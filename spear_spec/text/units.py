"""Units of measure to words: metric prefixes, squares and cubes, `per`, heights, amounts with a hyphen."""

from __future__ import annotations

import re

from spear_spec.text import tables
from spear_spec.text.abbreviations import one_of
from spear_spec.text.numbers import QUANTITY, cardinal, quantity


def _all_units() -> dict[str, tuple[str, str]]:
    units = {}
    for symbol, (name, prefixes) in tables.METRIC.items():
        for prefix in prefixes:
            one = tables.PREFIXES[prefix] + name
            head, _, tail = one.partition(" ")
            many = (
                one if name in tables.UNCHANGED_PLURALS else f"{head}s {tail}" if tail.startswith("per") else one + "s"
            )
            units[prefix + symbol] = (one, many)
    return {**units, **tables.UNITS}


UNITS = _all_units()
_POWERS = {
    "²": "square",
    "^2": "square",
    "2": "square",
    "³": "cubic",
    "^3": "cubic",
    "3": "cubic",
    "sq": "square",
    "cu": "cubic",
}
_AFTER_PER = {"²": " squared", "^2": " squared", "³": " cubed", "^3": " cubed", "2": " squared", "3": " cubed"}


def per_name(unit: str) -> str:
    """What stands behind "per": `h` -> `hour`, `kg` -> `kilogram`, `day` -> `day`."""
    power = next((p for p in ("²", "³", "^2", "^3") if unit.endswith(p)), "")
    bare = unit.removesuffix(power) if power else unit
    name = tables.PER.get(bare) or (UNITS[bare][0] if bare in UNITS else bare)
    if not power:
        return name
    return f"{_POWERS[power]} {name}" if bare in tables.LENGTHS else name + _AFTER_PER[power]


def _named(match: re.Match[str]) -> str:
    amount, low = match["amount"], match["low"]
    said = f"{quantity(low)} to {quantity(amount)}" if low else quantity(amount)
    one, many = UNITS[match["unit"]]
    power = match["power"] or (match["before"] or "").rstrip(". ")
    if power and (power in ("²", "³", "^2", "^3", "sq", "cu") or match["unit"] in tables.LENGTHS):
        one, many = f"{_POWERS[power]} {one}", f"{_POWERS[power]} {many}"
    part_of_one = "/" in amount and " " not in amount
    noun = _NOUN.match(match.string[match.end() : match.end() + 24])
    attribute = (
        noun is not None
        and noun[1] not in tables.NOT_A_NOUN
        and (
            bool(match["article"])
            or (match["gap"] == "" and not low and noun[1].endswith("s"))
            or noun[1] in tables.MEASURED
        )
    )
    single = attribute or (not low and (amount in ("1", "1.0") or part_of_one or match["gap"] == "-"))
    per = f" per {per_name(match['per'] + (match['per_power'] or ''))}" if match["per"] else ""
    said = f"{match['article'] or ''}{'minus ' if match['sign'] else ''}{said} {one if single else many}{per}"
    point = match["point"] or ""
    return said + ("." if point and not _GOES_ON.match(match.string, match.end()) else "")


def _height(match: re.Match[str]) -> str:
    feet = f"{cardinal(match['feet'])} {'foot' if match['feet'] == '1' else 'feet'}"
    inches = match["inches"]
    return f"{feet} {quantity(inches)} {'inch' if inches == '1' else 'inches'}" if inches else feet


def _place(match: re.Match[str]) -> str:
    said = [
        f"{cardinal(match[name])} {name if match[name] != '1' else name[:-1]}"
        for name in ("degrees", "minutes", "seconds")
        if match[name]
    ]
    return " ".join([*said, *([tables.DIRECTIONS[match["way"]]] if match["way"] else [])])


def _feet(match: re.Match[str]) -> str:
    quoted = len(re.findall(r"['’](?![a-z])|(?<!\w)['’‘]", match.string)) != 1
    return match[0] if quoted else _height(match)


def _hours(match: re.Match[str]) -> str:
    hours, minutes = match["hours"], match["minutes"]
    return (
        f"{cardinal(hours)} hour{'s' * (hours != '1')} {cardinal(str(int(minutes)))} minute{'s' * (int(minutes) != 1)}"
    )


_GOES_ON = re.compile(r" [a-z]|[),:;]| \d{1,2}(?:\.\d)? ?(?:oz|in|min|sec)\b")  # 2 lbs. 3 oz.
_OFTEN = {"1": "once", "2": "twice"}


def _often(match: re.Match[str]) -> str:
    """`3x/day`, `2x daily`."""
    times, by = match["times"], match["by"]
    if by is None and not match["per"].endswith("ly"):
        return match[0]
    said, per = _OFTEN.get(times, f"{cardinal(times)} times"), per_name(match["per"])
    return f"{said} {'' if by is None else 'an ' if per == 'hour' else 'a '}{per}"


def _heat(match: re.Match[str]) -> str:
    """`bake at 350 F`."""
    before = match.string[max(0, match.start() - 60) : match.start()].lower()
    heated = tables.HEATED.intersection(re.findall(r"[a-z]+", before))
    return f"{match['degrees']} °{match['scale']}" if heated else match[0]


def _basis_points(match: re.Match[str]) -> str:
    """`25 bps`, where rates are what is spoken of."""
    around = match.string[max(0, match.start() - 60) : match.end() + 40].lower()
    points = match["points"]
    if not tables.POINTS_OF_RATES.intersection(re.findall(r"[a-z]+", around)):
        return match[0]
    return f"{cardinal(points)} basis point{'s' * (points != '1')}"


def _inches(match: re.Match[str]) -> str:
    if match["mark"] == '"' and match.string.count('"') != 1:
        return match[0]  # a quotation
    noun = _NOUN.match(match.string[match.end() : match.end() + 24])
    attribute = noun is not None and noun[1] not in tables.NOT_A_NOUN | _HOW_LONG
    return f"{quantity(match['amount'])} {'inch' if match['amount'] == '1' or attribute else 'inches'}"


_HOW_LONG = frozenset({"long", "wide", "tall", "thick", "deep", "high"})
_NOUN = re.compile(r" ([a-z]{2,20})\b")
_TIMES = ("min", "sec", "hr", "h", "s", "d", "wk", "mo", "yr")
_LOW = rf"(?:(?P<low>{QUANTITY}) ?(?:%|°C?|°F)?[–—-] ?)?"
_PERS = one_of({*UNITS, *tables.PER, *tables.PER_WORDS} - {"in", "%", "¢", "‰", "°"})
_PER = rf"(?:/ ?(?P<per>{_PERS})(?P<per_power>[²³]|\^[23])?(?![\w/]))?"
_LOOSE = (
    one_of(set(UNITS) - tables.TIGHT_UNITS - {"s"}) + r"|(?<=[ -])s|(?<=\.\d)s|(?<=\.\d\d)s|(?<=\.\d\d\d)s"
)  # not the 1990s, her 30s
_TIGHT = one_of(tables.TIGHT_UNITS)
_TAIL = rf"(?P<power>[²³]|\^[23]|[23](?=\W|$))?{_PER}(?P<point>\.(?=\s|$|[),:;]))?(?![\w²³/]|['’][a-z])"
_HEAD = rf"(?P<article>\b(?:{one_of(tables.DETERMINERS)}) )?(?<![\w.,$£€/])(?P<sign>[-−])?{_LOW}(?P<amount>{QUANTITY})"

_RULES = (
    # places on the Earth: 40° 42′ 46″ N, 74.0° W
    (re.compile(
        r"(?<![\w.])(?P<degrees>\d{1,3})° ?(?P<minutes>\d{1,2}(?:\.\d+)?)['′’] ?"
        r"(?:(?P<seconds>\d{1,2}(?:\.\d+)?)(?:\"|″|''|”) ?)?(?P<way>[NSEW])?(?!\w)"), _place),
    (re.compile(
        r"(?<![\w.])(?P<feet>\d{1,2})['′’] ?(?P<inches>\d{1,2}(?: ?\d/\d)?)(?:\"|″|''|’’|”|(?=[\s.,;:!?]|$))"),
        _height),
    (re.compile(r"(?<![\w.])(?P<feet>\d{1,2}) ?ft\.? ?(?P<inches>\d{1,2}) ?in\b\.?"), _height),
    (re.compile(r"(?<![\w.])(?P<feet>\d{1,3})′(?P<inches>)"), _height),
    (re.compile(r"(?<![\w.'’])(?P<feet>[1-9])['’](?P<inches>)(?=[.,;]?\s*$|[.,;] | tall\b)"), _feet),
    (re.compile(rf"(?<![\w.])(?P<amount>{QUANTITY}) ?c\.(?= [a-z])"),
        lambda m: f"{quantity(m['amount'])} cup{'' if m['amount'] == '1' or m['amount'][1:2] == '/' else 's'}"),
    (re.compile(rf"(?<![\w.])(?P<amount>{QUANTITY})(?P<mark>″|\"(?=\s|$|[,.]))"), _inches),
    (re.compile(rf"(?<![\w.])(?P<low>{QUANTITY})(?:\"|″|'') ?[x×] ?(?P<high>{QUANTITY})(?:\"|″|'')(?!\w)"),
        lambda m: f"{quantity(m['low'])} inch by {quantity(m['high'])} inch"),
    (re.compile(r"(?<![\w.])(?P<low>\d{1,3})['′’] ?[x×] ?(?P<high>\d{1,3})['′’](?!\w)"),
        lambda m: f"{quantity(m['low'])} foot by {quantity(m['high'])} foot"),
    # other ways to write a unit: 20º, 350 F, 2 T. oil, 3 t. salt
    (re.compile(r"(?<=\d)º(?=[CF]?(?!\w))"), lambda _: "°"),
    (re.compile(r"(?<![\w.])(?P<degrees>\d{2,3}) ?(?P<scale>[FC])(?![\w'’°])"), _heat),
    (re.compile(r"(?<=\d )(?P<spoon>[Tt])\.(?= [a-z])"), lambda m: "tbsp" if m["spoon"] == "T" else "tsp"),
    # one behind the other: 180°C/350°F, 4 g/24 h, 3x/day, every 8 hours
    (re.compile(r"(?<=°[CF]) ?/ ?(?=\d|gas\b)"), lambda _: " or "),
    (re.compile(r"(?<=\d)(?P<unit> ?[a-zμ]{1,2})/(?=\d{1,3} ?(?:h|hrs?|hours?|d|days?|min|wk|weeks?|months?)\b)"),
        lambda m: f"{m['unit']} per "),
    (re.compile(
        r"(?<![\w.,])(?P<times>\d{1,2}) ?[x×] ?(?P<by>/ ?|an? |per )?(?P<per>day|week|month|year|hour|daily|weekly|"
        r"monthly|yearly|d|wk|mo|yr)\b"), _often),
    (re.compile(r"(?<!\w)q(?P<hours>\d{1,2})h\b"), lambda m: f"every {cardinal(m['hours'])} hours"),
    (re.compile(r"(?<![\w.,])(?P<points>\d{1,4}) ?bps\b"), _basis_points),
    # how far, by how far: 3 m × 4 m, 8.5 x 11 in., 4x100m
    (re.compile(
        rf"(?<![\w.,/])(?P<low>{QUANTITY}) ?[x×] ?(?={QUANTITY} ?(?:{one_of(tables.LENGTHS)})\b)"),
        lambda m: f"{quantity(m['low'])} by "),
    (re.compile(
        rf"(?P<low>(?<![\w.]){QUANTITY} ?(?P<length>{one_of(tables.LENGTHS)})) ?[x×] ?(?={QUANTITY} ?(?P=length)\b)"),
        lambda m: f"{m['low']} by "),
    (re.compile(r"(?<=°) ?(?P<way>[NSEW])(?!\.?\w)"), lambda m: f" {tables.DIRECTIONS[m['way']]}"),
    (re.compile(r"(?<![\w.])(?P<hours>\d{1,3}) ?h(?:rs?)? ?(?P<minutes>\d{1,2}) ?m(?:ins?)?\b"), _hours),
    (re.compile(rf"{_HEAD}(?P<gap>[ -]?)(?P<before>(?:sq|cu)\.? )?(?P<unit>{_LOOSE}){_TAIL}"), _named),
    (re.compile(rf"{_HEAD}(?P<gap>-?)(?P<before>(?!))?(?P<unit>{_TIGHT}){_TAIL}"), _named),
    (re.compile(
        rf"{_HEAD}(?P<gap> )(?P<before>)(?P<unit>in)(?P<power>)(?P<per>)(?P<per_power>)(?P<point>\.)(?=\s*[a-z,]|\s*$"
        rf")"), _named),
    # what is counted has a name of its own: 250 words/minute
    (re.compile(
        rf"(?<=\d )(?P<many>[a-z]{{3,20}}s)/(?P<per>{one_of({*tables.PER_WORDS, *_TIMES})})\b"),
        lambda m: f"{m['many']} per {tables.PER.get(m['per'], m['per'])}"),
)  # fmt: skip


def speak_units(text: str) -> str:
    """Replace measures by words: `5 km`, `20°C`, `12 %`, `3μs`, `250 mg/day`, `5'10"`, `a 5-kg bag`."""
    if not any(c.isdecimal() for c in text):
        return text
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text
