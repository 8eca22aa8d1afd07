"""The table of quality that RESULTS.md shows: resynthesis, text to speech, fixed short and long texts, speed.

    python recipes/benchmark/quality.py --out runs/quality [--voice NAME|FOLDER] [--speakers af_heart,am_michael]
        [--parts teacher,resynthesis,tts,autoregressive,short,long,speed,cold] [--limit N] [--workers 2]
        [--spec '{"verifier": "tolerance", "options": {"b": 0.2}}']
        [--dev ../shared/dev --tokens ../shared/tokens2/dev.safetensors --dev-text ../shared/text/dev.txt]

Every utterance is one line of OUT/<part>.<speaker>.jsonl, written as soon as it is judged: run the same command again
and it goes on where it stopped. Lines made with another voice (its config.json holds checksums of all weights) are not
used. The summary is OUT/quality.json, the table goes to standard output. On two cores with nothing else running one
speaker's whole table takes about ten minutes; `--limit 60` three.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from tqdm import tqdm

from spear_spec.audio import Audio, load_audio
from spear_spec.errors import MissingExtraError, SpearSpecError
from spear_spec.evaluation.judge import Measurement
from spear_spec.evaluation.report import markdown
from spear_spec.evaluation.statistics import paired_difference, ratio_interval

HERE = Path(__file__).parent
SHARED = HERE.parents[2] / "shared"
JUDGED = {
    "teacher": ("wer", "per", "mos", "speaker_similarity"),
    "resynthesis": ("wer", "mos"),
    "tts": ("wer", "per", "mos", "speaker_similarity"),
    "autoregressive": ("wer", "mos"),
    "short": ("wer", "base"),
    "long": ("wer", "mos"),
}
SAID = ("tts", "autoregressive", "short", "long")
SILENT = 0.01  # peak below this share of full scale: nothing is heard
Row = dict[str, Any]


# ---- one utterance, in a worker process ----------------------------------------------------------------------------


@lru_cache(maxsize=1)
def voice(name: str | None) -> Any:
    import torch

    from spear_spec.pipeline import TTS

    torch.set_num_threads(1)
    return TTS.load(name, threads=1)


@cache
def judge(metric: str) -> Any:
    from spear_spec.evaluation.judges import JUDGES
    from spear_spec.evaluation.wer import WordErrorJudge

    return WordErrorJudge("base") if metric == "base" else JUDGES[metric]()


@lru_cache(maxsize=1)
def true_tokens(path: str) -> Any:
    from safetensors.torch import load_file

    return load_file(path)


def utterance(job: Row) -> Row:
    """Make (or read) and judge one utterance. The row holds sums, so that rows can be summarised in any grouping."""
    import torch

    from spear_spec.evaluation.judge import Reference
    from spear_spec.evaluation.reference import load_reference

    torch.set_num_threads(1)
    part, speaker, text = job["part"], job["speaker"], job["text"]
    row: Row = {"id": job["id"], "text": text}
    phonemes = job.get("phonemes")
    tts = None if part == "teacher" else voice(job["voice"])
    if part == "teacher":
        audio = load_audio(job["audio"])
    elif part == "resynthesis":
        tokens = true_tokens(job["tokens"])[job["key"]].long()
        stream = tts.stage.open(speaker, 1.0, torch.Generator().manual_seed(job["seed"]))
        samples = torch.cat([stream.push(tokens), stream.finish()]).numpy()
        audio = Audio(samples, tts.sample_rate)
    else:
        arm = (
            tts.using(drafter="none") if part == "autoregressive" else tts.using(**job["spec"]) if job["spec"] else tts
        )
        audio = arm.synthesize(text, speaker=speaker, seed=job["seed"], **job["sampling"])
        row.update({key: audio.stats[key] for key in ("ended", "tokens", "target_calls", "rtf", "ttfa_s", "redrawn")})
    if job["keep"]:
        target = Path(job["keep"]) / f"{part}.{speaker}" / f"{job['id']:03d}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        audio.save(target)
    row["seconds"] = round(audio.seconds, 4)
    row["peak"] = round(float(np.abs(audio.samples).max(initial=0.0)), 4)
    if "per" in JUDGED[part] and phonemes is None and tts is not None:
        phonemes = tts.front_end.phonemes(text)
    embedding = load_reference(Path(job["folder"]), speaker) if job["folder"] else None
    reference = Reference(text, phonemes, embedding)
    for metric in JUDGED[part]:
        try:
            found = judge(metric).score(audio.samples, reference, audio.sample_rate)
        except MissingExtraError:
            if metric != "base":  # Whisper base is a second opinion and may be left out
                raise
            continue
        if found is not None:
            row[metric] = [found.numerator, found.denominator]
            if metric in ("wer", "base"):
                row["hypothesis" if metric == "wer" else "hypothesis_base"] = found.detail
    return row


# ---- jobs and their files ------------------------------------------------------------------------------------------


def jobs_of(part: str, speaker: str, args: argparse.Namespace) -> list[Row]:
    common: Row = {
        "part": part,
        "speaker": speaker,
        "voice": args.voice,
        "folder": args.folder,
        "sampling": args.sampling,
        "spec": args.spec,
        "keep": args.keep,
    }
    if part in ("teacher", "resynthesis"):
        lines = (
            line for path in sorted(args.dev.glob("meta.*.jsonl")) for line in path.read_text("utf-8").splitlines()
        )
        clips = [clip for clip in map(json.loads, lines) if clip["voice"] == speaker]
        return [
            {**common, "id": int(clip["id"].split("/")[-1]), "text": clip["text"], "phonemes": clip["phonemes"],
             "audio": str(args.dev / (clip["id"] + ".ogg")), "tokens": str(args.tokens), "key": clip["id"], "seed": 0}
            for clip in clips[: args.limit]
        ]  # fmt: skip
    file = {"short": HERE / "texts/short.txt", "long": HERE / "texts/long.txt"}.get(part, args.dev_text)
    texts = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
    return [{**common, "id": i, "text": t, "seed": args.seed + i} for i, t in enumerate(texts)][: args.limit]


def rows_of(part: str, speaker: str, args: argparse.Namespace, pool: Callable[[], ProcessPoolExecutor]) -> list[Row]:
    """Rows in order of id: those on file, and those that are still to be made."""
    path = args.out / f"{part}.{speaker}.jsonl"
    stamp = "teacher" if part == "teacher" else args.stamp
    done: dict[int, Row] = {}
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            if row["stamp"] == stamp:
                done[row["id"]] = row
    jobs = jobs_of(part, speaker, args)
    missing = [job for job in jobs if job["id"] not in done]
    if missing:
        with path.open("a", encoding="utf-8") as file:
            futures = [pool().submit(utterance, job) for job in missing]
            bar = tqdm(
                as_completed(futures), desc=f"{part} {speaker}", total=len(futures), unit="clip", file=sys.stderr
            )
            for future in bar:
                row = {**future.result(), "stamp": stamp}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                done[row["id"]] = row
    return [done[job["id"]] for job in jobs]


# ---- summaries -----------------------------------------------------------------------------------------------------


def sums(rows: list[Row], metric: str) -> list[Measurement]:
    return [Measurement(*row[metric]) for row in rows if metric in row]


def over(rows: list[Row], metric: str) -> dict[str, float] | None:
    found = sums(rows, metric)
    return ratio_interval(found).to_dict() if found else None


def above(rows: list[Row], others: list[Row], metric: str) -> dict[str, float] | None:
    """Paired difference over the sentences that both have."""
    by_id = {row["id"]: row for row in others if metric in row}
    shared = [row for row in rows if metric in row and row["id"] in by_id]
    if not shared:
        return None
    return paired_difference(sums(shared, metric), sums([by_id[row["id"]] for row in shared], metric)).to_dict()


def judged(rows: list[Row], part: str, teacher: list[Row]) -> Row:
    found: Row = {"n": len(rows), **{metric: over(rows, metric) for metric in JUDGED[part] if metric != "base"}}
    if part in ("resynthesis", "tts", "autoregressive") and teacher:
        found["wer_above_teacher"] = above(rows, teacher, "wer")
        found["mos_above_teacher"] = above(rows, teacher, "mos")
    if part in SAID:
        found["ended_by_eos"] = sum(row["ended"] == "eos" for row in rows)
        found["silent"] = sum(row["peak"] < SILENT for row in rows)
        found["tokens_per_call"] = sum(row["tokens"] for row in rows) / max(1, sum(row["target_calls"] for row in rows))
    if part == "tts" and teacher:
        seconds = {row["id"]: row["seconds"] for row in teacher}
        ratios = [row["seconds"] / seconds[row["id"]] for row in rows if row["id"] in seconds]
        found["length_ratio"] = {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)}
    if part == "short":
        exact = [row["wer"][0] == 0 or ("base" in row and row["base"][0] == 0) for row in rows]
        found["word_exact"] = sum(exact)
        found["not_exact"] = [
            [row["text"], row["hypothesis"]] for row, good in zip(rows, exact, strict=True) if not good
        ]
    return found


def speed(args: argparse.Namespace, speaker: str) -> Row:
    """RTF of the whole pipeline over dev sentences and time to first audio of a long text, with `--threads` threads."""
    from spear_spec.pipeline import TTS

    tts = TTS.load(args.voice, threads=args.threads)
    texts = [line for line in args.dev_text.read_text("utf-8").splitlines() if line.strip()][:30]
    long = " ".join((HERE / "texts/long.txt").read_text("utf-8").splitlines()[:3])
    for text in texts[:3]:
        tts.synthesize(text, speaker=speaker, seed=args.seed, **args.sampling)
    stats = [tts.synthesize(t, speaker=speaker, seed=args.seed + i, **args.sampling).stats for i, t in enumerate(texts)]
    first = []
    for run in range(7):
        began = time.perf_counter()
        chunks: Iterator[Any] = tts.stream(long, speaker=speaker, seed=args.seed + run, **args.sampling)
        next(chunk for chunk in chunks if np.abs(chunk.samples).max(initial=0.0) > SILENT)
        first.append(time.perf_counter() - began)
    rtf = ratio_interval([Measurement(s["rtf"] * s["audio_s"], s["audio_s"]) for s in stats if s["rtf"]])
    return {"threads": args.threads, "load_s": tts.load_s, "rtf": rtf.to_dict(),
            "ttfa_s": {"median": statistics.median(first), "min": min(first), "max": max(first)}}  # fmt: skip


def cold(args: argparse.Namespace, speaker: str) -> Row:
    """Wall time of `spear-spec say` in a process of its own, as a user starts it."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "spear_spec", "say", "The quick brown fox jumps over the lazy dog.",
                   "-o", f"{folder}/out.wav", "--speaker", speaker]  # fmt: skip
        command += ["--voice", args.voice] if args.voice else []
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        for _ in range(5):
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True, env=environment)
            times.append(time.perf_counter() - began)
    return {"first_s": times[0], "median_s": statistics.median(times[1:]), "runs": times}


def per_cent(interval: Row | None) -> str:
    return (
        "-"
        if interval is None
        else f"{100 * interval['value']:.2f} % [{100 * interval['lo']:.2f}, {100 * interval['hi']:.2f}]"
    )


def plain(interval: Row | None, digits: int = 3) -> str:
    return (
        "-"
        if interval is None
        else f"{interval['value']:.{digits}f} [{interval['lo']:.{digits}f}, {interval['hi']:.{digits}f}]"
    )


def table(results: dict[str, Row], speakers: list[str]) -> str:
    """One column a speaker; rows only for the parts that were run."""
    lines: list[tuple[str, str, Callable[[Row], str]]] = [
        ("teacher", "teacher's audio: WER", lambda r: per_cent(r["wer"])),
        ("teacher", "PER", lambda r: per_cent(r["per"])),
        ("teacher", "DistillMOS", lambda r: plain(r["mos"])),
        ("teacher", "speaker similarity", lambda r: plain(r["speaker_similarity"])),
        ("resynthesis", "resynthesis: WER", lambda r: per_cent(r["wer"])),
        ("resynthesis", "WER above the original", lambda r: per_cent(r.get("wer_above_teacher"))),
        ("resynthesis", "DistillMOS", lambda r: plain(r["mos"])),
        ("tts", "text to speech: sentences", lambda r: str(r["n"])),
        ("tts", "WER", lambda r: per_cent(r["wer"])),
        ("tts", "WER above the teacher", lambda r: per_cent(r.get("wer_above_teacher"))),
        ("tts", "PER", lambda r: per_cent(r["per"])),
        ("tts", "DistillMOS", lambda r: plain(r["mos"])),
        ("tts", "speaker similarity", lambda r: plain(r["speaker_similarity"])),
        ("tts", "ended by the end token; silent", lambda r: f"{r['ended_by_eos']} of {r['n']}; {r['silent']}"),
        ("tts", "length against the teacher, least to most",
         lambda r: "{min:.2f} to {max:.2f}".format(**r["length_ratio"]) if "length_ratio" in r else "-"),
        ("tts", "tokens per target call", lambda r: f"{r['tokens_per_call']:.2f}"),
        ("autoregressive", "speculation off: WER", lambda r: per_cent(r["wer"])),
        ("autoregressive", "WER, speculation on minus off", lambda r: per_cent(r.get("wer_speculative_minus"))),
        ("autoregressive", "DistillMOS, on minus off", lambda r: plain(r.get("mos_speculative_minus"))),
        ("short", "one and two words: word-exact", lambda r: f"{r['word_exact']} of {r['n']}"),
        ("long", "about 60 words: WER", lambda r: per_cent(r["wer"])),
        ("long", "DistillMOS", lambda r: plain(r["mos"])),
        ("long", "ended by the end token", lambda r: f"{r['ended_by_eos']} of {r['n']}"),
        ("speed", "RTF", lambda r: f"{plain(r['rtf'])} ({r['threads']} threads)"),
        ("speed", "first audible sample, s", lambda r: "{median:.3f} [{min:.3f}, {max:.3f}]".format(**r["ttfa_s"])),
        ("cold", "`spear-spec say` from a cold start, s", lambda r: f"{r['median_s']:.2f} (first {r['first_s']:.2f})"),
    ]  # fmt: skip
    rows = [["figure", *speakers]]
    for part, title, cell in lines:
        if part in results:
            rows.append([title, *(cell(results[part][s]) if s in results[part] else "-" for s in speakers)])
    return markdown(rows)


def hardware() -> str:
    model = (
        next(
            (
                line.split(":")[1].strip()
                for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")
            ),
            "unknown processor",
        )
        if Path("/proc/cpuinfo").exists()
        else "unknown"
    )
    return f"{model}, {os.cpu_count()} cores"


def commit() -> str:
    found = subprocess.run(["git", "-C", str(HERE), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--voice", help="a voice folder or an installed voice (default: the shipped one)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--parts", default=",".join([*JUDGED, "speed", "cold"]))
    parser.add_argument("--speakers", default="af_heart,am_michael")
    parser.add_argument("--dev", type=Path, default=SHARED / "dev")
    parser.add_argument("--tokens", type=Path, default=SHARED / "tokens2" / "dev.safetensors")
    parser.add_argument("--dev-text", type=Path, default=SHARED / "text" / "dev.txt")
    parser.add_argument("--limit", type=int, help="only the first N texts of each part")
    parser.add_argument("--workers", type=int, default=2, help="processes that speak and judge, one thread each")
    parser.add_argument("--threads", type=int, default=2, help="torch threads of the speed part")
    parser.add_argument("--seed", type=int, default=0, help="text i is spoken with seed + i")
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--complete", choices=("on", "stream", "off"), help="the law given completeness, see `say`")
    parser.add_argument(
        "--spec", type=json.loads, default={}, help="fields of SpecConfig for the speculative parts, as JSON"
    )
    parser.add_argument("--keep", help="folder for the audio")
    args = parser.parse_args()
    names = ("temperature", "top_k", "top_p", "guidance", "complete")
    args.sampling = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return args


def main() -> int:
    args = parse()
    parts, speakers = args.parts.split(","), args.speakers.split(",")
    unknown = set(parts) - {*JUDGED, "speed", "cold"}
    if unknown:
        raise SpearSpecError(
            f"unknown part {', '.join(sorted(unknown))}; known are {', '.join([*JUDGED, 'speed', 'cold'])}"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    args.stamp, args.folder = "teacher", None
    if parts != ["teacher"] or args.voice is not None:
        from spear_spec.voice.search import find_voice

        folder = find_voice(args.voice)
        described = (folder / "config.json").read_bytes() + json.dumps(
            [args.sampling, args.seed, *([args.spec] if args.spec else [])]
        ).encode()
        args.stamp, args.folder = hashlib.sha256(described).hexdigest()[:12], str(folder)
    pools: list[ProcessPoolExecutor] = []

    def pool() -> ProcessPoolExecutor:
        if not pools:
            pools.append(ProcessPoolExecutor(args.workers, mp_context=multiprocessing.get_context("spawn")))
        return pools[0]

    results: dict[str, Row] = {part: {} for part in parts}
    try:
        for speaker in speakers:
            rows: dict[str, list[Row]] = {}
            for part in (part for part in JUDGED if part in parts):
                rows[part] = rows_of(part, speaker, args, pool)
                results[part][speaker] = judged(rows[part], part, rows.get("teacher", []))
            if "tts" in rows and "autoregressive" in rows:
                for metric in ("wer", "mos"):
                    difference = above(rows["tts"], rows["autoregressive"], metric)
                    results["autoregressive"][speaker][f"{metric}_speculative_minus"] = difference
    finally:
        if pools:
            pools[0].shutdown(cancel_futures=True)
    for name, measure in (("speed", speed), ("cold", cold)):  # alone on the machine: the workers have gone
        if name in parts:
            results[name] = {speaker: measure(args, speaker) for speaker in speakers}
    summary = {
        "schema": "quality/1",
        "commit": commit(),
        "hardware": hardware(),
        "command": " ".join(sys.argv),
        "voice": args.voice,
        "stamp": args.stamp,
        "sampling": args.sampling,
        "spec": args.spec,
        "results": results,
    }
    (args.out / "quality.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(
        f"commit {summary['commit']}, {summary['hardware']}, voice {args.voice or 'the shipped one'} ({args.stamp})\n"
    )
    print(table(results, speakers))
    for speaker, found in results.get("short", {}).items():
        for text, heard in found["not_exact"]:
            print(f"\nnot exact ({speaker}): {text!r} was heard as {heard!r}", end="")
    print()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SpearSpecError as error:
        sys.exit(f"quality: {error}")
