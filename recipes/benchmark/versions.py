"""Two checkouts of the package side by side: the loop and the shipped setting, in turn, each in a process of its own.

    python recipes/benchmark/versions.py OLD NEW [--rounds 6] [--voice FOLDER] [--pin 1]

OLD and NEW are checkouts, each with a built `.venv`. Both decode the same text ids with the same weights and sampling
on one thread, at batch 1 and 8. Printed: tokens a second of each, the median ratio with the smallest and largest,
tokens a target call with their standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

CASES = [("none", 1), ("none", 8), ("shipped", 1), ("shipped", 8)]
# runs under either checkout: the names before the engine came, and after
CHILD = """
import json, sys, time, torch
root, voice, ids, seed = sys.argv[1], sys.argv[2], json.load(open(sys.argv[3])), int(sys.argv[4])
sys.path.insert(0, root)
torch.set_num_threads(1)
from spear_spec.decoding import DecodeStats
from spear_spec.pipeline import TTS
tts = TTS.load(voice, device="cpu", threads=1)
def run(tts, batch, seed):
    tokens = calls = seconds = 0
    for at in range(0, len(ids), batch):
        group = (ids[at:at + batch] + ids * batch)[:batch]
        began = time.perf_counter()
        if hasattr(tts, "decoder"):
            from spear_spec.decoding import Request
            from spear_spec.decoding.chance import SENTENCE, derive
            wanted = [Request(text, seed=derive(seed, at + row, SENTENCE), sampling=tts.sampling)
                      for row, text in enumerate(group)]
            stats = sum((one.stats for one in tts.decoder.engine().run(wanted)), DecodeStats())
        else:
            session, verdicts = tts.decode(group, tts.sampling, torch.Generator().manual_seed(1000 * seed + at))
            for _ in verdicts:
                pass
            stats = sum(session.stats, DecodeStats())
        seconds += time.perf_counter() - began
        tokens, calls = tokens + stats.tokens, calls + stats.target_calls
    return tokens, calls, seconds
out = {}
for name, one in (("none", tts.using(drafter="none")), ("shipped", tts)):
    for batch in (1, 8):
        run(one, batch, 99)
        out[f"{name}/{batch}"] = [sum(line) for line in zip(*(run(one, batch, 2 * seed + k) for k in range(2)))]
print(json.dumps(out))
"""


def measure(checkout: Path, voice: Path, ids: Path, seed: int, pin: str | None) -> dict[str, list[float]]:
    """Tokens, target calls and seconds of each case, in a process of that checkout."""
    command = [str(checkout / ".venv/bin/python"), "-c", CHILD, str(checkout), str(voice), str(ids), str(seed)]
    command = command if pin is None else ["taskset", "-c", pin, *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tempfile.gettempdir(), env=environment, check=True
    )
    found: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def text_ids(checkout: Path, voice: Path) -> list[list[int]]:
    """The benchmark's sentences as the new front end reads them, for both."""
    sys.path.insert(0, str(checkout))
    from spear_spec.bench.speed import SENTENCES
    from spear_spec.voice.bundle import open_voice
    from spear_spec.voice.parts import load_front_end

    bundle = open_voice(voice)
    front, who = load_front_end(bundle), bundle.config.speakers[0]
    return [list(segment.ids) for line in SENTENCES for segment in front.segments(line, who)][:8]


def row(case: str, rounds: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """A line of the table."""
    rates = [[one[case][0] / one[case][2] for one in pair] for pair in rounds]
    ratios = sorted(new / old for old, new in rates)
    calls = [[pair[side][case][0] / pair[side][case][1] for pair in rounds] for side in (0, 1)]
    spread = [stdev(line) / math.sqrt(len(line)) if len(line) > 1 else 0.0 for line in calls]
    speeds = [median(line) for line in zip(*rates)]
    return (
        f"| {case} | {speeds[0]:.0f} | {speeds[1]:.0f} | {median(ratios):.3f} [{ratios[0]:.3f}, {ratios[-1]:.3f}] "
        f"| {mean(calls[0]):.2f} +- {spread[0]:.2f} | {mean(calls[1]):.2f} +- {spread[1]:.2f} |"
    )


def main() -> None:
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("old", type=Path)
    ap.add_argument("new", type=Path)
    ap.add_argument("--rounds", type=int, default=6)
    ap.add_argument("--voice", type=Path, help="default: the one that ships with OLD")
    ap.add_argument("--pin", help="processor to run on")
    args = ap.parse_args()
    old, new = args.old.absolute(), args.new.absolute()
    voice = (args.voice or old / "spear_spec/voices/kokoro-duo").absolute()
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder) / "ids.json"
        ids.write_text(json.dumps(text_ids(new, voice)), encoding="utf-8")
        rounds = []
        for seed in range(args.rounds):
            pair = [measure(checkout, voice, ids, seed, args.pin) for checkout in (old, new)]
            rounds.append((pair[0], pair[1]))
    print(
        "| setting / batch | old, tokens/s | new, tokens/s | new over old | old, tokens a call | new, tokens a call |"
    )
    print("|---|---|---|---|---|---|")
    for name, batch in CASES:
        print(row(f"{name}/{batch}", rounds))


if __name__ == "__main__":
    main()
