"""Files of word times: JSON, SubRip (.srt) and WebVTT (.vtt, where each word has its own time)."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from spear_spec.audio import TimedWord, write_atomically
from spear_spec.errors import ConfigError

KINDS = (".json", ".srt", ".vtt")
LINE = 42  # letters of a line of a subtitle
LINES = 2
_NEAR = 20  # letters by which a cut may move to a clause's end
SHORTEST_S = 1.0  # a subtitle stays so long where the next one lets it
_DASHED = re.compile(r"\S(?:[—–]+|--+)$")  # the next word stands right behind it
_CLAUSE = re.compile(r"[,;:.!?…—–][\"'”’)\]]*$")


@dataclass(frozen=True)
class Cue:
    """What is shown at once, from start_s to end_s: lines of words."""

    lines: tuple[tuple[TimedWord, ...], ...]
    start_s: float
    end_s: float


def check_kind(path: str | os.PathLike[str]) -> str:
    """The file's suffix, one of `KINDS`.

    Raises:
        ConfigError: another one.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in KINDS:
        raise ConfigError(f"cannot write word times to {path}: the name must end in {', '.join(KINDS[:-1])} or .vtt")
    return suffix


def save_words(path: str | os.PathLike[str], words: Sequence[TimedWord], **about: Any) -> None:
    """Write a file of word times, its form by the suffix, whole or not at all. about: further fields of the JSON.

    Raises:
        ConfigError: another suffix. AudioError: it cannot be written.
    """
    suffix = check_kind(path)
    text = to_json(words, **about) if suffix == ".json" else to_srt(words) if suffix == ".srt" else to_vtt(words)
    write_atomically(Path(path), text.encode())


def to_json(words: Sequence[TimedWord], **about: Any) -> str:
    """timestamps/1: see docs/schemas/timestamps-1.json."""
    said = [
        {"text": w.text, "start_s": round(w.start_s, 4), "end_s": round(w.end_s, 4), "sentence": w.sentence}
        for w in words
    ]
    return json.dumps({"schema": "timestamps/1", **about, "words": said}, ensure_ascii=False) + "\n"


def to_srt(words: Sequence[TimedWord]) -> str:
    """SubRip: numbered cues."""
    out = []
    for number, cue in enumerate(cues(words), 1):
        shown = "\n".join(_joined([_plain(word.text) for word in line]) for line in cue.lines)
        out.append(f"{number}\n{_clock(cue.start_s, ',')} --> {_clock(cue.end_s, ',')}\n{shown}\n")
    return "\n".join(out)


def to_vtt(words: Sequence[TimedWord]) -> str:
    """WebVTT: cues in which each word but the first has the time at which it is heard."""
    out = ["WEBVTT\n"]
    for cue in cues(words):
        latest, lines = round(1000 * cue.start_s), []
        for line in cue.lines:
            said = []
            for word in line:
                now = round(1000 * word.start_s)
                tag = ""
                if latest < now < round(1000 * cue.end_s):  # times within a cue rise
                    tag, latest = f"<{_clock(word.start_s, '.')}>", now
                said.append(tag + _escaped(_plain(word.text)))
            lines.append(_joined(said))
        shown = "\n".join(lines)
        out.append(f"{_clock(cue.start_s, '.')} --> {_clock(cue.end_s, '.')}\n{shown}\n")
    return "\n".join(out)


def cues(words: Sequence[TimedWord]) -> Iterator[Cue]:
    """Words in cues of at most `LINES` lines of `LINE` letters, none of which holds words of two sentences."""
    groups: list[list[TimedWord]] = []
    for word in words:
        if not groups or groups[-1][-1].sentence != word.sentence:
            groups.append([])
        groups[-1].append(word)
    shown = [lines for group in groups for lines in _split(group)]
    for number, lines in enumerate(shown):
        start, end = lines[0][0].start_s, lines[-1][-1].end_s
        wanted = max(end, start + SHORTEST_S)
        following = shown[number + 1][0][0].start_s if number + 1 < len(shown) else wanted
        yield Cue(tuple(map(tuple, lines)), start, max(end, min(wanted, following)))


def _split(words: Sequence[TimedWord]) -> Iterator[list[list[TimedWord]]]:
    """The words of a sentence in cues: as few as there can be, of like lengths, cut at a clause's end where one is
    near.
    """
    rest = list(words)
    while rest:
        lines = _lines(rest)
        most = sum(map(len, lines[:LINES]))
        if len(lines) > LINES:
            ends = list(accumulate(len(word.text) + 1 for word in rest))
            fair = ends[-1] / math.ceil(len(lines) / LINES)
            most = min(range(1, most + 1), key=lambda n: abs(ends[n - 1] - fair) - _NEAR * _ends_clause(rest[n - 1]))
        yield _lines(rest[:most])
        rest = rest[most:]


def _ends_clause(word: TimedWord) -> bool:
    return _CLAUSE.search(word.text) is not None


def _lines(words: Sequence[TimedWord]) -> list[list[TimedWord]]:
    lines: list[list[TimedWord]] = []
    for word in words:
        if lines and len(_joined([w.text for w in (*lines[-1], word)])) <= LINE:
            lines[-1].append(word)
        else:
            lines.append([word])
    return lines


def _joined(words: Sequence[str]) -> str:
    return "".join(
        word + ("" if number + 1 == len(words) or _DASHED.search(word) else " ") for number, word in enumerate(words)
    )


def _plain(text: str) -> str:
    """On one line, without what both formats read as a time line."""
    return " ".join(text.split()).replace("-->", "->")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _clock(seconds: float, point: str) -> str:
    ms = round(1000 * seconds)
    return f"{ms // 3_600_000:02d}:{ms // 60_000 % 60:02d}:{ms // 1000 % 60:02d}{point}{ms % 1000:03d}"
