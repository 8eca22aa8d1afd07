"""kill -9 in the middle of work: how soon a new server is ready, and whether anything half-written is left.

    python recipes/benchmark/serve_kill.py [--times 20] [--listeners 4] [--seed 1] [--json FILE] [--imports]

The server runs in a folder of its own, with its temporary folder, cache and configuration inside. Listeners ask without
a pause; at a random moment of the first three seconds it is killed and started again at the same port. After each kill
the folder is compared with what it held before the first; every answer that came to a proper end is compared with the
same seed's audio of an undisturbed server. --imports: what the start's imports cost (python -X importtime). Exit status
1 where a file was left, an answer was wrong, or a start took more than 5 s.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from serve_process import ROOT, Served, ask, start

TEXTS = (
    "It was killed in the middle of a word.",
    "Nothing of it is left.",
    "One two three four five six seven eight nine ten. Eleven twelve thirteen fourteen.",
    "And here it is again.",
)
READY_S = 5.0


def files(folder: Path) -> dict[str, int]:
    """Size by name of all there is, but for the log."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def listen(port: int, number: int, over: threading.Event, whole: list[tuple[int, str]], cut: list[int]) -> None:
    turn = number
    while not over.is_set():
        at = turn % len(TEXTS)
        turn += 1
        try:
            heard = ask(port, {"input": TEXTS[at], "response_format": "pcm", "seed": at}, timeout_s=20)
        except (OSError, ValueError, IndexError):
            cut.append(at)
            over.wait(0.05)
            continue
        if heard.status == 200:
            whole.append((at, hashlib.sha256(heard.body).hexdigest()))


def imports() -> list[str]:
    """The dearest ones: cumulated milliseconds and name."""
    code = (
        "import spear_spec.cli.serve, spear_spec.serving.app, spear_spec.serving.server, spear_spec.serving.scheduler"
    )
    command = [sys.executable, "-X", "importtime", "-c", code]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stderr
    found = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)", out)
    top = sorted(((int(total), name) for _, total, indent, name in found if len(indent) <= 4), reverse=True)
    return [f"{total / 1000:.0f} ms {name}" for total, name in top[:25]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--listeners", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--imports", action="store_true")
    args = parser.parse_args()
    if args.imports:
        print("\n".join(imports()))
    chance, port = random.Random(args.seed), 0
    ready, cpu, left, whole, cut = [], [], [], [], []
    with tempfile.TemporaryDirectory() as outside, tempfile.TemporaryDirectory() as name:
        folder, log = Path(name), Path(outside) / "serve.log"
        for part in ("work", "tmp", "home"):
            (folder / part).mkdir()
        own = {"TMPDIR": name + "/tmp", "HOME": name + "/home", "XDG_CACHE_HOME": name + "/home/cache"}
        own |= {"SPEAR_SPEC_CONFIG": name + "/home/config", "PYTHONDONTWRITEBYTECODE": "1"}

        def again() -> Served:
            nonlocal port
            server = start([], port, folder / "work", own, log)
            ready.append(round(server.ready_s, 2))
            cpu.append(round(server.cpu_s, 2))
            port = server.port
            return server

        server = again()
        before = files(folder)
        right = {
            at: hashlib.sha256(ask(port, {"input": text, "response_format": "pcm", "seed": at}).body).hexdigest()
            for at, text in enumerate(TEXTS)
        }
        over = threading.Event()
        crowd = [
            threading.Thread(target=listen, args=(port, number, over, whole, cut)) for number in range(args.listeners)
        ]
        for one in crowd:
            one.start()
        for turn in range(args.times):
            time.sleep(chance.uniform(0.05, 3.0))
            server.process.kill()
            server.process.wait()
            left += [f"{turn}: {path}" for path in sorted(set(files(folder).items()) ^ set(before.items()))]
            server = again()
            print(f"{turn + 1}: ready after {ready[-1]} s ({cpu[-1]} s of processor)", flush=True)
        over.set()
        for one in crowd:
            one.join()
        server.process.kill()
        server.process.wait()
    wrong = sum(right[at] != digest for at, digest in whole)
    result = {
        "schema": "serve_kill/1",
        "times": args.times,
        "ready_s": {"median": median(ready), "most": max(ready), "all": ready},
        "ready_cpu_s_median": median(cpu),
        "files_left": left,
        "answers_whole": len(whole),
        "answers_cut": len(cut),
        "answers_wrong": wrong,
        "cores": os.cpu_count(),
    }
    print(json.dumps(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if not left and not wrong and max(ready) <= READY_S else 1


if __name__ == "__main__":
    sys.exit(main())
