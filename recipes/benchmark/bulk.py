#!/usr/bin/env python
"""Bulk synthesis of very short lines with one and with four workers, one of which is killed in the middle (SIGKILL):
were all lines spoken exactly once, are the checksums those of the arm before, and how long did it take?

    recipes/benchmark/bulk.py                        # 10,000 lines, on a local Ray cluster
    recipes/benchmark/bulk.py --lines 200            # a rehearsal
    recipes/benchmark/bulk.py --no-ray --workers 2   # processes
    RAY_TMPDIR=/short/path recipes/benchmark/bulk.py --json bulk.json --keep FOLDER

The result is JSON. Exit status 1: a line was not spoken exactly once, or the arms differ.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from spear_spec import __version__  # noqa: E402
from spear_spec.bulk.crew import Done, Gone, Ready  # noqa: E402
from spear_spec.bulk.folder import check_folder  # noqa: E402
from spear_spec.bulk.lines import Line  # noqa: E402
from spear_spec.bulk.run import speak_lines  # noqa: E402
from spear_spec.bulk.settings import Settings, steady  # noqa: E402
from spear_spec.config import SpecConfig  # noqa: E402
from spear_spec.tuning.store import fingerprint  # noqa: E402
from spear_spec.voice.bundle import open_voice  # noqa: E402

WORDS = ("Yes.", "No.", "Oh!", "Well.", "Why?", "Go on.", "Good.", "Stop.", "Now.", "Fine.", "Here.", "Maybe.")


def short_lines(count: int) -> list[Line]:
    """Words and small numbers, each line with a seed of its own."""
    rng = random.Random(0)
    return [
        Line(n + 1, f"{n:05d}", rng.choice(WORDS) if n % 2 else f"{rng.randrange(100)}.", seed=n) for n in range(count)
    ]


def arm(lines: list[Line], settings: Settings, folder: Path, workers: int, ray: str | None) -> dict[str, Any]:
    """One run; a worker is killed when a third of the lines are done: with several, one in the middle of a shard."""
    pids: dict[int, int] = {}
    done: Counter[int] = Counter()
    killed: list[int] = []
    ready: list[float] = []
    began = time.perf_counter()

    def told(event: object) -> None:
        if isinstance(event, Ready):
            pids[event.worker] = event.pid
            ready.append(round(time.perf_counter() - began, 2))
        elif isinstance(event, Gone):
            print(f"  worker {event.worker} died: {event.why[:100]}", file=sys.stderr)
        elif isinstance(event, Done):
            done[event.worker] += event.told["lines"]
            if not killed and sum(done.values()) >= len(lines) / 3:
                others = [worker for worker in pids if worker != event.worker]
                killed.append((others or [event.worker])[0])
                os.kill(pids[killed[0]], signal.SIGKILL)

    totals = speak_lines(lines, settings, folder, workers=workers, ray=ray, told=told)
    manifest = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    times = Counter(record["id"] for record in manifest if record["error"] is None)
    check_folder(folder)
    once = sum(times[line.id] == 1 for line in lines)
    rate = open_voice(settings.voice).config.clock.sample_rate
    return {
        "workers": workers,
        "ray": ray,
        "lines": len(lines),
        "exactly_once": once,
        "foreign": len(times.keys() - {line.id for line in lines}),
        "killed": len(killed),
        "deaths": totals["deaths"],
        "wall_s": totals["wall_s"],
        "first_worker_ready_s": min(ready),
        "audio_s": round(totals["samples"] / rate, 1),
        "tokens": totals["tokens"],
        "cut_off": totals["cut_off"],
        "lines_by_worker": dict(done),
        "manifest_sha256": totals["manifest.jsonl"],
    }


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lines", type=int, default=10_000)
    parser.add_argument("--workers", default="1,4", help="an arm for each number (default 1,4)")
    parser.add_argument("--no-ray", action="store_true", help="processes instead of a local Ray cluster")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--shard-lines", type=int, default=64)
    parser.add_argument("--drafter", default="none")
    parser.add_argument("--voice")
    parser.add_argument("--keep", metavar="FOLDER", help="leave the sound here")
    parser.add_argument("--json", metavar="FILE", help="instead of standard output")
    args = parser.parse_args()
    bundle = open_voice(args.voice)
    spec = bundle.spec.to_dict() if args.drafter != "none" else SpecConfig(drafter="none", verifier="block").to_dict()
    settings = Settings(
        voice=args.voice,
        name=bundle.config.name,
        fingerprint=fingerprint(bundle.path),
        speaker=bundle.config.speakers[0],
        version=__version__,
        sampling=bundle.sampling.to_dict(),
        spec=steady(SpecConfig.from_dict({**spec, "drafter": args.drafter}), args.batch).to_dict(),
        format="flac",
        shard_lines=args.shard_lines,
        batch=args.batch,
    )
    lines, arms = short_lines(args.lines), []
    base = Path(args.keep or tempfile.mkdtemp(prefix="bulk-"))
    try:
        for workers in map(int, args.workers.split(",")):
            print(f"{len(lines)} lines, {workers} workers ...", file=sys.stderr)
            arms.append(arm(lines, settings, base / f"workers-{workers}", workers, None if args.no_ray else "local"))
            print(f"  {json.dumps(arms[-1])}", file=sys.stderr, flush=True)
    finally:
        if not args.keep:
            shutil.rmtree(base, ignore_errors=True)
    same = len({found["manifest_sha256"] for found in arms}) == 1
    ok = same and all(found["exactly_once"] == len(lines) and not found["foreign"] for found in arms)
    result = {"schema": "bulk-benchmark/1", "ok": ok, "arms_equal": same, "settings": settings.heard(), "arms": arms}
    text = json.dumps(result, indent=1) + "\n"
    if args.json:
        Path(args.json).write_text(text)
    else:
        print(text, end="")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
