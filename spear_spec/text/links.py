"""Addresses and mark-up: web and mail addresses to words, markdown to its text."""

from __future__ import annotations

import re

_TLD = r"com|org|net|edu|gov|mil|int|io|ai|co|uk|us|de|fr|eu|info|biz|dev|app|me|tv|ca|au|nz|jp|cn|in|ch|at|nl|se|no|es|it|pl|ru|br|xyz|tech|gg|fm|ly"
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+(?:\.[\w-]+)+\b")
_URL = re.compile(
    rf"\b(?:https?://|ftp://|www\.)[^\s<>\"“”()]+|\b[\w-]+(?:\.[\w-]+)*\.(?:{_TLD})\b(?:/[^\s<>\"“”()]*)?(?![.\w]*@)",
    re.I,
)
_MARKDOWN_LINK = re.compile(r"!?\[(?P<text>[^\[\]]*)\]\([^()\s]*\)")
_EMPHASIS = re.compile(
    r"(?<![\w*])(?P<mark>\*{1,3}|_{1,3}|~~|`{1,3})(?=\S)(?P<text>[^*_~`\n]+?)(?<=\S)(?P=mark)(?![\w*])"
)
_HEADING = re.compile(r"^ {0,3}#{1,6} +", re.M)
_BULLET = re.compile(r"^ *[-*+•] +", re.M)
_TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,200}>")
_HASH_NUMBER = re.compile(r"#(?=\d)")
_HASHTAG = re.compile(r"(?<!\w)#(?=[A-Za-z])")
_HANDLE = re.compile(r"(?<!\w)@(?=[A-Za-z_])")
_MARKS = {".": " dot ", "/": " slash ", "-": " dash ", "_": " underscore ", "@": " at ", "+": " plus ", "?": " question mark ",
          "=": " equals ", "&": " and ", "#": " hash ", ":": " colon ", "%": " percent ", "~": " tilde "}  # fmt: skip


def _address(text: str) -> str:
    return re.sub(r"\s+", " ", "".join(_MARKS.get(c, c) for c in text)).strip()


def _url(match: re.Match[str]) -> str:
    text = match[0]
    body = text.rstrip(".,;:!?'")
    tail = text[len(body) :]
    body = re.sub(r"^(?:https?|ftp)://", "", body, flags=re.I).rstrip("/")
    return _address(re.sub(r"^www\.", "w w w.", body, flags=re.I)) + tail


def speak_links(text: str) -> str:
    """`me@example.com` -> `me at example dot com`; `https://a.org/b` -> `a dot org slash b`; markdown marks are
    dropped.
    """
    text = _MARKDOWN_LINK.sub(lambda m: m["text"], text)
    text = _TAG.sub(" ", text)
    text = _HEADING.sub("", text)
    text = _BULLET.sub("", text)
    text = _EMPHASIS.sub(lambda m: m["text"], text)
    text = _MAIL.sub(lambda m: _address(m[0]), text)
    text = _URL.sub(_url, text)
    text = _HASH_NUMBER.sub("number ", text)
    text = _HASHTAG.sub("hashtag ", text)
    return _HANDLE.sub("at ", text)
