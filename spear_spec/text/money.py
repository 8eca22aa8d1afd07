"""Money, percentages and units of measure to words."""

from __future__ import annotations

import re

from spear_spec.text.numbers import NUMBER, cardinal

_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "US$": ("U.S. dollar", "U.S. dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "₽": ("ruble", "rubles", "kopeck", "kopecks"),
    "₩": ("won", "won", "jeon", "jeon"),
}
_CODES = {"USD": "$", "GBP": "£", "EUR": "€", "JPY": "¥", "INR": "₹"}
_SCALES = {
    "k": "thousand",
    "m": "million",
    "mn": "million",
    "bn": "billion",
    "b": "billion",
    "tn": "trillion",
    "t": "trillion",
}
_SCALE = r"(?P<scale> ?(?:thousand|million|billion|trillion)\b|(?:k|K|mn|M|m|bn|Bn|B|b|tn|T)\b)"

# symbol: (one, many); the symbol must follow a number
_UNITS = {
    "km": ("kilometer", "kilometers"), "m": ("meter", "meters"), "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"), "nm": ("nanometer", "nanometers"), "mi": ("mile", "miles"),
    "ft": ("foot", "feet"), "in": ("inch", "inches"), "yd": ("yard", "yards"), "yds": ("yard", "yards"),
    "kg": ("kilogram", "kilograms"), "g": ("gram", "grams"), "mg": ("milligram", "milligrams"),
    "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"), "oz": ("ounce", "ounces"),
    "l": ("liter", "liters"), "L": ("liter", "liters"), "ml": ("milliliter", "milliliters"), "mL": ("milliliter", "milliliters"),
    "gal": ("gallon", "gallons"), "s": ("second", "seconds"), "sec": ("second", "seconds"), "secs": ("second", "seconds"),
    "ms": ("millisecond", "milliseconds"), "min": ("minute", "minutes"), "mins": ("minute", "minutes"),
    "h": ("hour", "hours"), "hr": ("hour", "hours"), "hrs": ("hour", "hours"),
    "mph": ("mile per hour", "miles per hour"), "km/h": ("kilometer per hour", "kilometers per hour"),
    "kph": ("kilometer per hour", "kilometers per hour"), "m/s": ("meter per second", "meters per second"),
    "Hz": ("hertz", "hertz"), "kHz": ("kilohertz", "kilohertz"), "MHz": ("megahertz", "megahertz"), "GHz": ("gigahertz", "gigahertz"),
    "W": ("watt", "watts"), "kW": ("kilowatt", "kilowatts"), "MW": ("megawatt", "megawatts"), "kWh": ("kilowatt hour", "kilowatt hours"),
    "V": ("volt", "volts"), "mA": ("milliamp", "milliamps"), "dB": ("decibel", "decibels"),
    "KB": ("kilobyte", "kilobytes"), "kB": ("kilobyte", "kilobytes"), "MB": ("megabyte", "megabytes"), "GB": ("gigabyte", "gigabytes"),
    "TB": ("terabyte", "terabytes"), "Mbps": ("megabit per second", "megabits per second"),
    "°C": ("degree Celsius", "degrees Celsius"), "°F": ("degree Fahrenheit", "degrees Fahrenheit"), "°": ("degree", "degrees"),
    "km²": ("square kilometer", "square kilometers"), "m²": ("square meter", "square meters"), "m³": ("cubic meter", "cubic meters"),
    "%": ("percent", "percent"), "‰": ("per mille", "per mille"), "¢": ("cent", "cents"),
}  # fmt: skip


def _name(amount: str, one: str, many: str) -> str:
    return one if amount in ("1", "1.0") else many


def _money(match: re.Match[str]) -> str:
    sign, symbol, amount = match["sign"], match["symbol"], match["amount"]
    one, many, small_one, small_many = _CURRENCIES[_CODES.get(symbol.strip(), symbol)]
    lead = "minus " if sign else ""
    scale = (match["scale"] or "").strip()
    if scale:
        return f"{lead}{cardinal(amount)} {_SCALES.get(scale.lower(), scale)} {many}"
    whole, _, cents = amount.replace(",", "").partition(".")
    if len(cents) != 2:  # 3.5 dollars: a plain decimal
        return f"{lead}{cardinal(amount)} {_name(amount, one, many)}"
    parts = []
    if int(whole) or not int(cents):
        parts.append(f"{cardinal(whole)} {_name(whole, one, many)}")
    if int(cents):
        small = str(int(cents))
        parts.append(f"{cardinal(small)} {_name(small, small_one, small_many)}")
    return lead + " and ".join(parts)


def _unit(match: re.Match[str]) -> str:
    one, many = _UNITS[match["unit"]]
    amount = match["amount"]
    low = match["low"]
    spoken = f"{cardinal(low)} to {cardinal(amount)}" if low else cardinal(amount)
    sign = "minus " if match["sign"] else ""
    return f"{sign}{spoken} {many if low else _name(amount, one, many)}"


def _height(match: re.Match[str]) -> str:
    feet = f"{cardinal(match['feet'])} {_name(match['feet'], 'foot', 'feet')}"
    return f"{feet} {cardinal(match['inches'])}" if match["inches"] else feet


_SYMBOLS = "|".join(re.escape(s) for s in sorted(_CURRENCIES, key=len, reverse=True))
# longest first; `in` and `m` style letters may not run into a word, and `5 in the morning` stays a preposition
_UNIT_NAMES = "|".join(
    re.escape(u) for u in sorted(_UNITS, key=len, reverse=True) if u not in ("in", "s", "h", "W", "V", "l")
)
_TIGHT_NAMES = "in|h|W|V|l"  # not `s`: the 1990s, the 80s
_LOW = rf"(?:(?P<low>{NUMBER}) ?[–—-] ?)?"

_RULES = (
    (re.compile(rf"(?<![\w.])(?P<sign>[-−])?(?P<symbol>{_SYMBOLS}) ?(?P<amount>{NUMBER}){_SCALE}?(?!\w)"), _money),
    (re.compile(rf"(?<!\w)(?P<sign>[-−])?(?P<symbol>{'|'.join(_CODES)}) (?P<amount>{NUMBER}){_SCALE}?(?!\w)"), _money),
    (re.compile(rf"(?<![\w.])(?P<sign>[-−])?(?P<amount>{NUMBER}){_SCALE}? ?(?P<symbol>[£€¥₹₽₩]|{'|'.join(_CODES)})(?!\w)"), _money),
    (re.compile(r"(?<![\w.])(?P<feet>\d)['′] ?(?:(?P<inches>\d{1,2})(?:\"|″|''|”))"), _height),
    (re.compile(rf"(?<![\w.,$£€])(?P<sign>[-−])?{_LOW}(?P<amount>{NUMBER})[ -]?(?P<unit>{_UNIT_NAMES})(?![\w²³/]|['’][a-z])"), _unit),
    (re.compile(rf"(?<![\w.,$£€])(?P<sign>[-−])?{_LOW}(?P<amount>{NUMBER})(?P<unit>{_TIGHT_NAMES})(?![\w²³/]|['’][a-z])"), _unit),
)  # fmt: skip


def speak_money_and_units(text: str) -> str:
    """Replace amounts by words: `$12.50`, `£3m`, `5 km`, `20°C`, `12 %`, `5'10"`."""
    if not any(c.isdecimal() for c in text):
        return text
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return text
