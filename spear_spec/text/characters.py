"""Characters outside plain English text: symbols to words, emoji to their names, other scripts to Latin letters."""

from __future__ import annotations

import re
import unicodedata

from spear_spec.text import tables
from spear_spec.text.numbers import digits

_PUNCTUATION = {
    "‐": "-", "‑": "-", "‒": "—", "–": "—", "―": "—", "⸺": "—", "−": "-", "‘": "'", "’": "'", "‚": ",", "‛": "'",
    "ʼ": "'", "`": "'", "´": "'",
    "„": "“", "‟": "“", "«": "“", "»": "”", "‹": "“", "›": "”", "「": "“", "」": "”", "『": "“", "』": "”", "《": "“",
    "》": "”",
    "。": ". ", "、": ", ", "，": ", ", "．": ".", "！": "! ", "？": "? ", "：": ": ", "；": "; ", "·": ", ", "•": ", ",
    "‣": ", ", "●": ", ", "▪": ", ",
    "¡": "", "¿": "", "․": ".", "‥": "…", "⁇": "?", "⁈": "?!", "⁉": "!?", "‼": "!", "؟": "?", "،": ",", "؛": ";",
    "।": ".", "՞": "?",
    "[": "(", "]": ")", "{": "(", "}": ")", "【": "(", "】": ")", "⟨": "(", "⟩": ")",
    "|": ", ", "¦": ", ", "_": " ", "\\": " backslash ", "^": " caret ", "*": " ", "~": " about ",
}  # fmt: skip
_WORDS = {
    "&": " and ", "@": " at ", "+": " plus ", "=": " equals ", "<": " less than ", ">": " greater than ",
    "×": " times ", "÷": " divided by ",
    "±": " plus or minus ", "≈": " about ", "≠": " is not equal to ", "≤": " at most ", "≥": " at least ",
    "∞": " infinity ",
    "√": " square root of ", "∑": " sum of ", "∫": " integral of ", "→": " to ", "←": " from ", "⇒": " implies ",
    "°": " degrees ", "%": " percent ",
    "‰": " per mille ", "$": " dollars ", "£": " pounds ", "€": " euros ", "¥": " yen ", "₹": " rupees ",
    "¢": " cents ", "§": " section ", "¶": " paragraph ",
    "©": " copyright ", "®": " registered ", "™": " trademark ", "№": " number ", "♯": " sharp ", "♭": " flat ",
    "†": " dagger ",
    "²": " squared ", "³": " cubed ", "#": " hash ", "/": " slash ", "✓": " check ", "✔": " check ", "♥": " heart ",
    "❤": " heart ",
}  # fmt: skip
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 \n.,?!;:'\"()-—…“”")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})
_ACCENTED = re.compile(rf"\b(?:{'|'.join(sorted(tables.ACCENTED, key=len, reverse=True))})\b", re.I)
_FACE = re.compile(rf"(?<!\S)(?:{'|'.join(map(re.escape, sorted(tables.FACES, key=len, reverse=True)))})(?!\S)")
_GREEK_LETTER = re.compile(
    r"(?<![\u0370-\u03ff\u1f00-\u1fff])[\u0391-\u03a9\u03ac-\u03ce\u03d1\u03d5\u03d6](?![\u0370-\u03ff\u1f00-\u1fff])"
)
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\))"
)  # a terminal's colours, its title
_VULGAR = re.compile(rf"(?:(?P<whole>(?<=\d)) ?)?(?P<part>[{''.join(tables.VULGAR)}])")


def clean(text: str) -> str:
    """One form for each character: NFC, plain spaces and dashes, no control or zero-width characters."""
    if text.isascii() and text.isprintable():
        return text
    if "\x1b" in text:
        text = _ESCAPES.sub("", text)
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).replace("\xb5", "μ")
    out = []
    for c in text:
        if "！" <= c <= "～":
            c = chr(ord(c) - 0xFEE0)
        if c in "\n\t\v\f\u2028\u2029\x85":
            out.append("\n" if c != "\t" else " ")
        elif unicodedata.category(c) == "Zs":
            out.append(" ")
        elif unicodedata.category(c) in ("Cc", "Cf", "Cs"):
            continue
        else:
            out.append(c)
    return "".join(out)


def _greek(match: re.Match[str]) -> str:
    """A single Greek letter by its name; a word in Greek is spelled in Latin letters."""
    name = unicodedata.name(match[0], "").lower()
    name = name.split(" with ")[0].removesuffix(" symbol").split("letter ")[-1].split(" ")[-1]
    return f" {tables.GREEK.get(name, name)} "


def write_out_fractions(text: str) -> str:
    """`3½` -> `3 1/2`."""
    return text if text.isascii() else _VULGAR.sub(_fraction, text)


def _fraction(match: re.Match[str]) -> str:
    return ("" if match["whole"] is None else " ") + tables.VULGAR[match["part"]]


def keep_accents(text: str) -> str:
    """`résumé` is not `resume`."""
    return text if text.isascii() else _ACCENTED.sub(lambda m: tables.ACCENTED[m[0].lower()], text)


def leave_out_faces(text: str) -> str:
    """`:-)`, `;)`, `:D` are seen and not heard."""
    return _FACE.sub("", text)


def speak_greek(text: str) -> str:
    """Greek letters by name."""
    return text if text.isascii() else _GREEK_LETTER.sub(_greek, text)


def _is_skin_tone(c: str) -> bool:
    return 0x1F3FB <= ord(c) <= 0x1F3FF


def _name(c: str) -> str:
    """What a symbol is called: `😀` -> `grinning face`; nothing for what has no name or marks no sound."""
    if unicodedata.category(c) in _INVISIBLE or _is_skin_tone(c):
        return ""
    if 0x1F1E6 <= ord(c) <= 0x1F1FF:
        return chr(ord(c) - 0x1F1E6 + ord("A"))
    name = unicodedata.name(c, "").lower()
    plain = re.sub(r" sign$|^(?:black|white|heavy) ", "", name).replace("-", " ")
    return re.sub(r"\d+", lambda m: digits(m[0]), plain)


def speak_characters(text: str) -> tuple[str, list[str]]:
    """Replace every character that is not plain English text by something that can be spoken.

    Returns:
        the text, and one warning for each kind of character that had to be guessed at or left out.
    """
    out: list[str] = []
    scripts: dict[str, str] = {}
    symbols: dict[str, str] = {}
    dropped: set[str] = set()
    for c in text:
        if c in _PLAIN:
            out.append(c)
        elif c in _PUNCTUATION:
            out.append(_PUNCTUATION[c])
        elif c in _WORDS:
            out.append(_WORDS[c])
        elif c.isalpha():
            latin = _latin(c)
            out.append(latin)
            if not latin.strip():
                dropped.add(c)
            elif not _is_latin(c):
                scripts[c] = latin
        elif c.isdecimal():
            out.append(str(int(c)))
        elif unicodedata.category(c)[0] == "M":
            out.append(_latin(c))  # a vowel sign of another script; an accent that composes with nothing is silent
        else:
            name = _name(c)
            if name:
                out.append(f" {name} ")
                symbols[c] = name
            elif not _is_skin_tone(c) and unicodedata.category(c) not in ("Cf", "Cc"):
                dropped.add(c)
    warnings = []
    if scripts:
        warnings.append(f"spelled in Latin letters: {''.join(list(scripts)[:20])}")
    warnings += [f"{c} is spoken as {name!r}" for c, name in list(symbols.items())[:20]]
    if dropped:
        warnings.append("cannot be spoken, left out: " + " ".join(f"U+{ord(c):04X}" for c in sorted(dropped)[:20]))
    return "".join(out), warnings


def _is_latin(c: str) -> bool:
    return ord(c) < 0x250 or unicodedata.name(c, "").startswith("LATIN")


def _latin(c: str) -> str:
    from anyascii import anyascii

    spelled = "".join(x for x in anyascii(c) if x.isascii() and (x.isalpha() or x in " '"))
    # one Chinese character or Hangul block is a syllable of its own
    return (
        f" {spelled} "
        if len(spelled) > 1 and not _is_latin(c) and unicodedata.category(c) == "Lo" and ord(c) > 0x2E80
        else spelled
    )
