"""A corpus of LibriTTS's shape, small enough for a test: buzzes in place of speech, all else as OpenSLR has it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

SENTENCES = """
The cat sat on the mat. | A dog ran home. | Two birds sang. | She saw the sea. | He gave me a pen. | They like tea.
We go north. | Rain fell all day. | The door is open. | I know him well. | Bread and milk. | The sun is hot.
Ships come in. | My hat is red. | You may sit. | Snow is cold. | The old man slept. | It was late. | Birds fly south.
Close the box.
"""
SENTENCES = [text.strip() for line in SENTENCES.strip().splitlines() for text in line.split("|")]
READERS = {"train-clean-100": ("84", "1034", "103"), "dev-clean": ("251",), "test-clean": ("61", "908")}
GENDERS = {"84": "F", "1034": "M", "103": "F", "251": "M", "61": "M", "908": "F"}


def tone(text: str, pitch: float, rate: int) -> np.ndarray:
    """A buzz at `pitch` Hz whose spectrum changes with every letter of the text: 50 ms a letter."""
    hop, rng = rate // 20, np.random.default_rng(len(text))
    count = len(text) * hop
    phase = 2 * np.pi * pitch * np.arange(count) / rate
    loud = np.stack([[np.cos(ord(c) * k) ** 2 / k for k in range(1, 13)] for c in text])
    wave = (np.repeat(loud, hop, axis=0) * np.sin(np.outer(phase, np.arange(1, 13)))).sum(1)
    wave = 0.1 * wave + 0.002 * rng.standard_normal(count)
    return np.pad(wave, (rate // 10, rate // 10)).astype(np.float32)


def make_part(folder: Path, readers: tuple[str, ...], texts: list[str]) -> Path:
    """READER/CHAPTER/ID.wav (24 kHz, 16 bits) with both text files, and the chapter's tables; sentences go round."""
    rows: dict[Path, list[str]] = {}
    for number, text in enumerate(texts):
        reader = readers[number % len(readers)]
        chapter = f"{1000 + int(reader)}"
        name = f"{reader}_{chapter}_{number:06d}_000000"
        place = folder / reader / chapter
        place.mkdir(parents=True, exist_ok=True)
        pitch = 100 + 23 * (int(reader) % 7)
        soundfile.write(place / f"{name}.wav", tone(text, pitch, 24000), 24000, subtype="PCM_16")
        (place / f"{name}.normalized.txt").write_text(text, encoding="utf-8")
        (place / f"{name}.original.txt").write_text(text.upper(), encoding="utf-8")
        rows.setdefault(place, []).append(f"{name}\t{text.upper()}\t{text}")
    for place, lines in rows.items():
        stem = f"{place.parent.name}_{place.name}"
        (place / f"{stem}.trans.tsv").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        book = "".join(f"{line}\t0\t12.5\t31.25\n" for line in lines)
        (place / f"{stem}.book.tsv").write_text(book, encoding="utf-8")
    return folder


def make_libritts(root: Path) -> Path:
    """The folder LibriTTS: three readers to train on, and others in dev-clean and test-clean."""
    for part, readers in READERS.items():
        make_part(root / part, readers, SENTENCES if part.startswith("train") else SENTENCES[:6])
    lines = [";ID  |SEX| SUBSET           |MINUTES| NAME\n"]
    for part, readers in READERS.items():
        lines += [f"{reader:5}| {GENDERS[reader]} | {part:17}| 0.10 | Reader {reader}\n" for reader in readers]
    (root / "SPEAKERS.txt").write_text("".join(lines), encoding="utf-8")
    return root
