"""LibriTTS and LibriTTS-R (Zen et al. 2019), read by lhotse's recipe: PART/READER/CHAPTER/ID.wav, CHAPTER.trans.tsv,
CHAPTER.book.tsv, and SPEAKERS.txt beside the parts.

lhotse stops at the first file that it cannot read. So it is given a folder of links and of tables without damaged
lines: what is wrong is left out here, with the reason. A chapter without a table gets one of its ID.normalized.txt.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from spear_spec.errors import ConfigError, MissingExtraError

Said = tuple[str, str, str, Path]  # id, reader, text, audio
Skipped = list[tuple[str, str]]
SPEAKERS = "SPEAKERS.txt"


def is_libritts(folder: Path) -> bool:
    """Whether a folder holds a chapter of LibriTTS."""
    return any(next(folder.rglob(f"*{ending}"), None) for ending in (".trans.tsv", ".normalized.txt"))


def read_libritts(folder: Path, scratch: Path) -> tuple[list[Said], Skipped]:
    """Every sentence of a part (or of several, in their folder) that has readable audio and a text, by path.

    Args:
        scratch: an empty folder to work in; it is gone afterwards.

    Returns:
        The sentences, and (id, reason) of what was left out.

    Raises:
        ConfigError: lhotse cannot make anything of the folder. MissingExtraError: lhotse is not installed.
    """
    try:
        from lhotse.recipes.libritts import prepare_libritts
    except ImportError:
        raise MissingExtraError("reading LibriTTS needs lhotse: pip install 'spear_spec[train]'") from None
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        audio, skipped = _mirror(folder, scratch)
        if not audio:
            return [], skipped
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bars
            made = prepare_libritts(scratch, dataset_parts=["part"])["part"]
        said = [
            (each.recording_id, str(each.speaker), each.text, audio[each.recording_id]) for each in made["supervisions"]
        ]
    except (ValueError, KeyError, TypeError, AssertionError, OSError, RuntimeError) as error:
        raise ConfigError(f"lhotse cannot read {folder} as LibriTTS: {' '.join(str(error).split())[:200]}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    left = audio.keys() - {name for name, *_ in said}
    return sorted(said, key=lambda each: each[3]), skipped + [(name, "lhotse leaves it out") for name in sorted(left)]


def _mirror(folder: Path, scratch: Path) -> tuple[dict[str, Path], Skipped]:
    """Links and tables for lhotse under `scratch`; audio by id, and what was left out."""
    audio: dict[str, Path] = {}
    skipped: Skipped = []
    _speakers(folder, scratch)
    for number, chapter in enumerate(_chapters(folder)):
        place = scratch / "part" / str(number)
        place.mkdir(parents=True)
        rows, damaged = _table(chapter)
        skipped += damaged
        kept = []
        for name in sorted({*rows, *(path.stem for path in chapter.glob("[!.]*.wav"))}):
            path = chapter / f"{name}.wav"
            reason = _wrong(name, path, rows, audio)
            if reason is not None:
                skipped.append((name, reason))
                continue
            os.symlink(path.resolve(), place / path.name)
            audio[name] = path
            kept.append(name)
        trans = "".join(f"{name}\t{rows[name][0]}\t{rows[name][1]}\n" for name in kept)
        (place / "chapter.trans.tsv").write_text(trans, encoding="utf-8")
        (place / "chapter.book.tsv").write_text(_noise(chapter, kept), encoding="utf-8")
    return audio, skipped


def _wrong(name: str, path: Path, rows: dict[str, tuple[str, str]], audio: dict[str, Path]) -> str | None:
    """Why a sentence cannot be used; None if it can."""
    import soundfile

    if name not in rows:
        return "no text"
    if not path.is_file():
        return "no audio file"
    if name in audio:
        return f"the same id as {audio[name]}"
    try:
        soundfile.info(path)
    except (OSError, RuntimeError) as error:
        return f"audio: unreadable ({str(error).rpartition(': ')[2]})"
    return None


def _chapters(folder: Path) -> Iterator[Path]:
    found = {path.parent for ending in ("*.wav", "*.trans.tsv") for path in folder.rglob(ending)}
    yield from sorted(found)


def _lines(path: Path) -> list[str]:
    """Lines of a table (only at line feeds: a text may hold other separators); none where there is no table."""
    try:
        return [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError):
        return []


def _plain(text: str) -> str:
    return " ".join(text.split())


def _table(chapter: Path) -> tuple[dict[str, tuple[str, str]], Skipped]:
    """Original and normalised text by id, from the chapter's tables or its text files, and the damaged lines."""
    rows: dict[str, tuple[str, str]] = {}
    skipped: Skipped = []
    tables = sorted(chapter.glob("[!.]*.trans.tsv"))
    for table in tables:
        lines = _lines(table)
        if not lines:
            skipped.append((table.name, "empty, or no text in UTF-8"))
        for number, line in enumerate(lines, 1):
            fields = [_plain(part) for part in line.rstrip("\r").split("\t")]
            if len(fields) != 3 or not fields[0]:
                skipped.append((fields[0] or table.name, f"{table.name}, line {number}: not id, original, normalised"))
            elif not fields[2]:
                skipped.append((fields[0], "its text is empty"))
            else:
                rows[fields[0]] = fields[1], fields[2]
    if not tables:
        for path in sorted(chapter.glob("[!.]*.normalized.txt")):
            name = path.name.removesuffix(".normalized.txt")
            text = _plain(" ".join(_lines(path)))
            original = _plain(" ".join(_lines(path.with_name(f"{name}.original.txt"))))
            if text:
                rows[name] = original or text, text
    return rows, skipped


def _noise(chapter: Path, names: list[str]) -> str:
    """The lines of the book table that lhotse reads: id first, signal-to-noise ratio last."""
    wanted, out = set(names), []
    for table in sorted(chapter.glob("[!.]*.book.tsv")):
        for line in _lines(table):
            name, *_, ratio = [*line.split(), ""] if len(line.split()) < 2 else line.split()
            with contextlib.suppress(ValueError):
                if name in wanted:
                    out.append(f"{name}\t{float(ratio)}\n")
    return "".join(out)


def _speakers(folder: Path, scratch: Path) -> None:
    """SPEAKERS.txt, of the folder or the one above, without damaged lines."""
    scratch.mkdir(parents=True)
    found: Any = next((p / SPEAKERS for p in (folder, folder.resolve().parent) if (p / SPEAKERS).is_file()), None)
    lines = [line for line in _lines(found) if line.startswith(";") or line.count("|") >= 2] if found else []
    (scratch / SPEAKERS).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
