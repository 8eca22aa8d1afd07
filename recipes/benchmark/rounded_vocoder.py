"""What 8-bit products of the vocoder cost in quality and bring in speed: the same tokens, spoken with and without.

    python recipes/benchmark/rounded_vocoder.py OUT.json [--text ../shared/text/dev.txt] [--sentences 50] [--no-judges]

Each sentence is written once and spoken twice, by the same noise. Paired: DistillMOS and Whisper tiny.en's word errors,
with intervals by bootstrap over sentences; how far the samples are apart; CPU time of the vocoder alone, in turn,
median of three. Issue 13 asks for .02 of MOS and .3 points of WER at most. Results are written after every sentence.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import spear_spec
from spear_spec.bench.machine import commit, hardware
from spear_spec.evaluation.judge import Reference
from spear_spec.evaluation.mos import MosJudge
from spear_spec.evaluation.wer import WordErrorJudge


def written(tts: spear_spec.TTS, text: str, seed: int) -> torch.Tensor:
    """The tokens [T] that the vocoder is given for this text."""
    stage: Any = tts.stage
    real, tokens = stage.open, []

    def watched(*args: Any, **named: Any) -> Any:
        stream = real(*args, **named)
        push = stream.push

        def pushed(some: Any) -> Any:
            tokens.append(torch.as_tensor(some).clone())
            return push(some)

        stream.push = pushed
        return stream

    stage.open = watched
    try:
        tts.synthesize(text, seed=seed)
    finally:
        del stage.open
    return torch.cat(tokens)


def spoken(stage: Any, tokens: torch.Tensor, voice: str, rounded: bool, seed: int) -> tuple[torch.Tensor, float]:
    """Samples, and seconds of CPU time, in pushes of 8 tokens as a stream gets them."""
    stage.rounded = rounded
    start = time.process_time()
    stream = stage.open(voice, 1.0, torch.Generator().manual_seed(seed))
    samples = torch.cat([*(stream.push(part) for part in tokens.split(8)), stream.finish()])
    return samples, time.process_time() - start


def paired(lines: list[dict[str, Any]], what: str, scale: float) -> list[float]:
    """Rounded less plain, by a ratio of sums over sentences: the difference and its 95 % interval."""
    sums = np.array([[*line["plain"][what], *line["rounded"][what]] for line in lines])
    draws = np.random.default_rng(0).integers(0, len(lines), (2000, len(lines)))

    def difference(some: Any) -> Any:
        return scale * (some[..., 2] / some[..., 3] - some[..., 0] / some[..., 1])

    low, high = np.quantile(difference(sums[draws].sum(1)), [0.025, 0.975])
    return [float(difference(sums.sum(0))), float(low), float(high)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, default=Path("../shared/text/dev.txt"))
    parser.add_argument("--sentences", type=int, default=50)
    parser.add_argument("--no-judges", action="store_true")
    args = parser.parse_args()
    tts = spear_spec.TTS.load(device="cpu", threads=1)
    judges = [] if args.no_judges else [MosJudge(), WordErrorJudge()]
    lines: list[dict[str, Any]] = []
    stage, voice = tts.stage, tts.speakers[0]
    for seed, text in enumerate(args.text.read_text(encoding="utf-8").splitlines()[: args.sentences]):
        tokens = written(tts, text, seed)
        sounds: dict[str, Any] = {}
        times: dict[str, list[float]] = {"plain": [], "rounded": []}
        for _ in range(3):
            for name in times:
                sounds[name], seconds = spoken(stage, tokens, voice, name == "rounded", seed)
                times[name].append(seconds)
        apart = float((sounds["rounded"] - sounds["plain"]).norm() / sounds["plain"].norm())
        line: dict[str, Any] = {"text": text, "apart": apart, "plain": {}, "rounded": {}}
        for name, samples in sounds.items():
            line[name]["seconds"] = statistics.median(times[name])
            for judge in judges:
                said = judge.score(samples.numpy(), Reference(text), stage.sample_rate)
                line[name][judge.metric] = [said.numerator, said.denominator]
        lines.append(line)
        total = {name: sum(line[name]["seconds"] for line in lines) for name in times}
        result = {
            "commit": commit(),
            "hardware": hardware(tts.target.device),
            "sentences": len(lines),
            "speed": total["plain"] / total["rounded"],
            "seconds": total,
            "apart": statistics.median(line["apart"] for line in lines),
            "mos": paired(lines, "mos", 1) if judges else None,
            "wer_points": paired(lines, "wer", 100) if judges else None,
            "lines": lines,
        }
        args.out.write_text(json.dumps(result, indent=1), encoding="utf-8")
    print(json.dumps({key: value for key, value in result.items() if key != "lines"}, indent=1))


if __name__ == "__main__":
    main()
