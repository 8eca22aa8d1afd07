"""What is asked for: lines of a JSON Lines or text file, all checked before anything is spoken."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from spear_spec.acoustic.prompt import digest_of
from spear_spec.config import SamplingConfig, number, shown
from spear_spec.decoding.chance import check_seed
from spear_spec.decoding.request import check_cap
from spear_spec.errors import ConfigError, SpearSpecError, TextError
from spear_spec.text import Reading

LONGEST_ID = 100
SPEEDS = (0.25, 4.0)
_SAMPLING = ("temperature", "top_k", "top_p", "guidance")
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MOST_SHOWN = 5  # mistakes that one error tells


@dataclass(frozen=True)
class Line:
    """One text to speak into a file of its own.

    number: in the input, from 1. id: names the file; letters, digits, '.', '_', '-'. What is None or left out comes
    from the settings of the run. prompt: the file whose voice speaks it, and its SHA-256 when the run began. pause: as
    `Pauses.of`; lexicon: words to pronunciations, as `Lexicon.of`; ssml: whether the text is SSML.

    Raises:
        ConfigError, TextError: a field that cannot be used.
    """

    number: int
    id: str
    text: str
    speaker: str | None = None
    seed: int | None = None
    speed: float | None = None
    max_tokens: int | None = None
    sampling: Mapping[str, float] = field(default_factory=dict)
    prompt: str | None = None
    prompt_sha256: str | None = None
    pause: float | list[float] | None = None
    lexicon: Mapping[str, str] | None = None
    ssml: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or len(self.id) > LONGEST_ID or not _ID.fullmatch(self.id):
            raise ConfigError(
                f"id {shown(self.id)} cannot name a file: at most {LONGEST_ID} of A-Z a-z 0-9 . _ -, no . or - in front"
            )
        if not isinstance(self.text, str):
            raise TextError(f"text must be a string, not {shown(self.text)}")
        if not self.text.strip():
            raise TextError("text is empty: nothing to say")
        try:
            self.text.encode()
        except UnicodeEncodeError:
            raise TextError("text is not UTF-8: it holds half of a surrogate pair") from None
        if not isinstance(self.speaker, str | None):
            raise ConfigError(f"speaker must be a name, not {shown(self.speaker)}")
        if not isinstance(self.prompt, str | None):
            raise ConfigError(f"prompt must be the name of a file, not {shown(self.prompt)}")
        if self.seed is not None:
            check_seed(self.seed)
        if self.speed is not None:
            number("speed", self.speed, *SPEEDS)
        check_cap(self.max_tokens)
        SamplingConfig().changed(**self.sampling)
        if not isinstance(self.lexicon, Mapping | None):
            raise ConfigError(f"lexicon must be an object of words and pronunciations, not {shown(self.lexicon)}")
        Reading().changed(self.pause, self.lexicon, self.ssml)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without what was left out; `Line(**d)` reads it back."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in given.items() if value is not None and value != {}}


_KNOWN = (
    "id", "text", "speaker", "prompt", "seed", "speed", "max_tokens", "pause", "lexicon", "ssml", *_SAMPLING
)  # fmt: skip


def parse_lines(
    text: str,
    *,
    jsonl: bool,
    name: str = "the input",
    speakers: Iterable[str] | None = None,
    base: Path = Path(),
) -> list[Line]:
    """Lines of a file; blank ones keep their number and are not spoken. Without an id a line is called by its number,
    from 000, as `say --file` does.

    Args:
        jsonl: an object a line: text, and what else of `Line` differs (sampling settings by their names).
        speakers: refuse any other. base: the folder that the names of prompts start from.

    Raises:
        TextError: nothing to speak, or lines that are wrong: the first few of them, each with its number.
    """
    written = text.split("\n")  # not splitlines: JSON strings may hold its other separators
    if not jsonl:
        written = text.splitlines()
    elif written[-1] == "":
        written.pop()
    digits = max(3, len(str(len(written) - 1)))
    allowed = None if speakers is None else set(speakers)
    lines: list[Line] = []
    seen: dict[str, int] = {}
    wrong: list[str] = []
    digests: dict[Path, str] = {}
    for at, one in enumerate(written):
        if not one.strip():
            continue
        try:
            line = Line(at + 1, **({"id": f"{at:0{digits}d}"} | (_fields(one) if jsonl else {"text": one.strip()})))
            if allowed is not None and line.speaker is not None and line.speaker not in allowed:
                raise ConfigError(f"there is no speaker {shown(line.speaker)}; there are {', '.join(sorted(allowed))}")
            if line.prompt is not None:
                path = (base / line.prompt).resolve()
                if path not in digests:
                    digests[path] = digest_of(path)
                line = replace(line, prompt=str(path), prompt_sha256=digests[path])
            if (before := seen.setdefault(line.id.casefold(), at + 1)) != at + 1:
                raise ConfigError(f"id {line.id!r} is that of line {before} (in some folders A and a are one name)")
            lines.append(line)
        except SpearSpecError as error:
            wrong.append(f"line {at + 1}: {error}")
    if wrong:
        more = f"; and {len(wrong) - _MOST_SHOWN} more lines" if len(wrong) > _MOST_SHOWN else ""
        raise TextError(f"{name}: {'; '.join(wrong[:_MOST_SHOWN])}{more}. Nothing was spoken")
    if not lines:
        raise TextError(f"{name} holds no text")
    return lines


def _fields(written: str) -> dict[str, Any]:
    """Arguments of `Line` from one JSON object."""
    try:
        values = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise TextError(f"not JSON ({shown(str(error))})") from None
    if not isinstance(values, dict):
        raise TextError(f'must be an object such as {{"text": "Hello."}}, not {shown(values)}')
    if unknown := [key for key in values if key not in _KNOWN]:
        raise ConfigError(f"unknown key {shown(unknown[0])}; known are {', '.join(_KNOWN)}")
    if "text" not in values:
        raise TextError("has no text")
    found = {key: value for key, value in values.items() if key not in _SAMPLING and value is not None}
    if isinstance(number := found.get("id"), int) and not isinstance(number, bool) and 0 <= number < 10**18:
        found["id"] = str(number)
    found["sampling"] = {key: values[key] for key in _SAMPLING if values.get(key) is not None}
    return {"text": values["text"], **found}


def cut(lines: list[Line], size: int) -> Iterator[list[Line]]:
    """Runs of at most `size` lines."""
    return (lines[at : at + size] for at in range(0, len(lines), size))
