"""How soon the first sound of a request is there over HTTP, alone on the server; and where the time goes.

    python recipes/benchmark/serve_latency.py [--requests 30] [--json FILE] [--in-process] [-- FLAGS OF serve]

A client on a bare socket, a new connection a request, twelve texts in turn. `first sound`: from sending the request to
the first byte of the body. `server`: the same by the server's own clock (its log). --in-process: the engine's own,
`TTS.stream` of the same texts and seeds, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from serve_process import ROOT, ask, served

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "Please leave your message after the tone.",
    "It was a bright cold day in April, and the clocks were striking thirteen.",
    "Your table will be ready in about twenty minutes.",
    "Nobody had seen the letter before.",
    "Turn left at the next corner, then keep right.",
    "She sells sea shells by the sea shore, and he buys them.",
    "There are 24 hours in a day.",
    "The train to Cambridge leaves from platform nine.",
    "What would you like to do next?",
    "He opened the window and looked at the garden.",
    "Thank you for calling, and goodbye.",
)
IN_PROCESS = """
import json, sys, time
from spear_spec.pipeline import TTS
from spear_spec.serving.scheduler import for_serving
tts = for_serving(TTS.load(device="cpu", threads=1))
texts, times = json.loads(sys.argv[1]), []
for seed, text in enumerate(texts[:3] + texts):
    began = time.perf_counter()
    stream = tts.stream(text, seed=seed)
    next(stream)
    times.append(time.perf_counter() - began)
    for _ in stream:
        pass
print(json.dumps(times[3:]))
"""


def summed(times: list[float]) -> dict[str, float]:
    """Milliseconds."""
    ordered = sorted(times)
    at95 = ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]
    return {
        "median_ms": round(1e3 * statistics.median(ordered), 1),
        "p95_ms": round(1e3 * at95, 1),
        "least_ms": round(1e3 * ordered[0], 1),
        "most_ms": round(1e3 * ordered[-1], 1),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--in-process", action="store_true")
    parser.add_argument("flags", nargs="*", help="of serve, behind --")
    args = parser.parse_args()
    result: dict[str, object] = {"schema": "serve_latency/1", "requests": args.requests, "flags": args.flags}
    with tempfile.TemporaryDirectory() as name, served(args.flags, Path(name)) as server:
        result |= {"ready_s": round(server.ready_s, 2), "ready_cpu_s": round(server.cpu_s, 2)}
        for form in ("pcm", "mp3"):
            first, head, rtf = [], [], []
            for seed in range(-3, args.requests):  # three to warm up
                body = {"input": TEXTS[seed % len(TEXTS)], "response_format": form, "seed": abs(seed)}
                heard = ask(server.port, body)
                assert heard.status == 200, heard.body
                if seed >= 0:
                    first.append(heard.first_sound_s)
                    head.append(heard.head_s)
                    if form == "pcm":
                        rtf.append(heard.whole_s / (len(heard.body) / 48000))
            log = (Path(name) / "serve.log").read_text()
            inside = [float(found) for found in re.findall(r"ttfa_s=([\d.]+)", log)][-args.requests :]
            result[form] = {"first_sound": summed(first), "server": summed(inside), "headers": summed(head)}
            if rtf:
                result["rtf_median"] = round(statistics.median(rtf), 3)
            print(form, json.dumps(result[form]), flush=True)
    if args.in_process:
        texts = [TEXTS[seed % len(TEXTS)] for seed in range(args.requests)]
        command = [sys.executable, "-c", IN_PROCESS, json.dumps(texts)]
        out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
        result["in_process"] = summed(json.loads(out.splitlines()[-1]))
        print("in process", json.dumps(result["in_process"]))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
