"""Money to words: symbols and codes, ranges, millions, prices per something, amounts in front of what they cost."""

from __future__ import annotations

import re

from spear_spec.text import tables
from spear_spec.text.abbreviations import one_of
from spear_spec.text.numbers import NUMBER, QUANTITY, cardinal, quantity

_NAMES = {**tables.CURRENCIES, **{alias: tables.CURRENCIES[name] for alias, name in tables.CURRENCY_ALIASES.items()}}
_SYMBOLS = one_of(name for name in _NAMES if not name[-1].isalpha())
_CODES = one_of(name for name in _NAMES if name[-1].isalpha())
_AFTER = one_of(("£", "€", "¥", "₹", "₽", "₩", "₪", "₺", "₫", "₴", "₦", "₱", "฿", "₿"))
_SCALE = rf"(?P<hyphen>-)?(?: ?(?P<word>{'|'.join(tables.SCALE_WORDS)})\b|(?P<short>{one_of(tables.SCALES)})(?!\w))"
_AMOUNT = rf"{QUANTITY}|\.\d{{1,2}}(?!\d)|\d+,\d\d(?!\d)"
_SOLD_BY = ("lb", "kg", "g", "oz", "gal", "l", "L", "kWh", "GB", "m²", "ft²")
_PER = rf"(?:/(?P<per>{one_of([*tables.PER, *tables.PER_WORDS, *_SOLD_BY])})(?!\w))?"


def _cents(amount: str) -> tuple[str, str]:
    """(whole, two digits of cents or nothing)."""
    if re.fullmatch(r"\d+,\d\d", amount):
        amount = amount.replace(",", ".")  # 5,50 as most of Europe writes it
    whole, _, cents = amount.replace(",", "").partition(".")
    return whole, cents if len(cents) == 2 else ""


def _plain(amount: str, name: str, *, single: bool = False) -> str:
    one, many, small_one, small_many = _NAMES[name]
    whole, cents = _cents(amount)
    if not cents or " " in amount or "/" in amount:
        return f"{quantity(amount)} {one if single or amount in ('1', '1.0') else many}"
    parts = []
    if int(whole or "0") or not int(cents):
        parts.append(f"{cardinal(whole or '0')} {one if int(whole or '0') == 1 or single else many}")
    if int(cents):
        parts.append(
            f"{cardinal(str(int(cents)))} {small_one if int(cents) == 1 or (single and not parts) else small_many}"
        )
    return " and ".join(parts)


def _per(match: re.Match[str]) -> str:
    from spear_spec.text.units import per_name

    per = match.groupdict().get("per")
    return f" per {per_name(per)}" if per else ""


def _money(match: re.Match[str]) -> str:
    found = match.groupdict()
    lead = found.get("article") or ""
    sign = "minus " if found.get("sign") or found.get("inner") else ""
    name, amount, high = found["symbol"].strip(), found["amount"], found.get("high")
    if found.get("code") and found["code"] in _NAMES:  # $50 CAD
        name = "US$" if found["code"] == "USD" else found["code"]
    scale = found.get("word") or tables.SCALES.get(found.get("short") or "", "")
    noun = re.match(r"(?P<hyphen>-| )(?P<word>[a-z]+)", match.string[match.end() :])
    single = bool(found.get("hyphen")) or (
        noun is not None and (noun["hyphen"] == "-" or (bool(lead) and noun["word"] not in tables.NOT_A_NOUN))
    )
    one, many = _NAMES[name][:2]
    if scale:
        said = f"{quantity(amount)} to {quantity(high)} {scale}" if high else f"{quantity(amount)} {scale}"
        said = f"{said.replace(' ', '-') if found.get('hyphen') else said} {one if single else many}"
        if found.get("hyphen"):
            said = said.replace(f" {one}", f"-{one}")
    elif high:
        said = f"{quantity(amount)} to {_plain(high, name, single=single)}"
    else:
        said = _plain(amount, name, single=single)
    return lead + sign + said + _per(match)


_ARTICLE = rf"(?P<article>\b(?:{one_of(tables.DETERMINERS)}) )?"
_HIGH = rf"(?: ?[–—-] ?(?:{_SYMBOLS})?(?P<high>{QUANTITY}))?"
_RULES = (
    (re.compile(
        rf"{_ARTICLE}(?<![\w.$])(?P<sign>[-−])?(?P<symbol>{_SYMBOLS}|\b(?:{_CODES})(?= ?\d)) ?(?P<inner>[-−](?=\d))?"
        rf"(?P<amount>{_AMOUNT}){_HIGH}(?:{_SCALE})?{_PER}(?: ?(?P<code>{_CODES})\b)?(?!\w)"
    ), _money),
    (re.compile(
        rf"(?<![\w.,])(?P<sign>[-−])?(?P<amount>{_AMOUNT})(?: ?[–—-] ?(?P<high>{QUANTITY}))?(?:{_SCALE})? ?(?P<symbol"
        rf">{_AFTER}|\b(?:{_CODES}))(?!\w)"), _money),
    # both ends with a symbol and a scale of their own: $5m-$10m
    (re.compile(
        rf"(?<![\w.])(?P<symbol>{_SYMBOLS})(?P<amount>{NUMBER})(?:{_SCALE})?(?= ?[–—-] ?(?:{_SYMBOLS})\d)"), _money),
)  # fmt: skip
_EACH_ITS_OWN = re.compile(rf"(?<=\w)(?: [–—-] |[–—-])(?=(?:{_SYMBOLS})\d)")


_SO_MANY = re.compile(rf"(?<=\d) ?[x×] ?(?=(?:{_SYMBOLS})\d)")
_FOR = re.compile(rf"(?<![\w.,/])(?P<many>\d{{1,2}})/(?=(?:{_SYMBOLS})\d)")


def speak_money(text: str) -> str:
    """Replace amounts of money by words: `$12.50`, `£3m`, `A$50`, `$5-10 million`, `a $3-million house`, `$5/hour`."""
    if not any(c.isdecimal() for c in text):
        return text
    text = _FOR.sub(r"\g<many> for ", _SO_MANY.sub(" times ", text))  # 3/$5, 2 x $15
    text = _RULES[2][0].sub(lambda m: m[0] if not (m["word"] or m["short"]) else _money(m), text)
    text = _EACH_ITS_OWN.sub(lambda m: " to " if text[m.start() - 1].isalpha() else m[0], text)
    for pattern, say in _RULES[:2]:
        text = pattern.sub(say, text)
    return text
