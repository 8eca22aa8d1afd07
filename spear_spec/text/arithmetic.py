"""Sums and powers: signs between numbers and letters are words where something is reckoned, and only there."""

from __future__ import annotations

import re

from spear_spec.text import tables
from spear_spec.text.numbers import cardinal, fraction, ordinal

_RAISED = rf"[{''.join(tables.SUPERSCRIPTS)}]{{1,6}}"
# atomic and possessive: nothing is tried twice, for `1 + 1 + 1 + ` can be divided into terms in more ways than atoms
_NUMBER = r"(?:\d{1,15}+(?:,\d{3}){0,5}+(?:\.\d{1,15}+)?+|\.\d{1,15}+)"
_LETTER = r"[A-Za-zΑ-Ωα-ω](?![A-Za-zΑ-Ωα-ω\d])"
_POWERED = rf"(?:{_RAISED}|\^\(?-?\w{{1,6}}\)?)?+"
_TERM = rf"(?>\(?+[-−–]?+(?:{_NUMBER}%?+(?:{_LETTER})?+|{_LETTER}){_POWERED}\)?+)"
_SIGN = r"(?> ?[-−–+*×·⋅/÷:x] ?)"
_EQUAL = r"(?> ?(?:<=|>=|==|!=|=|≠|≈|≤|≥|<|>) ?)"
_CHAIN = rf"{_TERM}(?:{_SIGN}{_TERM}){{0,12}}+"
_EQUATION = re.compile(rf"(?<![\w.$£€/:=-]){_CHAIN}(?:{_EQUAL}{_CHAIN}){{1,4}}+(?![\w=])")
_ASKED = re.compile(
    r"(?P<cue>\b(?:what is|what's|what are|calculate|compute|solve|evaluate|simplify|equals?|find|add up) )"
    rf"(?P<sum>{_TERM}(?:{_SIGN}{_TERM}){{1,12}}+)(?![\w=])",
    re.I,
)
_ANSWERED = re.compile(
    rf"(?<![\w.$£€/:-])(?P<sum>{_TERM}(?:{_SIGN}{_TERM}){{1,8}}+)(?P<cue> (?:is|equals|makes|gives) (?=\d))"
)
_FUNCTION = re.compile(r"(?<![\w.])([fghFGP])\(([a-zA-Z]|\d{1,4})\)")
_PLUSES = re.compile(r"(?<=\d)(?P<a> ?)[+×÷](?P<b> ?)(?=\d)")
_GREEK_OVER = re.compile(r"(?<=[Α-Ωα-ω]) ?/ ?(?=\w)|(?<=\w) ?/ ?(?=[Α-Ωα-ω])")
_TRUE_MINUS = re.compile(r"(?<=[\w)]) ?− ?(?=[\w(])")

_BEFORE = (  # signs that are others in disguise
    (re.compile(r"(?<![\w.])(\d{1,15}(?:\.\d{1,15})?)e([+-]?\d{1,3})(?![\w]|\.\d)"), r"\1 × 10^\2"),  # 3.5e-4
    (re.compile(r"(?<=[\w)])\*\*(?=[\d(])"), "^"),
    (re.compile(r"(?<=\s)(?:-{1,2}|={1,2})>(?=\s)"), "→"),
    (re.compile(r"(?<=\s)<-{1,2}(?=\s)"), "←"),
    (re.compile(r"(?<=\w)->(?=\w)"), " → "),
    (re.compile(r" ?&& ?"), " and "),
    (re.compile(r"(?<=\s)\|\|(?=\s)"), "or"),
    (re.compile(r"(?<=\d)!(?= ?[=/*×÷+])"), " factorial"),
    (re.compile(r"\bf/(?=\d)"), "f "),  # of a lens
)
_WORDS = {
    "-": "minus", "−": "minus", "–": "minus", "+": "plus", "*": "times", "×": "times", "·": "times", "⋅": "times",
    "÷": "divided by", ":": "divided by",
    "=": "equals", "==": "equals", "≠": "is not equal to", "!=": "is not equal to", "≈": "is about",
    "≤": "is at most", "<=": "is at most", "≥": "is at least",
    ">=": "is at least", "<": "is less than", ">": "is greater than",
}  # fmt: skip
_ANY_SIGN = re.compile(r"(?<=[\w)%⁰¹²³⁴⁵⁶⁷⁸⁹ⁿ])\s*(<=|>=|==|!=|[-−–+*×·⋅÷:=≠≈≤≥<>])\s*(?=[\w(.−-])")
_OVER = re.compile(r"(?<![\w/.])(\d{1,9}) ?/ ?(\d{1,9})(?![\w/.])")
_SLASH = re.compile(r"(?<=[\w)]) ?/ ?(?=[\w(])")
_TIMES_X = re.compile(r"(?<=\d) ?x ?(?=\d)")
_LEADING = re.compile(r"(?<![\w)])[-−–](?=[\dA-Za-z.])")


def _over(match: re.Match[str]) -> str:
    over, under = int(match[1]), int(match[2])
    if 1 < under <= 20 and over < under:
        return fraction(match[1], match[2])
    return f"{match[1]} divided by {match[2]}"


def _reckon(text: str) -> str:
    text = _TIMES_X.sub(" times ", text)
    text = _OVER.sub(_over, text)
    text = _SLASH.sub(" over ", text)
    text = _ANY_SIGN.sub(lambda m: f" {_WORDS[m[1]]} ", text)
    text = _LEADING.sub("minus ", text)
    return re.sub(r"(?<![A-Za-z])a(?![A-Za-z])", "A", text)


def _equation(match: re.Match[str]) -> str:
    text = match[0]
    if not re.search(r"[\d(]|\b[a-zA-Z]\b.*\b[a-zA-Z]\b", text):
        return text
    said = _reckon(text)
    asked = re.search(r"\b(?:is|are|be)\s*$", match.string[: match.start()], re.I)
    return re.sub(r" is (?=greater|less|at|about|not)", " ", said) if asked else said


def _sum(match: re.Match[str]) -> str:
    if not re.search(r"[-−–+*×·⋅/÷]", match["sum"]) or re.fullmatch(r"\s*\d+/\d+\s*|\s*\d+[-–]\d+\s*", match["sum"]):
        return match[0]
    cue = match["cue"]
    said = _reckon(match["sum"])
    return cue + said if match.start("cue") == match.start() else said + cue


def speak_arithmetic(text: str) -> str:
    """`5 - 3 = 2` -> `5 minus 3 equals 2`, `What is 8/2?` -> `What is 8 divided by 2?`; `−` is minus wherever it is."""
    for pattern, sign in _BEFORE:
        text = pattern.sub(sign, text)
    if not any(c in text for c in "+-−–=×÷<>*/≈≤≥≠·"):
        return text
    text = _FUNCTION.sub(r"\1 of \2", text)
    text = _EQUATION.sub(_equation, text)
    text = _ASKED.sub(_sum, text)
    text = _ANSWERED.sub(_sum, text)
    text = _PLUSES.sub(lambda m: f" {_WORDS[m[0].strip()]} ", text)
    text = _GREEK_OVER.sub(" over ", text)
    return _TRUE_MINUS.sub(" minus ", text)


_POWER = re.compile(
    r"(?P<base>\d|\)|(?<![A-Za-z])[A-Za-z]{1,2}|(?<![Α-Ωα-ω])[Α-Ωα-ω])?"
    rf"(?P<raised>{_RAISED}|\^\(?[-+]?\w{{1,6}}\)?)(?=\W|$|[A-Za-z(])"
)
_ISOTOPE = re.compile(rf"(?<![\w)])(?P<mass>{_RAISED})(?P<element>[A-Z][a-z]?)(?![a-z])")
_LOWERED = re.compile(rf"(?P<base>[A-Za-z)\d])(?P<low>[{''.join(tables.SUBSCRIPTS)}]{{1,6}})")


def _power(match: re.Match[str]) -> str:
    raised = "".join(tables.SUPERSCRIPTS.get(c, c) for c in match["raised"]).strip("^()")
    base = match["base"] or ""
    if raised in ("+", "-") or (raised[:-1].isdigit() and raised[-1] in "+-"):  # ions: Ca²⁺
        sign = "plus" if raised[-1] == "+" else "minus"
        base = " ".join(base.upper()) if base in tables.ELEMENTS else base
        return f"{base} {raised[:-1]} {sign} " if raised[:-1] else f"{base} {sign} "
    if not base:
        return f" {power(raised)} " if raised else " "
    return f"{base} {power(raised)} "


def power(raised: str) -> str:
    """What is said of an exponent: `2` -> `squared`, `6` -> `to the sixth`, `-3` -> `to the minus three`, `n`."""
    if raised in ("2", "3"):
        return "squared" if raised == "2" else "cubed"
    if raised.isdecimal():
        return f"to the {ordinal(raised)}"
    number = raised.lstrip("+-−")
    sign = "minus " if raised[:1] in "-−" else ""
    return f"to the {sign}{cardinal(number) if number.isdecimal() else number}"


def _isotope(match: re.Match[str]) -> str:
    """`¹⁴C` -> `C-14`."""
    mass = "".join(tables.SUPERSCRIPTS[c] for c in match["mass"])
    return f"{match['element']}-{mass}" if match["element"] in tables.ELEMENTS and mass.isdecimal() else match[0]


def _low(match: re.Match[str]) -> str:
    return match["base"] + "".join(tables.SUBSCRIPTS[c] for c in match["low"]).replace("+", " plus ").replace(
        "-", " minus "
    )


def speak_scripts(text: str) -> str:
    """Superscripts to powers (`10⁶` -> `10 to the sixth`), subscripts to digits (`H₂O` -> `H2O`)."""
    if text.isascii() and "^" not in text:
        return text
    text = _ISOTOPE.sub(_isotope, text)
    text = _LOWERED.sub(_low, text)
    return _POWER.sub(_power, text)
