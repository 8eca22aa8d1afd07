"""Formulas in LaTeX to words: fractions, roots, powers, indices, the commands of a table. What else there is, is left
out with a warning: formulas are not this package's trade.
"""

from __future__ import annotations

import re

from spear_spec.text import tables
from spear_spec.text.arithmetic import power

_MATH = re.compile(
    r"\$\$(?P<a>[^$]{1,1000})\$\$|\\\[(?P<b>.{1,1000}?)\\\]|\\\((?P<c>.{1,1000}?)\\\)"
    r"|(?<![\w$\\])\$(?P<d>(?=[^$\n]{0,200}(?:[\\^_{}=<>+!]|\$))(?=\D|\d*[\\^a-zA-Z*+])[^\s$](?:[^$\n]{0,198}[^\s$\\])?)\$(?![\w$])"
    r"|\\begin\{(?P<env>equation|align|math|displaymath)\*?\}(?P<e>.{1,1000}?)\\end\{(?P=env)\*?\}",
    re.S,
)
_BARE = re.compile(r"\\[a-zA-Z]{2,16}(?:\{[^{}]{0,100}\}){0,2}")
_GROUP = r"\{(?P<%s>[^{}]{0,200})\}"
_FRACTION = re.compile(
    r"\\[dt]?frac\s*" + _GROUP % "over" + r"\s*" + _GROUP % "under" + r"|\\[dt]?frac\s*(?P<x>\d)(?P<y>\d)"
)
_ROOT = re.compile(r"\\sqrt\s*(?:\[(?P<nth>[^\[\]]{1,8})\])?\s*" + _GROUP % "body")
_TEXT = re.compile(
    r"\\(?:text|mathrm|mathbf|mathit|mathbb|mathcal|operatorname|textbf|textit|emph|textrm|mbox|hat|bar|vec|tilde)\s*"
    + _GROUP % "body"
)
_BOUNDS = re.compile(
    r"\\(?P<name>int|sum|prod)\s*(?:\\limits\s*)?_\s*(?:"
    + _GROUP % "low"
    + r"|(?P<first>\w))\s*\^\s*(?:"
    + _GROUP % "high"
    + r"|(?P<last>\\[a-z]{2,6}|\w))"
)
_PAIR = re.compile(r"(?<![A-Za-z])[A-Za-z]{2}(?![A-Za-z])")
_POWER = re.compile(r"\^\s*(?:" + _GROUP % "many" + r"|(?P<one>\\?\w))")
_INDEX = re.compile(r"_\s*(?:" + _GROUP % "many" + r"|(?P<one>\w))")
_COMMAND = re.compile(r"\\(?P<name>[a-zA-Z]{1,20}|[%&$#_{}])")
_SPACING = re.compile(r"\\(?:left|right|big|Big|bigg|Bigg|quad|qquad|displaystyle|limits|nonumber)\b|\\[,;:! ]|\\\\|&")
_SIGNS = {
    "=": "equals",
    "+": "plus",
    "-": "minus",
    "<": "is less than",
    ">": "is greater than",
    "/": "over",
    "*": "times",
}
_DEPTH = 6  # of nested braces


def _root(match: re.Match[str]) -> str:
    nth = match["nth"]
    name = "square root" if not nth else "cube root" if nth == "3" else f"{nth}th root"
    return f" {name} of {match['body']} "


def _power(match: re.Match[str]) -> str:
    raised = (match["many"] if match["many"] is not None else match["one"]).strip()
    return f" {power(raised) if re.fullmatch(r'-?[0-9]+|[a-zA-Z]', raised) else 'to the ' + raised} "


def _bounds(match: re.Match[str]) -> str:
    low, high = (match[a] if match[a] is not None else match[b] for a, b in (("low", "first"), ("high", "last")))
    return f" {tables.LATEX[match['name']].removesuffix(' of')} from {low} to {high} of "


def _pair(match: re.Match[str]) -> str:
    """xy are two letters, mu is one."""
    two = match[0]
    return two if two.lower() in tables.LATEX_GREEK | tables.TWO_LETTERS else f"{two[0]} {two[1]}"


def _command(match: re.Match[str], lost: set[str]) -> str:
    name = match["name"]
    if name.lower() in tables.LATEX_GREEK:
        return f" {name.lower()} "
    if name in tables.LATEX:
        return f" {tables.LATEX[name]} "
    if name in "%&$#_":
        return name
    if name not in "{}":
        lost.add("\\" + name)
    return " "


def _formula(text: str, lost: set[str]) -> str:
    text = _SPACING.sub(" ", text)
    for _ in range(_DEPTH):
        before = text
        text = _TEXT.sub(lambda m: f" {m['body']} ", text)
        text = _ROOT.sub(_root, text)
        text = _FRACTION.sub(lambda m: f" {m['over'] or m['x']} over {m['under'] or m['y']} ", text)
        text = _BOUNDS.sub(_bounds, text)
        text = _POWER.sub(_power, text)
        text = _INDEX.sub(lambda m: f" sub {m['many'] if m['many'] is not None else m['one']} ", text)
        if text == before:
            break
    text = _COMMAND.sub(lambda m: _command(m, lost), text)
    text = re.sub(r"[{}]", " ", text)
    text = re.sub(
        r"(?<=[\w)])\s*[=+<>/*-](?=\s*[\w(.\\-])|(?<![\w)])-(?=\w)", lambda m: f" {_SIGNS[m[0].strip()]} ", text
    )
    text = _PAIR.sub(_pair, text)
    text = re.sub(r"(?<=\w)!", " factorial", text)
    return re.sub(r"(?<![A-Za-z])a(?![A-Za-z])", "A", text)


def speak_latex(text: str) -> tuple[str, list[str]]:
    """The text with its formulas in words, and a warning that names what was left out."""
    if "\\" not in text and "$" not in text:
        return text, []
    lost: set[str] = set()

    def say(match: re.Match[str]) -> str:
        inner = next(match[g] for g in "abcde" if match[g] is not None)
        return " " + _formula(inner, lost).strip() + " "

    text = _MATH.sub(say, text)
    text = _BARE.sub(lambda m: _formula(m[0], lost) if _COMMAND.match(m[0]) else m[0], text)
    return text, [f"formula: left out {' '.join(sorted(lost)[:20])}"] if lost else []
