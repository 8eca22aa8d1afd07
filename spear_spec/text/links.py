"""Addresses and mark-up: web and mail addresses to words; HTML and Markdown to their text."""

from __future__ import annotations

import html
import re
from html.entities import html5

from spear_spec.text import tables
from spear_spec.text.numbers import in_pairs

_TLD = (
    r"com|org|net|edu|gov|mil|int|io|ai|co|uk|us|de|fr|eu|info|biz|dev|app|me|tv|ca|au|nz|jp|cn|in|ch|at|nl|se|no|es|it|pl|ru|br|xyz|tech|gg|"
    r"fm|ly"
)
# bounded and possessive throughout: a text of hyphens or points costs no more than its length
_MAIL = re.compile(
    r"(?<![\w.+-])[\w.+-]{1,64}+@[\w-]{1,63}+(?:\.[\w-]{1,63}+){1,8}+(?::[\w.-]{1,63}+(?:/[\w-]{1,63}+){1,8}+(?:\.\w{1,8}+)?)?"
)
_URL = re.compile(
    rf"\b(?:https?://|ftp://|www\.)[^\s<>\"“”()]+|(?<![\w.@-])(?:[\w-]{{1,63}}\.){{1,6}}(?:{_TLD})\b(?::\d{{2,5}}\b)?(?:/[^\s<>\"“”()]*)?(?![\w@]|\.\w)"
    r"|\blocalhost(?::\d{2,5}\b)?(?:/[^\s<>\"“”()]*)?(?!\w)|(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}:\d{2,5}(?![\w.:]*\d)",
    re.I,
)
_PORT = re.compile(r":(?P<port>\d{2,5})(?=/|$)")
# paths: C:\Users\Ann\a.txt, \\server\share, src\main, ~/notes, .bashrc
_STEP = r"\\{1,2}[\w.~$%-]{1,100}+"
_WINDOWS = re.compile(
    rf"(?<![\w\\$])(?:(?:[A-Za-z]:|\.{{1,2}})(?:{_STEP}){{1,30}}\\?|\\\\\w[\w.-]{{1,62}}(?:{_STEP}){{1,30}}|[A-Za-z][\w.-]{{1,62}}(?:{_STEP}){{1,30}})(?![\w{{^\\])"
)
_HOME = re.compile(r"(?<![\w~/])~(?=/)")
_DOTTED = re.compile(
    rf"(?<![\w.])\.(?=(?:{'|'.join(sorted(tables.DOT_NAMES, key=len, reverse=True))})(?![\w@]))|(?<=/)\.(?=[A-Za-z])"
)
_FOOTNOTES = re.compile(
    r"(?<=[\w.,;:!?\"'”’)])(?:\[\^[^\]\s]{1,20}\]|\[\d{1,3}(?:[,–-] ?\d{1,3}){0,5}\])+|\[\^[^\]\s]{1,20}\]"
)
_RAISED_NOTE = re.compile(
    r"(?:(?<=[a-z]{3})|(?<=[.,;!?\"”’)]))[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,3}(?=[\s.,;:!?)]|$)|(?<=[\w.,;!?”’\"])[†‡]"
)
_MARKDOWN_LINK = re.compile(r"!?\[(?P<text>[^\[\]]{0,200})\]\([^()\s]{0,500}(?: \"[^\"()]{0,200}\")?\)")
_REFERENCE_LINK = re.compile(r"\[(?P<text>[^\[\]]{1,200})\]\[[^\[\]]{0,40}\]")
_EMPHASIS = re.compile(
    r"(?<![\w*~`=])(?P<mark>\*{1,3}|_{1,3}|~~|`{1,3}|==)(?=[^\s*_~`=])(?P<text>[^*_~`\n]{1,400}?)(?<=\S)(?P=mark)(?![\w*~`=])"
)
_INNER_EMPHASIS = re.compile(r"(?P<mark>\*\*|~~|==)(?=\w)(?P<text>[^*~=\n]{1,400}?)(?<=\w)(?P=mark)")
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,200}>")
_LINE_TAG = re.compile(r"<br ?/?>|</(?:p|div|li|h[1-6]|tr)>", re.I)
_COMMENT = re.compile(r"<!--.{0,2000}?-->", re.S)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_DIVIDED = re.compile(r"(?P<first>[A-Za-z]{2,40}+)[-‐\u00ad][ \t]*\n[ \t]*(?P<second>[a-z]{2,40})")
_ENDINGS = "|".join(sorted({*tables.FILES, *map(str.upper, tables.FILES)}, key=len, reverse=True))
_FILE = re.compile(
    rf"(?<![\w.@/-])(?P<name>[A-Za-z][\w-]{{0,63}}+)(?:\.(?P<inner>{_ENDINGS}))?\.(?P<ending>{_ENDINGS})"
    r"(?P<line>(?::\d{1,6}){1,2}(?![\w:]))?(?![\w@/-]|\.\w)"
)
_ENDING = re.compile(rf"(?<= dot )(?P<ending>{_ENDINGS})(?![\w@/-]|\.\w)")
_UNDERSCORED = re.compile(r"(?<![\w.])(?P<name>@[A-Za-z]\w{0,63}+)")
_SHARP_MINOR = re.compile(r"(?<=\b[A-G])#m(?=\d{0,2}(?:b5)?\b)")  # a chord
_SHARP = re.compile(r"(?<=\b[A-G])#(?![\w#])")  # the languages, and the notes
_DOT_NET = re.compile(r"(?<![\w.])\.NET\b|(?<=\bASP)\.NET\b")
_HASH_NUMBER = re.compile(r"#(?=\d)")
_NUMBER_SIGN = re.compile(r"(?<=[a-z.]) ?#(?=:|\s*$)")  # Account #: 12
_LATEX = frozenset({*tables.LATEX, *tables.LATEX_GREEK, *(name.capitalize() for name in tables.LATEX_GREEK)})
_HASHTAG = re.compile(r"(?<!\w)#(?P<tag>[A-Za-z]\w{0,99}|\d{1,4}[A-Za-z]{3}\w{0,96})")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z]{2})|(?<=\d)(?=[A-Za-z]{3})|_+")
_HANDLE = re.compile(r"(?<!\w)@(?=[A-Za-z_])")
_MARKS = {
    ".": " dot ", "/": " slash ", "-": " dash ", "_": " underscore ", "@": " at ", "+": " plus ",
    "?": " question mark ", "=": " equals ", "&": " and ", "#": " hash ",
    ":": " colon ", "%": " percent ", "~": " tilde ",
}  # fmt: skip


def _address(text: str) -> str:
    return re.sub(r"\s+", " ", "".join(_MARKS.get(c, c) for c in text)).strip()


def _url(match: re.Match[str]) -> str:
    text = match[0]
    body = text.rstrip(".,;:!?'")
    tail = text[len(body) :]
    body = re.sub(r"^(?:https?|ftp)://", "", body, flags=re.I).rstrip("/")
    body = _PORT.sub(lambda m: f":{in_pairs(m['port']).replace('-', ' ')}", body, count=1)
    return _address(re.sub(r"^www\.", "w w w.", body, flags=re.I)) + tail


def _entity(match: re.Match[str]) -> str:
    known = match[0][1] == "#" or match[0][1:] in html5
    sign = html.unescape(match[0]).replace("\xa0", " ") if known else match[0]
    return "< " if sign == "<" else sign  # what was written as an entity is no tag


def _undivided(match: re.Match[str]) -> str:
    """`divi-` and `ded` to one word if there is such a word; else the hyphen was its own (`well-known`)."""
    from spear_spec.text.g2p import shared_g2p

    whole = match["first"] + match["second"]
    known = shared_g2p().knows
    halves = known(match["first"]) and known(match["second"])
    return whole if known(whole) or not halves else f"{match['first']}-{match['second']}"


def _file(match: re.Match[str]) -> str:
    name = re.sub(r"[-_]+", " ", match["name"])
    endings = [tables.FILES[e.lower()] for e in (match["inner"], match["ending"]) if e]
    line = (match["line"] or "").replace(":", " colon ")
    return " dot ".join((name, *endings)) + line


def _hashtag(match: re.Match[str]) -> str:
    """`#ThrowbackThursday`, `#100DaysOfCode`: its words, which capitals tell apart."""
    return "hashtag " + _CAMEL.sub(" ", match["tag"])


def _dots(match: re.Match[str]) -> str:
    return " ".join(["dot"] * len(match[1]))


def _windows(match: re.Match[str]) -> str:
    """`C:\\Users\\Ann`, unless it is LaTeX: `x\\times y`."""
    path = match[0]
    drive = re.match(r"[A-Za-z]:", path)
    names = re.split(r"\\+", path)
    if not drive and path[0] not in "\\." and any(n in _LATEX for n in names[1:]):
        return path
    said = re.sub(r"\\+", " backslash ", path)
    return f"{path[0].upper()} colon{said[2:]}" if drive else re.sub(r"^(\.+)", _dots, said).strip()


def speak_paths(text: str) -> str:
    """`C:\\Users\\a.txt` -> `C colon backslash Users backslash a.txt`, before formulas are looked for."""
    return _WINDOWS.sub(_windows, text) if "\\" in text else text


def strip_markup(text: str) -> str:
    """HTML tags and entities, Markdown emphasis, links and footnote marks to plain text; divided words to whole ones.
    Lines stay lines: their marks (`#`, `-`, `>`) are for `lines`.
    """
    if "<" in text:
        text = _TAG.sub(" ", _LINE_TAG.sub("\n", _COMMENT.sub("", text)))
    if "&" in text:
        text = _ENTITY.sub(_entity, text)
    if "\n" in text:
        text = _DIVIDED.sub(_undivided, text)
    if "[" in text:
        text = _MARKDOWN_LINK.sub(lambda m: m["text"], text)
        text = _REFERENCE_LINK.sub(lambda m: m["text"], text)
        text = _FOOTNOTES.sub("", text)
    if not text.isascii():
        text = _RAISED_NOTE.sub("", text)
    for pattern in (_EMPHASIS, _EMPHASIS, _INNER_EMPHASIS):
        text = pattern.sub(lambda m: m["text"], text)
    return text


def speak_links(text: str) -> str:
    """`me@example.com` -> `me at example dot com`; `https://a.org/b` -> `a dot org slash b`; `#1` -> `number 1`."""
    if "." in text and "@" in text:
        text = text.replace("mailto:", "")
        text = _MAIL.sub(lambda m: _address(m[0]), text)
    if "." in text or "localhost" in text:
        text = _URL.sub(_url, text)
    if "~" in text:
        text = _HOME.sub("tilde ", text)
    if "." in text:
        text = _DOT_NET.sub("dot net", text)
        text = _DOTTED.sub(" dot ", text)
        text = _FILE.sub(_file, text)
        text = _ENDING.sub(lambda m: tables.FILES[m["ending"].lower()], text)
    if "#" in text:
        text = _SHARP.sub(" sharp", _SHARP_MINOR.sub(" sharp minor ", text))
        text = _HASHTAG.sub(_hashtag, text)
        text = _HASH_NUMBER.sub("number ", text)
        text = _NUMBER_SIGN.sub(" number", text)
    if "@" in text:
        text = _UNDERSCORED.sub(lambda m: _address(m["name"]) if "_" in m["name"] else m["name"], text)
    return _HANDLE.sub("at ", text)
