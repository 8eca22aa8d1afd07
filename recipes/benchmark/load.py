"""Load on one process: how many listeners it serves, how soon, how much, and what it does beyond its capacity.

    python recipes/benchmark/load.py [--quick] [--only streams,throughput,first,overload] [--json FILE]
        [--url http://127.0.0.1:8000 --pid PID] [--texts FILE] [--voice NAME] [--threads 1]

streams     N listeners who ask at random moments, play in real time and ask again: the largest N without a gap
throughput  a busy scheduler against `say --file` of the same texts, in a process of its own
first       the first sound alone, and beside half as many listeners as `streams` found
overload    --requests (10,000) at four times the capacity: answered or refused, and every answer's checksum against
            that of its text and seed made alone; growth of memory

In process by default; with --url over HTTP (pcm), throughput is then left to the comparison of the two JSON files, and
--pid names the server's process, whose memory is looked at. Listeners are tasks of one asyncio loop in this process.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from spear_spec.bench.machine import commit, hardware
from spear_spec.meter import AUDIBLE
from spear_spec.pipeline import TTS
from spear_spec.serving.limits import Limits
from spear_spec.serving.scheduler import Scheduler, for_serving
from spear_spec.serving.speech import Ask, Busy, Sound

PARTS = ("streams", "throughput", "first", "overload")
DEV = "/work/shared/text/dev.txt"
SHORT = (
    "It rained all day.",
    "Nobody minded.",
    "The river rose.",
    "Where were you?",
    "A letter came.",
    "He went home.",
)
SEEDS = 3


class Refused(Exception):
    """429."""


class Client(Protocol):
    """Asks for a text and gives float32 or int16 samples as they come."""

    rate: int

    def listen(self, text: str, seed: int) -> AsyncIterator[np.ndarray]: ...


class InProcess:
    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler, self.rate = scheduler, scheduler.sample_rate

    async def listen(self, text: str, seed: int) -> AsyncIterator[np.ndarray]:
        try:
            speech = self.scheduler.speak(Ask(text, seed=seed))
        except Busy as error:
            raise Refused(error.retry_after_s) from None
        async for event in speech:
            if isinstance(event, Sound) and len(event.samples):
                yield event.samples


class OverHttp:
    def __init__(self, url: str) -> None:
        import httpx

        self.rate, self.url = 24_000, url.rstrip("/") + "/v1/audio/speech"
        self._client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=120)

    async def listen(self, text: str, seed: int) -> AsyncIterator[np.ndarray]:
        body = {"model": "tts-1", "input": text, "seed": seed, "response_format": "pcm"}
        async with self._client.stream("POST", self.url, json=body) as answer:
            if answer.status_code == 429:
                raise Refused(answer.headers.get("retry-after"))
            answer.raise_for_status()
            odd = b""
            async for piece in answer.aiter_raw():
                whole = odd + piece
                odd = whole[len(whole) // 2 * 2 :]
                if len(whole) > 1:
                    yield np.frombuffer(whole[: len(whole) // 2 * 2], dtype="<i2")


@dataclass
class Heard:
    """What one listener heard, by his own clock."""

    first_s: float | None = None
    gaps: list[float] = field(default_factory=list)
    audio_s: float = 0.0
    digest: str = ""


async def play(client: Client, text: str, seed: int, *, real_time: bool) -> Heard:
    """Listen to an answer; in real time, stay until it has been played to its end."""
    heard, asked, ends, digest = Heard(), time.perf_counter(), 0.0, hashlib.sha256()
    async for samples in client.listen(text, seed):
        now, seconds = time.perf_counter(), len(samples) / client.rate
        if heard.audio_s and now > ends:
            heard.gaps.append(now - ends)
        ends = max(now, ends) + seconds
        heard.audio_s += seconds
        digest.update(samples.tobytes())
        scale = 32768 if samples.dtype == np.int16 else 1
        if heard.first_s is None and np.abs(samples.astype(np.float32)).max() > AUDIBLE * scale:
            heard.first_s = now - asked
    heard.digest = digest.hexdigest()
    if real_time:
        await asyncio.sleep(max(0.0, ends - time.perf_counter()))
    return heard


def percentiles(values: list[float]) -> dict[str, float | None]:
    return {f"p{p}": round(float(np.percentile(values, p)), 4) if values else None for p in (50, 90, 95, 99, 100)}


async def crowd(client: Client, texts: list[str], listeners: int, seconds: float, seed: int) -> dict[str, Any]:
    """So many who ask at random moments of the first third, play, pause a little and ask again until the time is up."""
    rng, all_, errors = random.Random(seed), [], Counter[str]()
    began = time.perf_counter()

    async def one(number: int) -> None:
        mine = random.Random(f"{seed} {number}")
        await asyncio.sleep(mine.uniform(0, seconds / 3))
        while time.perf_counter() - began < seconds:
            text = " ".join(mine.sample(texts, 3))
            try:
                all_.append(await play(client, text, mine.randrange(2**32), real_time=True))
            except Exception as error:
                errors[type(error).__name__] += 1
                await asyncio.sleep(1)
            await asyncio.sleep(mine.uniform(0, 0.5))

    cpu = time.process_time()
    await asyncio.gather(*[one(rng.randrange(10**6)) for _ in range(listeners)])
    wall = time.perf_counter() - began
    gaps = [sum(heard.gaps) for heard in all_]
    return {
        "listeners": listeners,
        "answers": len(all_),
        "errors": dict(errors),
        "with_gap": sum(gap > 0 for gap in gaps),
        "gap_s": percentiles(gaps),
        "first_s": percentiles([heard.first_s for heard in all_ if heard.first_s is not None]),
        "audio_s": round(sum(heard.audio_s for heard in all_), 1),
        "wall_s": round(wall, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
    }


def without_gap(trial: dict[str, Any]) -> bool:
    return not trial["errors"] and trial["answers"] > 0 and trial["gap_s"]["p95"] == 0


async def streams(client: Client, texts: list[str], quick: bool, most: int) -> dict[str, Any]:
    """The largest number without a gap (95th percentile over answers of all their gaps is 0): doubled, then halved."""
    seconds = 6.0 if quick else 20.0
    trials: list[dict[str, Any]] = []

    async def good(listeners: int) -> bool:
        trials.append(await crowd(client, texts, listeners, seconds, seed=len(trials)))
        print("streams", json.dumps(trials[-1]), file=sys.stderr, flush=True)
        return without_gap(trials[-1])

    low, high = 0, None
    ask = 4 if quick else 12
    while high is None or high - low > max(1, low // 12):
        if await good(ask):
            low = ask
            if ask >= most:
                break
        else:
            high = ask
        ask = min(most, max(low + 1, low * 3 // 2)) if high is None else (low + high) // 2
        if ask == low or (quick and len(trials) >= 2):
            break
    return {"most": low, "trials": trials}


def said(texts: list[str], voice: str | None) -> float:
    """Seconds of speech a second of `say --file`, loading left out."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder, "texts.txt"), Path(folder, "say.json")
        file.write_text("\n".join(texts) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "spear_spec", "say", "--file", str(file), "--out-dir", folder]
        command += [f"--json={out}", "--device", "cpu", *(["--voice", voice] if voice else [])]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        path = str(Path(__file__).resolve().parents[2])
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env={**environment, "PYTHONPATH": path})
        items = json.loads(out.read_text(encoding="utf-8"))["items"]
    return sum(item["audio_s"] for item in items) / sum(item["audio_s"] * item["rtf"] for item in items)


async def throughput(client: Client, texts: list[str], voice: str | None, quick: bool) -> dict[str, Any]:
    """Seconds of speech a second: busy with 24 of the texts at a time, and `say --file` of them, in turn; medians."""
    lines, room = texts[: 6 if quick else 40], asyncio.Semaphore(24)

    async def heard_once(n: int, text: str) -> Heard:
        async with room:
            return await play(client, text, n, real_time=False)

    one: list[float] = []
    all_: list[float] = []
    for _ in range(1 if quick else 3):
        one.append(await asyncio.to_thread(said, lines, voice))
        began, cpu = time.perf_counter(), time.process_time()
        heard = await asyncio.gather(*[heard_once(n, text) for n, text in enumerate(lines)])
        audio = sum(h.audio_s for h in heard)
        all_.append(audio / (time.perf_counter() - began))
        cpu = time.process_time() - cpu
    return {
        "texts": len(lines),
        "say_file": round(median(one), 2),
        "busy": round(median(all_), 2),
        "ratio": round(median(many / alone for many, alone in zip(all_, one)), 3),
        "busy_cpu_s_a_second": round(cpu / audio, 5),
    }


async def first(client: Client, texts: list[str], quick: bool, half: int) -> dict[str, Any]:
    """Alone, one after the other; then in a crowd of half the capacity."""
    alone = []
    for n, text in enumerate(texts[: 3 if quick else 30]):
        alone.append((await play(client, text, n, real_time=False)).first_s)
        await asyncio.sleep(0.02)
    beside = await crowd(client, texts, max(1, half), 4 if quick else 25, seed=99)
    return {"alone_s": percentiles([s for s in alone if s is not None]), "half": beside}


def memory(pid: int) -> int:
    """Resident bytes of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def overload(client: Client, pid: int | None, requests: int) -> dict[str, Any]:
    """Requests at random moments, four times as many a second as are answered; few texts and seeds."""
    kinds = [(text, seed) for text in SHORT for seed in range(SEEDS)]
    oracle = {kind: (await play(client, *kind, real_time=False)).digest for kind in kinds}
    began = time.perf_counter()
    await asyncio.gather(*[play(client, *kind, real_time=False) for kind in kinds])
    await asyncio.gather(*[play(client, *kind, real_time=False) for kind in kinds])
    capacity = 2 * len(kinds) / (time.perf_counter() - began)
    rng, counts, firsts = random.Random(0), Counter[str](), []
    sizes: list[int] = []

    async def one(kind: tuple[str, int]) -> None:
        try:
            heard = await asyncio.wait_for(play(client, *kind, real_time=False), 120)
        except Refused:
            counts["refused"] += 1
        except TimeoutError:
            counts["hung"] += 1
        except Exception as error:
            counts[f"error {type(error).__name__}"] += 1
        else:
            counts["answered" if heard.digest == oracle[kind] else "wrong"] += 1
            firsts.append(heard.first_s or 0.0)

    tasks: set[asyncio.Task[None]] = set()
    began = due = time.perf_counter()
    for number in range(requests):
        due += rng.expovariate(4 * capacity)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        task = asyncio.create_task(one(rng.choice(kinds)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        if pid is not None and number % max(1, requests // 100) == 0:
            sizes.append(memory(pid))
    await asyncio.gather(*tasks)
    wall = time.perf_counter() - began
    if pid is not None:
        sizes.append(memory(pid))
    part = max(1, len(sizes) // 4)  # the first tenth warms up; then a quarter at the beginning against the last one
    warm = sizes[len(sizes) // 10 :]
    return {
        "requests": requests,
        "capacity_a_second": round(capacity, 2),
        "asked_a_second": round(requests / wall, 2),
        **{name: counts[name] for name in ("answered", "refused", "wrong", "hung")},
        "errors": {name: n for name, n in counts.items() if name.startswith("error")},
        "first_s": percentiles(firsts),
        "memory_mib": [round(size / 2**20, 1) for size in sizes[:: max(1, len(sizes) // 20)]],
        "memory_growth": round(median(warm[-part:]) / median(warm[:part]) - 1, 4) if warm else None,
        "wall_s": round(wall, 1),
    }


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    texts = [line for line in Path(args.texts).read_text(encoding="utf-8").splitlines() if line.strip()]
    if args.quick:
        texts = texts[:12]
    tts = for_serving(TTS.load(args.voice, device="cpu", threads=args.threads))
    result: dict[str, Any] = {
        "schema": "load/1",
        "commit": commit(),
        "hardware": hardware(torch.device("cpu")),
        "over": args.url or "in process",
        "voice": tts.name,
        "settings": tts.describe(),
        "quick": args.quick,
    }
    scheduler = None
    if args.url is None:
        scheduler = Scheduler(tts, Limits(streams=args.most))
        result["limits"] = vars(scheduler.limits)
    client: Client = OverHttp(args.url) if scheduler is None else InProcess(scheduler)
    pid = os.getpid() if scheduler is not None else args.pid
    try:
        for text in texts[: 12 if args.quick else None]:  # the front end's caches, as of a server that has been up
            if scheduler is not None:
                list(tts.front_end.segments(text, tts.speakers[0]))
        for n in range(3):
            await play(client, texts[n], n, real_time=False)
        if "streams" in args.only:
            result["streams"] = await streams(client, texts, args.quick, args.most)
        half = (result["streams"]["most"] if "streams" in result else args.half) // 2
        if "throughput" in args.only and scheduler is not None:
            result["throughput"] = await throughput(client, texts, args.voice, args.quick)
        if "first" in args.only:
            result["first"] = await first(client, texts, args.quick, half)
        if "overload" in args.only:
            result["overload"] = await overload(client, pid, args.requests or (300 if args.quick else 10_000))
        if scheduler is not None:
            state = scheduler.state()
            result["state"] = {**vars(state), "totals": vars(state.totals)}
    finally:
        if scheduler is not None:
            scheduler.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default=",".join(PARTS), type=lambda names: names.split(","))
    parser.add_argument("--url")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--texts", default=DEV)
    parser.add_argument("--voice")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--most", type=int, default=64, help="listeners, at most")
    parser.add_argument("--half", type=int, default=24, help="capacity, where `streams` is left out")
    parser.add_argument("--requests", type=int)
    parser.add_argument("--json")
    args = parser.parse_args()
    text = json.dumps(asyncio.run(measure(args)), indent=1)
    if args.json:
        Path(args.json).write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
