"""A voice from three seconds: readers that a voice never heard, each from a prompt, judged.

    python recipes/benchmark/prompts.py --voice VOICE --corpus LIBRITTS --out runs/prompts
        [--splits dev-clean,test-clean] [--others train-clean-100] [--sentences 30] [--prompt-s 3] [--prompts 3]
        [--text ../shared/text/dev.txt] [--speaker NAME] [--best-of 1] [--seed 0]

Of each reader of the splits some clips are cut to 3 s of speech: the prompts. The sentences are spoken with one after
the other of them, and once more by the shipped voice (af_heart). Told are, with intervals over utterances:

- similarity (resemblyzer, cosine) of what was spoken to its own prompt, and to the reader's other clips; the same for
  real clips of the reader, and of other readers;
- how often it is nearer to its own reader (mean embedding of clips that were no prompts) than to any other of the
  splits, and than to any other of the corpus (`--others`);
- word and character errors (tiny.en) and predicted MOS (DistillMOS), beside the shipped voice's in the same run.

Every utterance is a line of OUT/rows.jsonl, written as soon as it is judged: the same command goes on where it stopped;
lines of another voice, prompt or setting are not used. The summary is OUT/prompts.json; the table goes to standard
output. About two seconds of one core an utterance: 150 of them in five minutes on a quiet machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tqdm import tqdm

from spear_spec.acoustic.prompt import Prompt, open_prompt
from spear_spec.audio import load_audio, write_atomically
from spear_spec.bench.machine import commit, hardware
from spear_spec.errors import AudioError, SpearSpecError
from spear_spec.evaluation.cer import character_errors
from spear_spec.evaluation.judge import Measurement, Samples
from spear_spec.evaluation.mos import MosJudge
from spear_spec.evaluation.speaker import SpeakerJudge
from spear_spec.evaluation.statistics import ratio_interval
from spear_spec.evaluation.wer import WordErrorJudge, word_errors
from spear_spec.pipeline import TTS
from spear_spec.tuning.store import fingerprint

SHARED = Path(__file__).parents[3] / "shared"
SHIPPED = "shipped"  # the arm that the others are held against
MOST_CLIPS, OTHERS_CLIPS = 8, 4  # of a reader: his mean embedding
ASKED = {"similarity": (0.75, 0.85), "nearer": (0.80, 0.95), "wer_above": (0.06, 0.02)}  # at least, aim
Row = dict[str, Any]


@dataclass
class Reader:
    """prompts: of the splits' readers alone. mean: of clips that are no prompts. clips: their embeddings."""

    name: str
    split: str
    prompts: list[Prompt]
    heard: list[Samples]  # embeddings of the prompts
    clips: list[Samples]
    mean: Samples


class Judges:
    """Who listens; each network is loaded when it is first used."""

    def __init__(self) -> None:
        self.words, self.speaker, self.mos = WordErrorJudge("tiny.en"), SpeakerJudge(), MosJudge()

    def listen(self, samples: Samples, rate: int, text: str) -> Row:
        """Sums of errors, opinion score, embedding [256]."""
        heard = self.words.transcribe(samples, rate)
        return {
            "heard": heard,
            "wer": list(word_errors(text, heard)),
            "cer": list(character_errors(text, heard)),
            "mos": round(self.mos.score(samples, None, rate).value, 4),
            "embedding": [round(float(x), 5) for x in self.speaker.embed(samples, rate)],
        }


class Rows:
    """Judged utterances on disk, a line each, by the key of all that they depend on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, Row] = {}
        text = path.read_text("utf-8") if path.exists() else ""
        if text and not text.endswith("\n"):
            with path.open("a", encoding="utf-8") as file:
                file.write("\n")  # behind a line that a stop cut off
        for line in text.splitlines():
            try:
                row = json.loads(line)
                self.found[row["key"]] = row
            except (ValueError, KeyError, TypeError):  # it is made again
                continue

    def get(self, key: Row, make: Callable[[], Row]) -> Row:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        if digest not in self.found:
            row = {**key, **make(), "key": digest}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            self.found[digest] = row
        return self.found[digest]


def read_corpus(folder: Path, splits: Sequence[str], others: Sequence[str], args: argparse.Namespace) -> list[Reader]:
    """Readers with their embeddings; of those of `splits` also the prompts.

    Raises:
        SpearSpecError: a split is missing or holds nothing that can be used.
    """
    judge, readers, known = SpeakerJudge(), [], Rows(args.out / "clips.jsonl")

    def embedded(path: Path) -> Samples:
        def listen() -> Row:
            clip = load_audio(path)
            return {"embedding": [round(float(x), 6) for x in judge.embed(clip.samples, clip.sample_rate)]}

        key = {"clip": str(path.relative_to(folder)), "bytes": path.stat().st_size}
        return np.asarray(known.get(key, listen)["embedding"], dtype=np.float32)

    for split in (*splits, *others):
        folders = sorted(path for path in (folder / split).glob("*") if path.is_dir())
        if not folders:
            raise SpearSpecError(f"no readers in {folder / split}")
        for reader in tqdm(folders, desc=split, unit="reader"):
            paths = sorted(p for p in reader.glob("*/*.*") if p.suffix in (".wav", ".flac"))
            prompts: list[Prompt] = []
            left = []
            for path in paths:
                if (
                    split in splits
                    and len(prompts) < args.prompts
                    and (cut := _prompt(path, args.prompt_s)) is not None
                ):
                    prompts.append(cut)
                else:
                    left.append(path)
            if not left or (split in splits and not prompts):
                print(f"{split}/{reader.name} has too few clips and is left out", file=sys.stderr)
                continue
            clips = [embedded(path) for path in left[: MOST_CLIPS if split in splits else OTHERS_CLIPS]]
            heard = [judge.embed(prompt.samples, prompt.sample_rate) for prompt in prompts]
            readers.append(Reader(reader.name, split, prompts, heard, clips, _unit(np.mean(clips, axis=0))))
    return readers


def _prompt(path: Path, seconds: float) -> Prompt | None:
    """The first seconds of speech of a clip; None where it has fewer."""
    try:
        prompt = open_prompt(path, seconds)
    except AudioError:
        return None
    return prompt if prompt.speech_s >= seconds else None


def _unit(vector: Samples) -> Samples:
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def real_clips(readers: Sequence[Reader]) -> Row:
    """What the similarities of real recordings are: of one reader, and of two."""
    own, other, nearer = [], [], []
    for reader in readers:
        own += [float(prompt @ clip) for prompt in reader.heard for clip in reader.clips]
        for stranger in readers:
            if stranger is not reader:
                other += [float(prompt @ clip) for prompt in reader.heard for clip in stranger.clips]
        if len(reader.clips) > 1:
            for at, clip in enumerate(reader.clips):  # its reader's mean is that of the others
                mean = _unit(np.mean([c for place, c in enumerate(reader.clips) if place != at], axis=0))
                nearer.append(all(clip @ mean > clip @ s.mean for s in readers if s is not reader))
    return {
        "same_reader": _interval((x, 1) for x in own),
        "other_reader": _interval((x, 1) for x in other),
        "nearer": _interval((float(x), 1) for x in nearer),
    }


def _interval(pairs: Iterable[tuple[float, float]]) -> dict[str, float] | None:
    measured = [Measurement(top, bottom) for top, bottom in pairs]
    if not measured:
        return None
    return {name: round(value, 4) for name, value in ratio_interval(measured).to_dict().items()}


def speak(args: argparse.Namespace, readers: Sequence[Reader], sentences: Sequence[str], rows: Rows) -> list[Row]:
    """Every sentence by every reader, and by the shipped voice."""
    judges = Judges()
    tts, shipped = TTS.load(args.voice, "cpu", threads=1), TTS.load(args.shipped, "cpu", threads=1)
    voices = {"prompt": (tts, fingerprint(tts.bundle.path)), SHIPPED: (shipped, fingerprint(shipped.bundle.path))}
    heard: dict[str, Any] = {}
    jobs: list[tuple[str, Reader | None, Prompt | None, int, str]] = []
    for number, sentence in enumerate(sentences):  # in turn, so that a part of the run is a fair sample
        jobs.append((SHIPPED, None, None, number, sentence))
        jobs += [
            ("prompt", reader, reader.prompts[number % len(reader.prompts)], number, sentence) for reader in readers
        ]
    out = []
    for arm, reader, prompt, number, sentence in tqdm(jobs, unit="utterance"):
        voice, mark = voices[arm]
        key: Row = {
            "arm": arm,
            "voice": mark,
            "reader": None if reader is None else reader.name,
            "prompt": None if prompt is None else prompt.sha256,
            "prompt_s": None if prompt is None else args.prompt_s,
            "text": sentence,
            "seed": args.seed + number,
            "best_of": args.best_of,
            "speaker": args.speaker if reader is not None else None,
        }

        def make(voice: TTS = voice, prompt: Prompt | None = prompt, key: Row = key) -> Row:
            options: dict[str, Any] = {"seed": key["seed"], "best_of": args.best_of, "speaker": key["speaker"]}
            if prompt is not None:
                if prompt.sha256 not in heard:
                    heard[prompt.sha256] = voice.hear((prompt.samples, prompt.sample_rate))
                options["voice"] = heard[prompt.sha256]
            audio = voice.synthesize(key["text"], **options)
            told = {name: audio.stats[name] for name in ("audio_s", "ended", "rtf", "ttfa_s")}
            return {**told, **judges.listen(audio.samples, audio.sample_rate, key["text"])}

        out.append(rows.get(key, make))
    return out


def similarities(rows: Sequence[Row], readers: Sequence[Reader], unseen: Sequence[Reader]) -> list[Row]:
    """Of each utterance: to its prompt, to its reader; whether it is nearer to him than to any other."""
    by_name = {reader.name: reader for reader in unseen}
    out = []
    for row in rows:
        reader, spoken = by_name[row["reader"]], np.asarray(row["embedding"], dtype=np.float32)
        prompt = next(at for at, prompt in enumerate(reader.prompts) if prompt.sha256 == row["prompt"])
        own = float(spoken @ reader.mean)
        out.append({
            "reader": reader.name,
            "prompt": float(spoken @ reader.heard[prompt]),
            "own": own,
            "nearer": all(own > float(spoken @ other.mean) for other in unseen if other is not reader),
            "nearer_all": all(own > float(spoken @ other.mean) for other in readers if other is not reader),
        })  # fmt: skip
    return out


def summary(rows: Sequence[Row], readers: Sequence[Reader], unseen: Sequence[Reader]) -> Row:
    spoken, shipped = ([row for row in rows if row["arm"] == arm] for arm in ("prompt", SHIPPED))
    near = similarities(spoken, readers, unseen)

    def judged(some: Sequence[Row]) -> Row:
        return {
            "utterances": len(some),
            "cut_off": sum(row["ended"] != "eos" for row in some),
            "wer": _interval(row["wer"] for row in some),
            "cer": _interval(row["cer"] for row in some),
            "mos": _interval((row["mos"], 1) for row in some),
            "rtf": round(float(np.median([row["rtf"] for row in some])), 4),
        }

    def alike(some: Sequence[Row]) -> Row:
        return {
            "similarity": _interval((row["prompt"], 1) for row in some),
            "similarity_reader": _interval((row["own"], 1) for row in some),
            "nearer": _interval((float(row["nearer"]), 1) for row in some),
            "nearer_all": _interval((float(row["nearer_all"]), 1) for row in some),
        }

    by_reader = {}
    for reader in unseen:
        own = [row for row in spoken if row["reader"] == reader.name]
        if own:
            by_reader[f"{reader.split}/{reader.name}"] = judged(own) | alike(
                [n for n in near if n["reader"] == reader.name]
            )
    found = {"unseen": judged(spoken) | alike(near), "shipped": judged(shipped), "by_reader": by_reader}
    above = found["unseen"]["wer"]["value"] - found["shipped"]["wer"]["value"]
    values = {"similarity": found["unseen"]["similarity"]["value"], "nearer": found["unseen"]["nearer"]["value"]}
    asked = {
        name: {
            "value": round(value, 4),
            "asked": ASKED[name][0],
            "aim": ASKED[name][1],
            "kept": value >= ASKED[name][0],
        }
        for name, value in values.items()
    }
    least, aim = ASKED["wer_above"]
    asked["wer_above"] = {"value": round(above, 4), "asked": least, "aim": aim, "kept": above <= least}
    return {**found, "real_clips": real_clips(unseen), "asked": asked}


def table(result: Row) -> str:
    def cell(value: dict[str, float] | None, scale: float = 1.0, digits: int = 3) -> str:
        if value is None:
            return ""
        middle, low, high = (f"{scale * value[name]:.{digits}f}" for name in ("value", "lo", "hi"))
        return f"{middle} ({low} to {high})"

    lines = [
        "| | similarity to the prompt | to the reader | nearer to its own | of all readers | WER % | CER % | MOS |"
    ]
    lines.append("|---|---|---|---|---|---|---|---|")
    arms = {"unseen readers": result["unseen"], **result["by_reader"], "shipped voice": result["shipped"]}
    for name, row in arms.items():
        lines.append(
            f"| {name} | {cell(row.get('similarity'))} | {cell(row.get('similarity_reader'))} | "
            f"{cell(row.get('nearer'), 100, 0)} | {cell(row.get('nearer_all'), 100, 0)} | {cell(row['wer'], 100, 1)} | "
            f"{cell(row['cer'], 100, 1)} | {cell(row['mos'], 1, 2)} |"
        )
    real = result["real_clips"]
    lines.append(
        f"| real clips: same reader | {cell(real['same_reader'])} | | {cell(real['nearer'], 100, 0)} | | | | |\n"
        f"| real clips: other reader | {cell(real['other_reader'])} | | | | | | |"
    )
    for name, one in result["asked"].items():
        outcome = "kept" if one["kept"] else "MISSED"
        lines.append(f"\n{name}: {one['value']:.3f}, asked {one['asked']}, aim {one['aim']}: {outcome}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", required=True, help="a voice that takes prompts")
    parser.add_argument("--shipped", help="the voice to compare with (default: the one that ships)")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", default="dev-clean,test-clean")
    parser.add_argument(
        "--others", default="train-clean-100", help="readers that the spoken may be nearer to; '' for none"
    )
    parser.add_argument("--text", type=Path, default=SHARED / "text" / "dev.txt")
    parser.add_argument("--sentences", type=int, default=30)
    parser.add_argument("--prompt-s", type=float, default=3.0)
    parser.add_argument("--prompts", type=int, default=3, help="of each reader")
    parser.add_argument("--speaker", help="who reads, of the voice's speakers (default: the first)")
    parser.add_argument("--best-of", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    sentences = [line for line in args.text.read_text("utf-8").splitlines() if line.strip()][: args.sentences]
    splits, others = ([name for name in text.split(",") if name] for text in (args.splits, args.others))
    readers = read_corpus(args.corpus, splits, others, args)
    unseen = [reader for reader in readers if reader.split in splits]
    rows = speak(args, unseen, sentences, Rows(args.out / "rows.jsonl"))
    result = {
        "schema": "prompts-benchmark/1",
        "command": ["recipes/benchmark/prompts.py", *(sys.argv[1:] if argv is None else argv)],
        "commit": commit(),
        "hardware": hardware(torch.device("cpu")),
        "voice": str(args.voice),
        "readers": {"unseen": len(unseen), "all": len(readers)},
        "sentences": len(sentences),
        "prompt_s": args.prompt_s,
        **summary(rows, readers, unseen),
    }
    write_atomically(args.out / "prompts.json", (json.dumps(result, indent=1) + "\n").encode())
    print(f"{result['commit']}, {result['hardware']}, voice {args.voice}\n\n{table(result)}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SpearSpecError as error:
        sys.exit(f"prompts: {error}")
