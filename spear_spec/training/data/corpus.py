"""Corpora, read into one form: our own `meta.*.jsonl` folders, LJSpeech- and LibriTTS-shaped folders, lhotse manifests.

What becomes of them is a prepared folder, see `prepared.py`.
"""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from spear_spec.errors import ConfigError, MissingExtraError, TextError

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
    if next(folder.rglob("*.normalized.txt"), None):
        return "libritts"
    raise ConfigError(
        f"{folder} is no corpus that can be read: it needs meta.*.jsonl (ours), metadata.csv and wavs/ (LJSpeech), "
        "or *.normalized.txt beside *.wav (LibriTTS); anything else goes through a lhotse cut manifest (cuts.jsonl.gz)"
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


def _libritts(folder: Path) -> Iterator[Clip]:
    """LibriTTS: SUBSET/SPEAKER/CHAPTER/ID.normalized.txt beside ID.wav; the speaker stands first in the id."""
    for path in sorted(folder.rglob("*.normalized.txt")):
        name = path.name.removesuffix(".normalized.txt")
        yield Clip(
            name,
            name.split("_")[0],
            path.read_text(encoding="utf-8").strip(),
            str(find_audio(path.parent / name) or ""),
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


def read_corpus(
    folder: str | os.PathLike[str], form: str = "auto", *, scratch: str | os.PathLike[str] | None = None
) -> list[Clip]:
    """Every clip of a corpus, ids prefixed with the folder's name so that several corpora can stand together.

    Args:
        folder: the corpus (for lhotse: the cut manifest).
        form: "meta", "ljspeech", "libritts", "lhotse", or "auto".
        scratch: where the cuts of a lhotse manifest are written as files.

    Raises:
        ConfigError: the folder is missing, of no known form, or holds no clip.
        MissingExtraError: a lhotse manifest without lhotse.
    """
    path = Path(folder)
    form = detect(path) if form == "auto" else form
    readers: dict[str, Callable[[Path], Iterator[Clip]]] = {
        "meta": _meta, "ljspeech": _ljspeech, "libritts": _libritts,
        "lhotse": lambda p: _lhotse(p, Path(scratch or p.parent / "cuts")),
    }  # fmt: skip
    if form not in readers:
        raise ConfigError(f"unknown corpus form {form!r}; known are auto, {', '.join(readers)}")
    prefix = path.resolve().name.split(".")[0]
    clips = [
        replace(clip, id=f"{prefix}/{clip.id}", audio=clip.audio and str(Path(clip.audio).resolve()))
        for clip in readers[form](path)
    ]
    if not clips:
        raise ConfigError(f"{path} holds no clips")
    return clips


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


def measure(
    clips: Iterable[Clip], shortest: float = 0.3, longest: float = 30.0, *, progress: bool = True
) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Length of each clip from its header; unreadable, very short and very long ones are left out."""
    import soundfile

    kept, dropped = [], []
    for clip in tqdm(list(clips), desc="lengths", disable=not progress):
        try:
            info = soundfile.info(clip.audio)
        except (OSError, RuntimeError) as error:
            dropped.append((clip.id, f"audio: {error}"))
            continue
        seconds = info.frames / info.samplerate
        if not shortest <= seconds <= longest:
            dropped.append((clip.id, f"{seconds:.2f} s long"))
        else:
            kept.append(replace(clip, seconds=round(seconds, 3)))
    return kept, dropped


def speakers_of(clips: Iterable[Clip]) -> list[str]:
    """Speakers, the one with the most clips first."""
    count = Counter(clip.speaker for clip in clips)
    return sorted(count, key=lambda name: (-count[name], name))
