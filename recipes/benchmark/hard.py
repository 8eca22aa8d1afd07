"""Lost, added and repeated words on texts/hard.txt, as two recognisers hear them that must agree; with completeness
(`--complete`) and without, of the same texts and seeds.

    python recipes/benchmark/hard.py --out runs/hard [--voice NAME|FOLDER] [--speakers af_heart,am_michael]
        [--seeds 0,1,2,3,4] [--laws off,on,stream] [--kinds pairs,lists] [--limit N] [--texts FILE]
        [--set KEY=VALUE ...]

tiny.en writes what it hears; the front end turns that into phonemes. hama hears phonemes itself. Both are aligned with
the phonemes that were asked for. A word is lost where both lost most of its phonemes, added where both hear phonemes
that nobody wrote at the same place, repeated where those are what stands beside them. Digits and numbers are compared
as they sound, so spelling does not count. As both must agree, the second is asked only where the first hears something
wrong (`--first` says who that is), and what was not drawn again is what it is without completeness: it is spoken and
judged once.

A line of OUT/hard.<speaker>.jsonl is a text, a seed and a law, written as soon as it is judged: the same command goes
on where it stopped, and judges nothing twice; an OUT is for one voice. The summary, with 95 % intervals over texts, is
OUT/hard.json. `cpu_s` there says what speaking and each judge took (hama .3, tiny.en 1 s of a core a take).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tqdm import tqdm

import spear_spec
from spear_spec.evaluation.judge import Measurement
from spear_spec.evaluation.phonemes import PhonemeErrorJudge, fold
from spear_spec.evaluation.statistics import Interval, paired_difference, ratio_interval
from spear_spec.evaluation.wer import WordErrorJudge

HARD = Path(__file__).parent / "texts" / "hard.txt"
KINDS = ("pairs", "rows", "sets", "lists", "digits", "repeats", "unpunctuated", "short", "mixed")  # blocks of hard.txt
MOST_LOST = 0.6  # share of a word's phonemes that must be missing for it to count as lost
ADDED = 3  # phonemes in a row that nobody wrote
NEAR = 4  # phonemes by which the places of an addition may differ between the two
LAWS = ("on", "stream", "off")  # in the order in which a text is spoken
Row = dict[str, Any]
Key = tuple[str, int, str]  # text, seed, law


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


class Ears:
    """The two judges, the cheaper one first, and what they took."""

    def __init__(self, tts: spear_spec.TTS, first: str) -> None:
        self._front, self._tiny, self._hama = tts.front_end, WordErrorJudge("tiny.en"), PhonemeErrorJudge()
        self._order = ("tiny.en", "hama") if first == "tiny.en" else ("hama", "tiny.en")

    def judge(self, text: str, audio: spear_spec.Audio) -> Row:
        """One line of the result, but for what was asked for."""
        wanted, heard, took = parts(self._front.phonemes(text)), {}, {}
        lost: list[int] = []
        added = repeated = 0
        for name in self._order:
            began = time.process_time()
            heard[name] = self._hear(name, audio)
            took[name] = round(time.process_time() - began, 3)
            if not any(differences(wanted, heard[name])):
                break  # nothing that the other one could agree on
        else:
            lost, added, repeated = compare(wanted, heard["tiny.en"], heard["hama"])
        return {
            "words": len(wanted),
            "lost": len(lost),
            "lost_words": [" ".join(wanted[n]) for n in lost],
            "added": added,
            "repeated": repeated,
            "heard": {name: " ".join(sounds) for name, sounds in heard.items()},
            "cpu_s": took,
        }

    def _hear(self, name: str, audio: spear_spec.Audio) -> list[str]:
        """Coarse phonemes."""
        if name == "hama":
            return self._hama.hear(audio.samples, audio.sample_rate)
        written = self._tiny.transcribe(audio.samples, audio.sample_rate)
        return [phoneme for word in parts(self._front.phonemes(written)) for phoneme in word] if written else []


def lines(
    tts: spear_spec.TTS,
    ears: Ears,
    speaker: str,
    text: str,
    seed: int,
    laws: Sequence[str],
    options: Row,
    known: dict[str, Row],
) -> Iterator[Row]:
    """The lines of a text and a seed that are not known yet, one for each law.

    A take that was not drawn again is the one without completeness, under whichever law it was spoken.
    """
    same = next((row for row in known.values() if not row["redrawn"]), None)
    for law in sorted(set(laws) - set(known), key=LAWS.index):
        if law == "off" and same is not None:
            yield {**same, "law": law, "cpu_s": {}, "same": True}
            continue
        began = time.process_time()
        audio = tts.synthesize(text, speaker=speaker, seed=seed, complete=law, **options)
        spent = {"speak": round(time.process_time() - began, 3)}
        stats = {name: audio.stats[name] for name in ("ended", "tokens", "redrawn", "audio_s", "ttfa_s")}
        row = {"text": text, "seed": seed, "law": law, "options": options, **stats}
        if same is not None and not row["redrawn"]:
            yield {**row, **{name: same[name] for name in JUDGED}, "cpu_s": spent, "same": True}
            continue
        judged = ears.judge(text, audio)
        row |= {**judged, "cpu_s": {**spent, **judged["cpu_s"]}}
        same = same if row["redrawn"] else row
        yield row


JUDGED = ("words", "lost", "lost_words", "added", "repeated", "heard")


def texts(path: Path, kinds: Sequence[str], limit: int | None) -> Iterator[tuple[str, str]]:
    """(kind, text); a file without the blocks of hard.txt is one kind."""
    blocks = [block.split("\n") for block in path.read_text(encoding="utf-8").strip().split("\n\n")]
    names = KINDS if len(blocks) == len(KINDS) else tuple(path.stem for _ in blocks)
    for name, block in zip(names, blocks, strict=True):
        if not kinds or name in kinds:
            yield from ((name, line.strip()) for line in block[:limit] if line.strip())


def wrong(row: Row) -> bool:
    return bool(row["lost"] or row["added"])


def by_text(rows: Sequence[Row]) -> list[Measurement]:
    """Wrong takes over takes, a text each: seeds of a text are no independent cases."""
    found: dict[str, list[bool]] = {}
    for row in rows:
        found.setdefault(row["text"], []).append(wrong(row))
    return [Measurement(sum(takes), len(takes), "") for takes in found.values()]


def told(interval: Interval) -> dict[str, float]:
    return {name: round(value, 4) for name, value in interval.to_dict().items()}


def summary(rows: list[Row]) -> Row:
    """Takes with an error, words lost, added and repeated, in all and by kind; what they took."""

    def count(some: list[Row]) -> Row:
        return {
            "spoken": len(some),
            "with_an_error": sum(map(wrong, some)),
            "words": sum(row["words"] for row in some),
            **{name: sum(row[name] for row in some) for name in ("lost", "added", "repeated")},
            "redrawn": sum(row["redrawn"] for row in some),
            "drawn_again": sum(row["redrawn"] > 0 for row in some),
        }

    kinds = dict.fromkeys(row["kind"] for row in rows)
    spent: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for row in rows:
        spent.update(row["cpu_s"])
        asked.update(row["cpu_s"].keys())
    return {
        **count(rows),
        "share": told(ratio_interval(by_text(rows))),
        "cpu_s": {name: {"calls": asked[name], "each": round(spent[name] / asked[name], 3)} for name in spent},
        "by_kind": {kind: count([row for row in rows if row["kind"] == kind]) for kind in kinds},
    }


def against(plain: list[Row], other: list[Row]) -> Row:
    """A law against none, of the same texts and seeds."""
    before = {(row["text"], row["seed"]): wrong(row) for row in plain}
    pairs = [(before[row["text"], row["seed"]], wrong(row)) for row in other]
    return {
        "mended": sum(was and not now for was, now in pairs),
        "broken": sum(now and not was for was, now in pairs),
        "share_less": told(paired_difference(by_text(plain), by_text(other))),
    }


def table(result: Row) -> str:
    """The summary for people."""
    head = (
        "speaker",
        "law",
        "takes",
        "drawn again",
        "wrong",
        "share [95 %]",
        "lost",
        "added",
        "repeated",
        "mended, broken",
    )
    out = [head]
    for speaker, laws in result["speakers"].items():
        for law, found in laws.items():
            share, pair = found["share"], found.get("against_off")
            out.append(
                (
                    speaker,
                    law,
                    str(found["spoken"]),
                    str(found["drawn_again"]),
                    str(found["with_an_error"]),
                    f"{100 * share['value']:.1f} % [{100 * share['lo']:.1f}, {100 * share['hi']:.1f}]",
                    *(str(found[name]) for name in ("lost", "added", "repeated")),
                    "" if pair is None else f"{pair['mended']}, {pair['broken']}",
                )
            )
    return "\n".join("| " + " | ".join(row) + " |" for row in out)


def names(value: str) -> list[str]:
    return [name for name in value.split(",") if name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--voice")
    parser.add_argument("--speakers", type=names, help="default: all of the voice")
    parser.add_argument("--seeds", default="0", type=lambda value: [int(seed) for seed in names(value)])
    parser.add_argument("--laws", default=["off", "on"], type=names, help="of completeness: off, on, stream")
    parser.add_argument("--kinds", default=[], type=names)
    parser.add_argument("--limit", type=int, help="texts of each kind")
    parser.add_argument("--texts", type=Path, default=HARD)
    parser.add_argument("--first", choices=("tiny.en", "hama"), default="hama", help="who listens first")
    parser.add_argument("--set", action="append", default=[], help="an option of TTS.stream, KEY=VALUE as JSON")
    args = parser.parse_args()
    if unknown := set(args.laws) - set(LAWS):
        parser.error(f"--laws: {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    options = {key: json.loads(value) for key, _, value in (entry.partition("=") for entry in args.set)}
    args.out.mkdir(parents=True, exist_ok=True)
    tts = spear_spec.TTS.load(args.voice)
    ears = Ears(tts, args.first)
    wanted = list(texts(args.texts, args.kinds, args.limit))
    result: Row = {"schema": "hard/2", "voice": tts.name, "texts": args.texts.name, "options": options, "speakers": {}}
    for speaker in args.speakers or tts.speakers:
        path = args.out / f"hard.{speaker}.jsonl"
        done: dict[Key, Row] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
            except ValueError:
                continue  # it broke off: spoken again
            if row["options"] == options:
                done[row["text"], row["seed"], row["law"]] = row
        todo = [(kind, text, seed) for seed in args.seeds for kind, text in wanted]
        with path.open("a", encoding="utf-8") as file:
            if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
                file.write("\n")
            for kind, text, seed in tqdm(todo, desc=speaker, file=sys.stderr):
                known = {law: row for law in LAWS if (row := done.get((text, seed, law))) is not None}
                for row in lines(tts, ears, speaker, text, seed, args.laws, options, known):
                    done[text, seed, row["law"]] = row = {**row, "kind": kind}
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    file.flush()
        found = {law: [done[text, seed, law] for _, text, seed in todo] for law in args.laws}
        result["speakers"][speaker] = {law: summary(rows) for law, rows in found.items()}
        for law in set(args.laws) - {"off"} if "off" in found else ():
            result["speakers"][speaker][law]["against_off"] = against(found["off"], found[law])
    (args.out / "hard.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
