"""A book to one file of sound: piece by piece, each kept as soon as it is spoken, then all of them put together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from spear_spec.acoustic.contract import Heard
from spear_spec.audio import replacing
from spear_spec.books.book import Book
from spear_spec.books.pieces import Pieces, length, load
from spear_spec.books.write import FORMATS, Mark, Samples, Tags, write_sound
from spear_spec.decoding.chance import derive
from spear_spec.errors import AudioError
from spear_spec.pipeline import TTS
from spear_spec.text import Lexicon, Pauses
from spear_spec.text.ssml import read_ssml
from spear_spec.voice.bundle import choose_speaker

CHAPTER_PAUSE_S = 1.2
_BOOK = 5  # last counter word of `derive`: seeds of a book's pieces


@dataclass(frozen=True)
class Spoken:
    """What came of it. marks: the chapters; spoken, found: pieces that were spoken now, and before."""

    file: Path
    seconds: float
    marks: tuple[Mark, ...]
    spoken: int
    found: int


def check_target(target: Path) -> None:
    """Refuse a file that cannot be written before anything is done.

    Raises:
        AudioError: its ending is not known, or its folder is missing.
    """
    if target.suffix.lower() not in FORMATS:
        raise AudioError(f"cannot write a book as {target}: the name must end in {', '.join(FORMATS)}")
    if target.is_dir() or not target.parent.is_dir():
        what = "it is a folder" if target.is_dir() else f"there is no folder {target.parent}"
        raise AudioError(f"cannot write {target}: {what}")


def speak_book(
    tts: TTS,
    book: Book,
    target: str | Path,
    *,
    seed: int = 0,
    chapter_pause_s: float = CHAPTER_PAUSE_S,
    progress: Callable[[int], None] = lambda characters: None,
    provenance: bool | None = None,
    **options: Any,
) -> Spoken:
    """Speak a book into `target`, whose name ends in one of `FORMATS`; it appears whole, at the end.

    Stopped at any moment, the same call goes on where it was: pieces are kept in `target` + `.part` until then. Each
    has a seed of its own, of `seed` and its text, so a book has the same samples however often it was stopped.

    Args:
        progress: told how many characters have been spoken, or found spoken, each time.
        provenance, options: of `TTS.synthesize`; whether it is SSML, the book says.

    Raises:
        AudioError: the file cannot be written, the disk is full: what was spoken stays. Others as `synthesize`.
    """
    target = Path(target)
    check_target(target)
    options["ssml"] = book.ssml
    pauses = Pauses.of(options.get("pause"))
    who = choose_speaker(tts.bundle, options.get("speaker"))
    sound = tts.sound_of(options.pop("voice", None), who)  # heard once, for all pieces
    tags = tts.tags(who, sound, provenance)
    if sound != who:
        options["voice"] = sound
    pieces = Pieces(target.with_name(target.name + ".part"), _settings(tts, seed, options))
    spoken, found = 0, 0
    chapters: list[tuple[str, list[Path]]] = []
    own_pause: set[Path] = set()  # pieces that begin with a pause of their own
    for chapter in book.chapters:
        paths: list[Path] = []
        for block in chapter.blocks():
            key = pieces.key(block)
            path = pieces.find(key)
            if path is None:
                own = derive(seed, int.from_bytes(sha256(block.encode()).digest()[:8]), _BOOK)
                audio = tts.synthesize(block, seed=own, **options)
                with _kept():
                    path = pieces.keep(key, audio)
                spoken += 1
            else:
                found += 1
            paths.append(path)
            if book.ssml and read_ssml(block)[0][0].pause_s is not None:
                own_pause.add(path)
            progress(len(block))
        if paths:
            chapters.append((chapter.title, paths))
    rate = tts.sample_rate
    speed = float(options.get("speed", 1.0))  # it shortens silence as well
    between, after = (int(seconds / speed * rate) for seconds in (pauses.paragraph, chapter_pause_s))
    gaps = {path: 0 if path in own_pause else between for _, paths in chapters for path in paths}
    marks = _marks(chapters, gaps, after)
    cover = book.cover.data if book.cover is not None else None
    with _kept(), replacing(target) as file:
        samples = _samples(chapters, gaps, after)
        told = Tags(book.title, book.author, book.language, cover, tags.get("comment", ""))
        write_sound(file, target.suffix.lower(), rate, samples, marks, told)
    pieces.clear()
    return Spoken(target, marks[-1].end / rate if marks else 0.0, tuple(marks), spoken, found)


@contextmanager
def _kept() -> Iterator[None]:
    try:
        yield
    except AudioError as error:
        raise AudioError(f"{error}; what was spoken is kept: the same command goes on from there") from None


def _settings(tts: TTS, seed: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """All that the sound of a text depends on."""
    given = dict(options)
    sampling = {key: given[key] for key in ("temperature", "top_k", "top_p", "guidance") if key in given}
    lexicon = Lexicon.of(given.pop("lexicon", None))
    for name, told in (("voice", "sound"), ("judge", "judge")):
        if name in given:
            given[told] = _named(given.pop(name))
    described = tts.describe(batch=given.get("batch", 1), seed=seed, **sampling)
    return {
        **described,
        **{key: repr(value) for key, value in given.items() if key != "meter"},
        "voice": sha256((tts.bundle.path / "config.json").read_bytes()).hexdigest(),
        **({} if tts.acoustic is None else {"stage": sha256((tts.acoustic / "config.json").read_bytes()).hexdigest()}),
        "pause": asdict(Pauses.of(given.get("pause"))),
        "lexicon": None if lexicon is None else lexicon.to_json(),
    }


def _named(thing: object) -> object:
    """What tells a voice or a judge from another, the same in every run."""
    if isinstance(thing, Heard):
        return thing.sha256 or thing.value
    return thing if isinstance(thing, str | None) else getattr(thing, "name", thing)


def _marks(chapters: list[tuple[str, list[Path]]], gaps: Mapping[Path, int], after: int) -> list[Mark]:
    """A chapter ends with the silence behind it. gaps: samples of silence before a piece that is not its first."""
    marks, at = [], 0
    for number, (title, paths) in enumerate(chapters):
        start = at
        at += sum(map(length, paths)) + sum(gaps[path] for path in paths[1:]) + after * (number < len(chapters) - 1)
        marks.append(Mark(title, start, at))
    return marks


def _samples(chapters: list[tuple[str, list[Path]]], gaps: Mapping[Path, int], after: int) -> Iterator[Samples]:
    for number, (_, paths) in enumerate(chapters):
        for at, path in enumerate(paths):
            if at:
                yield np.zeros(gaps[path], dtype=np.int16)
            yield load(path)
        if number < len(chapters) - 1:
            yield np.zeros(after, dtype=np.int16)
