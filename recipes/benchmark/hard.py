"""Lost, added and repeated words on texts/hard.txt, as two recognisers hear them that must agree.

    python recipes/benchmark/hard.py --out runs/hard [--voice NAME|FOLDER] [--speakers af_heart] [--seeds 0,1,2,3,4]
        [--kinds pairs,months] [--limit N] [--texts FILE] [--set KEY=VALUE ...]

tiny.en writes what it hears; the front end turns that into phonemes. hama hears phonemes itself. Both are aligned with
the phonemes that were asked for. A word is lost where both lost most of its phonemes, added where both hear phonemes
that nobody wrote at the same place, repeated where those are what stands beside them. Digits and numbers are compared
as they sound, so spelling does not count.

A line of OUT/hard.<speaker>.jsonl is a text and a seed, written as soon as it is judged: the same command goes on where
it stopped. The summary is OUT/hard.json. About 1.2 s of a core each: 580 lines (five seeds, one speaker) 12 minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tqdm import tqdm

import spear_spec
from spear_spec.evaluation.phonemes import PhonemeErrorJudge, fold
from spear_spec.evaluation.wer import WordErrorJudge

HARD = Path(__file__).parent / "texts" / "hard.txt"
KINDS = ("pairs", "rows", "sets", "lists", "digits", "repeats", "unpunctuated", "short", "mixed")  # blocks of hard.txt
MOST_LOST = 0.6  # share of a word's phonemes that must be missing for it to count as lost
ADDED = 3  # phonemes in a row that nobody wrote
NEAR = 4  # phonemes by which the places of an addition may differ between the two
Row = dict[str, Any]


def steps(wanted: Sequence[str], heard: Sequence[str]) -> list[tuple[str, int, int]]:
    """The cheapest edits from one to the other: ("=", "~", "-" or "+", place in wanted, place in heard), in order.

    A substitution costs a little more than a deletion or an insertion alone, so that a lost word is not heard as
    another one that stands beside it.
    """
    cost = np.zeros((len(wanted) + 1, len(heard) + 1))
    cost[:, 0], cost[0] = np.arange(len(wanted) + 1), np.arange(len(heard) + 1)
    for i, a in enumerate(wanted, 1):
        for j, b in enumerate(heard, 1):
            cost[i, j] = min(cost[i - 1, j - 1] + 1.2 * (a != b), cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    out, i, j = [], len(wanted), len(heard)
    while i or j:
        if i and j and abs(cost[i, j] - cost[i - 1, j - 1] - 1.2 * (wanted[i - 1] != heard[j - 1])) < 1e-6:
            i, j = i - 1, j - 1
            out.append(("=" if wanted[i] == heard[j] else "~", i, j))
        elif i and abs(cost[i, j] - cost[i - 1, j] - 1) < 1e-6:
            i -= 1
            out.append(("-", i, j))
        else:
            j -= 1
            out.append(("+", i, j))
    return out[::-1]


def differences(words: Sequence[Sequence[str]], heard: Sequence[str]) -> tuple[set[int], list[tuple[int, list[str]]]]:
    """(words that are lost, runs of phonemes that nobody wrote with their places) as one recogniser hears it."""
    wanted = [phoneme for word in words for phoneme in word]
    owner = [number for number, word in enumerate(words) for _ in word]
    missing: Counter[int] = Counter()
    runs: list[tuple[int, list[str]]] = []
    before = ""
    for kind, i, j in steps(wanted, heard):
        if kind == "-":
            missing[owner[i]] += 1
        elif kind == "+":
            if before == "+":
                runs[-1][1].append(heard[j])
            else:
                runs.append((i, [heard[j]]))
        before = kind
    lost = {n for n, word in enumerate(words) if word and missing[n] >= MOST_LOST * len(word)}
    return lost, [run for run in runs if len(run[1]) >= ADDED]


def compare(words: Sequence[Sequence[str]], first: Sequence[str], second: Sequence[str]) -> tuple[list[int], int, int]:
    """(words lost, number of additions, how many of these repeat a neighbour) where both recognisers agree."""
    (lost, runs), (also_lost, also_runs) = differences(words, first), differences(words, second)
    wanted = [phoneme for word in words for phoneme in word]
    added = repeated = 0
    for place, run in runs:
        near = [other for at, other in also_runs if abs(at - place) <= NEAR]
        if not near:
            continue
        added += 1
        around = wanted[max(0, place - len(run) - 2) : place + len(run) + 2]
        matched = sum(kind == "=" for kind, *_ in steps(run, around))
        repeated += matched >= 0.6 * len(run)
    return sorted(lost & also_lost), added, repeated


def parts(phonemes: str) -> list[list[str]]:
    """Coarse phonemes of each word; what is only punctuation is left out."""
    found = [fold(list(word)) for word in phonemes.split()]
    return [word for word in found if word]


def judge(tts: spear_spec.TTS, text: str, audio: spear_spec.Audio, ears: tuple[Any, Any]) -> Row:
    """One line of the result, but for what was asked for."""
    tiny, hama = ears
    wanted = parts(tts.front_end.phonemes(text))
    written = tiny.transcribe(audio.samples, audio.sample_rate)
    sounds = [phoneme for word in parts(tts.front_end.phonemes(written)) for phoneme in word] if written else []
    lost, added, repeated = compare(wanted, sounds, hama.hear(audio.samples, audio.sample_rate))
    return {
        "words": len(wanted),
        "lost": len(lost),
        "lost_words": [" ".join(wanted[n]) for n in lost],
        "added": added,
        "repeated": repeated,
        "heard": written,
    }


def texts(path: Path, kinds: Sequence[str], limit: int | None) -> Iterator[tuple[str, str]]:
    """(kind, text); a file without the blocks of hard.txt is one kind."""
    blocks = [block.split("\n") for block in path.read_text(encoding="utf-8").strip().split("\n\n")]
    names = KINDS if len(blocks) == len(KINDS) else tuple(path.stem for _ in blocks)
    for name, block in zip(names, blocks, strict=True):
        if not kinds or name in kinds:
            yield from ((name, line.strip()) for line in block[:limit] if line.strip())


def summary(rows: list[Row]) -> Row:
    """Texts with an error, and words lost, added and repeated, in all and by kind."""

    def count(some: list[Row]) -> Row:
        wrong = sum(bool(row["lost"] or row["added"]) for row in some)
        return {
            "spoken": len(some),
            "with_an_error": wrong,
            "share": round(wrong / max(len(some), 1), 4),
            "words": sum(row["words"] for row in some),
            **{name: sum(row[name] for row in some) for name in ("lost", "added", "repeated")},
            "redrawn": sum(row.get("redrawn") or 0 for row in some),
        }

    kinds = dict.fromkeys(row["kind"] for row in rows)
    return {**count(rows), "by_kind": {kind: count([r for r in rows if r["kind"] == kind]) for kind in kinds}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--voice")
    parser.add_argument("--speakers", default="af_heart")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--kinds", default="")
    parser.add_argument("--limit", type=int, help="texts of each kind")
    parser.add_argument("--texts", type=Path, default=HARD)
    parser.add_argument("--set", action="append", default=[], help="an option of TTS.stream, KEY=VALUE as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    options = {key: json.loads(value) for key, _, value in (entry.partition("=") for entry in args.set)}
    args.out.mkdir(parents=True, exist_ok=True)
    tts, ears = spear_spec.TTS.load(args.voice), (WordErrorJudge("tiny.en"), PhonemeErrorJudge())
    wanted = list(texts(args.texts, [k for k in args.kinds.split(",") if k], args.limit))
    result: Row = {"schema": "hard/1", "voice": tts.name, "texts": args.texts.name, "options": options, "speakers": {}}
    for speaker in args.speakers.split(","):
        path = args.out / f"hard.{speaker}.jsonl"
        known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        done = {(row["text"], row["seed"]): row for row in known if row["options"] == options}
        todo = [(k, t, int(s)) for s in args.seeds.split(",") for k, t in wanted if (t, int(s)) not in done]
        with path.open("a") as file:
            for kind, text, seed in tqdm(todo, desc=speaker, file=sys.stderr):
                audio = tts.synthesize(text, speaker=speaker, seed=seed, **options)
                row = {"kind": kind, "text": text, "seed": seed, "options": options, **judge(tts, text, audio, ears)}
                row |= {name: audio.stats[name] for name in ("ended", "tokens", "redrawn") if name in audio.stats}
                done[text, seed] = row
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
        asked = {(t, int(s)) for s in args.seeds.split(",") for _, t in wanted}
        result["speakers"][speaker] = summary([row for key, row in done.items() if key in asked])
    (args.out / "hard.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
