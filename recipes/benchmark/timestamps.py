"""Word times against the teacher's known durations, and against faster-whisper's on what was spoken.

    python recipes/benchmark/timestamps.py --out timestamps.json [--voice NAME|FOLDER] [--limit N] [--spoken 40]
        [--dev ../shared/dev --tokens ../shared/tokens/dev.safetensors --dev-text ../shared/text/dev.txt]

Teacher: dev clips with their true tokens (of the voice's own tokenizer); a word begins with its first phoneme and ends
with its last, by the durations in `frames`. Spoken: dev sentences as `say --timestamps` speaks them; where tiny.en
heard the same word, its time is compared. What tiny.en itself is off by, the same comparison says on the teacher's
audio with its known durations (`second_opinion`).
400 clips take about a minute of a core, 40 spoken sentences another.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from safetensors.torch import load_file
from tqdm import tqdm

import spear_spec
from spear_spec.audio import Audio, TimedWord, load_audio
from spear_spec.evaluation.judge import listen
from spear_spec.evaluation.wer import WordErrorJudge
from spear_spec.models.alignment import letter_attention, letter_starts

SHARED = Path(__file__).parents[3] / "shared"
FRAME_S = 600 / 24_000  # of `frames` in meta
_WORD = re.compile(r"[^\s.,?!;:—…“”()]+")


def spread(errors: Sequence[float]) -> dict[str, float]:
    """Errors in seconds as figures in milliseconds."""
    size = 1000 * np.abs(errors)
    return {
        "median_ms": round(float(np.median(size)), 1),
        "mean_ms": round(float(size.mean()), 1),
        "p90_ms": round(float(np.quantile(size, 0.9)), 1),
        "bias_ms": round(1000 * float(np.median(errors)), 1),
        "words": len(errors),
    }


def teacher(tts: spear_spec.TTS, dev: Path, tokens: Path, limit: int | None) -> dict[str, Any]:
    """Errors at the words' beginnings and ends, by speaker and in all."""
    stored = load_file(tokens)
    rows = [json.loads(line) for path in sorted(dev.glob("meta.*.jsonl")) for line in path.read_text().splitlines()]
    rows = [row for row in rows if row["id"] in stored and row["voice"] in tts.speakers]
    if limit is not None:
        rows = [row for row in rows if int(row["id"].split("/")[1]) < limit]
    found: dict[str, tuple[list[float], list[float]]] = {}
    rate = tts.bundle.config.clock.token_rate
    for row in tqdm(rows, desc="teacher"):
        ids = tts.front_end.tokenizer.encode_phonemes(row["phonemes"], row["voice"])  # type: ignore[attr-defined]
        starts = letter_starts(letter_attention(tts.target, ids, stored[row["id"]].tolist())) / rate
        ends = np.cumsum(row["frames"]) * FRAME_S
        for who in ("all", row["voice"]):
            begun, ended = found.setdefault(who, ([], []))
            for word in _WORD.finditer(row["phonemes"]):
                first, last = word.start() + 1, word.end()  # in ids and frames: behind the speaker, the silence
                begun.append(float(starts[first] - ends[first - 1]))
                ended.append(float(starts[last + 1] - ends[last]))
    return {who: {"start": spread(begun), "end": spread(ended)} for who, (begun, ended) in found.items()}


def spoken(tts: spear_spec.TTS, sentences: Sequence[str], seed: int) -> dict[str, Any]:
    """Differences from tiny.en's word times, where both have the same word."""
    pairs = []
    for text in tqdm(sentences, desc="spoken"):
        audio = tts.synthesize(text, seed=seed, timestamps=True)
        pairs.append((audio, audio.words or ()))
    return against_whisper(pairs)


def second_opinion(tts: spear_spec.TTS, dev: Path, count: int) -> dict[str, Any]:
    """The same differences on the teacher's audio with its true durations: what tiny.en is off by."""
    pairs = []
    tokenizer = tts.front_end.tokenizer  # type: ignore[attr-defined]
    rows = [json.loads(line) for line in (dev / "meta.0.jsonl").read_text().splitlines()[:count]]
    for row in rows:
        ids = tokenizer.encode_phonemes(row["phonemes"], row["voice"])
        if tokenizer.encode(row["text"], row["voice"]) == ids:
            begins = np.concatenate([[0.0], np.cumsum(row["frames"]) * FRAME_S])
            words = [TimedWord(w.text, begins[w.first], begins[w.last], 0) for w in tokenizer.words(row["text"])]
            pairs.append((load_audio(dev / f"{row['id']}.ogg"), words))
    return against_whisper(pairs)


def against_whisper(pairs: Sequence[tuple[Audio, Sequence[TimedWord]]]) -> dict[str, Any]:
    """Known times of words less those that tiny.en gives, where both have the same word."""
    model = WordErrorJudge("tiny.en")._model
    begun, ended, said = [], [], 0
    for audio, words in tqdm(pairs, desc="tiny.en"):
        said += len(words)
        segments, _ = model.transcribe(
            listen(audio.samples, audio.sample_rate), language="en", beam_size=5, temperature=0.0, word_timestamps=True
        )
        heard = [word for segment in segments for word in segment.words]
        ours, theirs = [_key(w.text) for w in words], [_key(w.word) for w in heard]
        for block in difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks():
            for n in range(block.size):
                one, two = words[block.a + n], heard[block.b + n]
                begun.append(one.start_s - two.start)
                ended.append(one.end_s - two.end)
    return {"said": said, "start": spread(begun), "end": spread(ended)}


def _key(word: str) -> str:
    return re.sub(r"\W+", "", word).casefold()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--voice")
    parser.add_argument("--limit", type=int, help="lines of dev.txt, each by both speakers")
    parser.add_argument("--spoken", type=int, default=40, help="sentences that are spoken; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dev", type=Path, default=SHARED / "dev")
    parser.add_argument("--tokens", type=Path, default=SHARED / "tokens" / "dev.safetensors")
    parser.add_argument("--dev-text", type=Path, default=SHARED / "text" / "dev.txt")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tts = spear_spec.TTS.load(args.voice)
    sentences = args.dev_text.read_text().splitlines()[: args.spoken]
    result = {
        "schema": "timestamps-benchmark/1",
        "voice": tts.name,
        "teacher": teacher(tts, args.dev, args.tokens, args.limit),
        "spoken": spoken(tts, sentences, args.seed) if sentences else None,
        "second_opinion": second_opinion(tts, args.dev, args.spoken) if sentences else None,
    }
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
