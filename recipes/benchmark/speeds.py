"""What another speed costs: word errors, pitch and length of the same sentences, same seeds, at several speeds.

    python recipes/benchmark/speeds.py --text ../shared/text/dev.txt --sentences 100 --out speeds.json
        [--speeds .75,1.25,1.5] [--speaker NAME] [--voice NAME|FOLDER] [--seed 1000] [--minutes 9]

Speed 1 always comes along: word errors are differences to it in pairs, with a 95 % bootstrap over sentences; pitch is
the median over sentences of the median F0 of voiced frames (pyworld) against speed 1's; length is the whole against
speed 1's, over what was asked. After --minutes no new sentence is begun. Needs the [eval] extra, and [train] for
pyworld.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).parent))
from quality import commit, hardware

from spear_spec.audio import FloatArray
from spear_spec.errors import SpearSpecError
from spear_spec.evaluation.judge import Measurement, Reference
from spear_spec.evaluation.statistics import paired_difference, ratio_interval
from spear_spec.evaluation.wer import WordErrorJudge
from spear_spec.pipeline import TTS


def pitch(samples: FloatArray, rate: int) -> float:
    """Median F0 of the voiced frames, Hz; NaN where nothing is voiced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pkg_resources
        import pyworld
    wave = samples.astype(np.float64)
    f0 = pyworld.stonemask(wave, *pyworld.dio(wave, rate), rate)
    return float(np.median(f0[f0 > 0])) if (f0 > 0).any() else float("nan")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="sentences, one a line")
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--speeds", default=".75,1.25,1.5", help="besides 1")
    parser.add_argument("--speaker")
    parser.add_argument("--voice")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    speeds = [1.0, *(float(speed) for speed in args.speeds.split(",") if float(speed) != 1)]
    texts = [line.strip() for line in args.text.read_text("utf-8").splitlines() if line.strip()][: args.sentences]
    tts, judge, until = TTS.load(args.voice, threads=1), WordErrorJudge(), time.monotonic() + 60 * args.minutes
    rows: list[dict[str, Any]] = []
    for number, text in enumerate(tqdm(texts, unit="sentence")):
        if time.monotonic() > until:
            break
        for speed in speeds:
            audio = tts.synthesize(text, speaker=args.speaker, seed=args.seed + number, speed=speed)
            heard = judge.score(audio.samples, Reference(text), audio.sample_rate)
            rows.append(
                {
                    "id": number,
                    "speed": speed,
                    "errors": heard.numerator,
                    "words": heard.denominator,
                    "heard": heard.detail,
                    "tokens": audio.stats["tokens"],
                    "seconds": round(audio.seconds, 4),
                    "f0": round(pitch(audio.samples, audio.sample_rate), 2),
                }
            )
    by_speed = {speed: [row for row in rows if row["speed"] == speed] for speed in speeds}
    own = by_speed[1.0]
    errors = {speed: [Measurement(row["errors"], row["words"]) for row in some] for speed, some in by_speed.items()}
    results = {}
    for speed, some in by_speed.items():
        assert [row["tokens"] for row in some] == [row["tokens"] for row in own], "the same speech at every speed"
        bent = [row["f0"] / first["f0"] for row, first in zip(some, own, strict=True)]
        results[f"{speed:g}"] = {
            "wer": ratio_interval(errors[speed]).to_dict(),
            "wer_above_speed_1": paired_difference(errors[speed], errors[1.0]).to_dict(),
            "pitch_against_speed_1": {"median": statistics.median(bent), "min": min(bent), "max": max(bent)},
            "length_times_speed": sum(row["seconds"] for row in some) * speed / sum(row["seconds"] for row in own),
        }
    summary = {"schema": "speeds/1", "commit": commit(), "hardware": hardware(), "command": " ".join(sys.argv),
               "voice": tts.name, "speaker": args.speaker or tts.speakers[0], "sentences": len(own),
               "results": results, "rows": rows}  # fmt: skip
    args.out.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"| speed | WER, {len(own)} sentences | above speed 1, points | F0 against speed 1 | length x speed |")
    print("|---|---|---|---|---|")
    for name, found in results.items():
        wer, above, bend = found["wer"], found["wer_above_speed_1"], found["pitch_against_speed_1"]
        print(
            f"| {name} | {100 * wer['value']:.2f} % [{100 * wer['lo']:.2f}, {100 * wer['hi']:.2f}] | "
            f"{100 * above['value']:+.2f} [{100 * above['lo']:+.2f}, {100 * above['hi']:+.2f}] | "
            f"{bend['median']:.4f} ({bend['min']:.3f} to {bend['max']:.3f}) | {found['length_times_speed']:.4f} |"
        )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SpearSpecError as error:
        sys.exit(f"speeds: {error}")
