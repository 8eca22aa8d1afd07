"""Corpora, read into one form: our own `meta.*.jsonl` folders, LJSpeech- and LibriTTS-shaped folders, lhotse manifests.

What becomes of them is a prepared folder, see `prepared.py`.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from spear_spec.errors import ConfigError, MissingExtraError, TextError
from spear_spec.training.data.libritts import is_libritts, read_libritts

FORMS = ("meta", "ljspeech", "libritts", "lhotse")
SUFFIXES = (".ogg", ".flac", ".wav", ".opus", ".mp3")
DURATION_RATE = 40  # frames of `Clip.frames` a second: 600 samples at 24 kHz each


@dataclass(frozen=True)
class Clip:
    """One utterance of a corpus. frames: the duration of each phoneme in frames of 600 samples at 24 kHz, silence at
    both ends included (None: the corpus has no durations); seconds: 0 where it is not known yet."""

    id: str
    speaker: str
    text: str
    audio: str
    phonemes: str | None = None
    frames: list[int] | None = None
    seconds: float = 0.0


def detect(folder: Path) -> str:
    """The form of a corpus folder: "meta", "ljspeech", "libritts" or "lhotse".

    Raises:
        ConfigError: it has none of the forms.
    """
    if folder.is_file() and folder.name.endswith((".jsonl", ".jsonl.gz")):
        return "lhotse"
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such corpus folder")
    if any(folder.glob("meta.*.jsonl")):
        return "meta"
    if (folder / "metadata.csv").is_file():
        return "ljspeech"
    if is_libritts(folder):
        return "libritts"
    raise ConfigError(
        f"{folder} is no corpus that can be read: it needs meta.*.jsonl (ours), metadata.csv and wavs/ (LJSpeech), "
        "or *.trans.tsv or *.normalized.txt beside *.wav (LibriTTS); anything else goes through a lhotse cut manifest "
        "(cuts.jsonl.gz)"
    )


def find_audio(stem: Path) -> Path | None:
    """The audio file of this name, whatever its suffix."""
    return next((p for p in (stem.parent / f"{stem.name}{suffix}" for suffix in SUFFIXES) if p.is_file()), None)


def _meta(folder: Path) -> Iterator[Clip]:
    """Our form: one JSON object a line; the audio lies under its id."""
    for path in sorted(folder.glob("meta.*.jsonl")):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
                audio = find_audio(folder / item["id"])
                clip = Clip(
                    item["id"],
                    item["voice"],
                    item["text"],
                    str(audio or ""),
                    item.get("phonemes"),
                    item.get("frames"),
                    float(item["seconds"]),
                )
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"{path}, line {number}: not a clip ({error})") from None
            yield clip


def _ljspeech(folder: Path) -> Iterator[Clip]:
    """LJ Speech: metadata.csv with id | raw | normalised text (the last field that is not empty counts),
    wavs/ID.wav.
    """
    with (folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file, delimiter="|", quoting=csv.QUOTE_NONE):
            if len(row) < 2:
                continue
            text = next((field.strip() for field in reversed(row[1:]) if field.strip()), "")
            yield Clip(
                row[0].strip(), folder.resolve().name, text, str(find_audio(folder / "wavs" / row[0].strip()) or "")
            )


def _lhotse(manifest: Path, audio: Path) -> Iterator[Clip]:
    """Any corpus that lhotse knows: a cut manifest.

    Each cut is written to `audio`, since it may be a part of a file.
    """
    try:
        from lhotse import CutSet
    except ImportError:
        raise MissingExtraError("reading a lhotse manifest needs lhotse: pip install 'spear-spec[train]'") from None
    audio.mkdir(parents=True, exist_ok=True)
    for cut in CutSet.from_file(str(manifest)):
        if len(cut.supervisions) != 1:
            continue  # several voices at once, or none: no utterance
        said = cut.supervisions[0]
        path = audio / f"{cut.id}.flac"
        if not path.exists():
            cut.save_audio(str(path))
        yield Clip(cut.id, str(said.speaker or "speaker"), (said.text or "").strip(), str(path))


class Corpus(NamedTuple):
    """Clips, and (id, reason) of what cannot even be one."""

    clips: list[Clip]
    skipped: list[tuple[str, str]]


def open_corpus(
    folder: str | os.PathLike[str], form: str = "auto", *, scratch: str | os.PathLike[str] | None = None
) -> Corpus:
    """Every clip of a corpus, ids prefixed with the folder's name so that several corpora can stand together.

    Args:
        folder: the corpus (for lhotse: the cut manifest).
        form: "meta", "ljspeech", "libritts", "lhotse", or "auto".
        scratch: where the cuts of a lhotse manifest are written as files, and lhotse's links to LibriTTS.

    Raises:
        ConfigError: the folder is missing, of no known form, or holds no clip.
        MissingExtraError: LibriTTS or a lhotse manifest without lhotse.
    """
    path = Path(folder)
    form = detect(path) if form == "auto" else form
    if form not in FORMS:
        raise ConfigError(f"unknown corpus form {form!r}; known are auto, {', '.join(FORMS)}")
    if not path.exists():
        raise ConfigError(f"{folder}: no such corpus folder")
    prefix = path.resolve().name.split(".")[0]
    place = Path(scratch) if scratch is not None else None
    skipped: list[tuple[str, str]] = []
    if form == "libritts":
        with tempfile.TemporaryDirectory(dir=_made(place)) as empty:
            said, skipped = read_libritts(path, Path(empty) / "links")
        clips = [Clip(name, reader, text, str(audio)) for name, reader, text, audio in said]
    elif form == "lhotse":
        clips = list(_lhotse(path, place or path.parent / "cuts"))
    else:
        clips = list((_meta if form == "meta" else _ljspeech)(path))
    clips = [
        replace(clip, id=f"{prefix}/{clip.id}", audio=clip.audio and str(Path(clip.audio).resolve())) for clip in clips
    ]
    if not clips:
        raise ConfigError(f"{path} holds no clips" + (f"; the first reason is: {skipped[0][1]}" if skipped else ""))
    return Corpus(clips, [(f"{prefix}/{name}", reason) for name, reason in skipped])


def _made(folder: Path | None) -> Path | None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def read_corpus(
    folder: str | os.PathLike[str], form: str = "auto", *, scratch: str | os.PathLike[str] | None = None
) -> list[Clip]:
    """The clips alone, see `open_corpus`."""
    return open_corpus(folder, form, scratch=scratch).clips


def add_phonemes(
    clips: Iterable[Clip], phonemize: Callable[[str], str], *, progress: bool = True
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Phonemes by the front end that runs when the voice speaks; clips for which that is not possible are left out.

    A clip that brings phonemes of its own (and so durations for them) stays only if ours are the same: a model trained
    on other phonemes than it will be given is trained on the wrong task.

    Returns:
        The clips that stay, and (id, reason) of those that do not.
    """
    kept, dropped = [], []
    for clip in tqdm(list(clips), desc="phonemes", disable=not progress):
        if not clip.audio:
            dropped.append((clip.id, "no audio file"))
            continue
        try:
            phonemes = phonemize(clip.text)
        except TextError as error:
            dropped.append((clip.id, f"text: {error}"))
            continue
        if not phonemes.strip():
            dropped.append((clip.id, "nothing to say"))
        elif clip.phonemes is not None and clip.phonemes != phonemes:
            dropped.append((clip.id, f"other phonemes: {clip.phonemes} | {phonemes}"))
        elif clip.frames is not None and len(clip.frames) != len(phonemes) + 2:
            dropped.append((clip.id, f"{len(clip.frames)} durations for {len(phonemes)} phonemes"))
        else:
            kept.append(replace(clip, phonemes=phonemes))
    return kept, dropped


def apart(what: str, clips: Iterable[Clip], others: Iterable[Clip], where: str) -> None:
    """Refuse readers that occur on both sides.

    Args:
        what, where: how the settings call the two.

    Raises:
        ConfigError: there are some.
    """
    both = sorted({clip.speaker for clip in clips} & {clip.speaker for clip in others})
    if both:
        few = ", ".join(both[:3]) + (f" and {len(both) - 3} more" if len(both) > 3 else "")
        raise ConfigError(
            f"{what} has readers of {where}: {few}. An evaluation on unseen readers must not have heard them: name "
            "other folders, or take them out of training (prepare.speakers)"
        )


def speakers_of(clips: Iterable[Clip]) -> list[str]:
    """Speakers, the one with the most clips first."""
    count = Counter(clip.speaker for clip in clips)
    return sorted(count, key=lambda name: (-count[name], name))
