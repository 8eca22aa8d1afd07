"""Rules and drafts on a voice: tokens per target call with intervals, speed-up in the same row, what verification
costs.

    python recipes/benchmark/verifiers.py --out runs/verifiers.json [--voice NAME|FOLDER] [--text FILE] [--limit 25]
    [--runs 3]
        [--temperature T --top-p P] [--gamma 8] [--lossy]

Every run decodes all sentences with every setting, one after the other in turning order, one thread; the first pass
is a
warm-up. tokens/call: ratio of sums over sentences and runs, 95 % bootstrap over sentences. speed-up: median of the
ratios
to the autoregressive loop within a run. verification: median time of what follows the target's forward in a call
(laws of
all nodes, filtered; the rule itself) as a share of that forward.
"Equal draft cost": k paths of gamma/k tokens each beside one path of gamma.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from spear_spec.bench.speed import SENTENCES, commit, hardware
from spear_spec.decoding import Request, Session, generate, speculate
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.evaluation.judge import Measurement
from spear_spec.evaluation.report import markdown
from spear_spec.evaluation.statistics import ratio_interval
from spear_spec.pipeline import TTS

ROWS = [
    ("autoregressive", {"drafter": "none"}),
    ("rejection, 1 x {gamma}", {"verifier": "rejection", "gamma": 1.0}),
    ("block, 1 x {gamma}", {"verifier": "block", "gamma": 1.0}),
    ("kseq, 2 x {gamma/2}", {"verifier": "kseq", "drafter": "kpath", "num_drafts": 2, "gamma": 0.5}),
    ("kseq, 4 x {gamma/4}", {"verifier": "kseq", "drafter": "kpath", "num_drafts": 4, "gamma": 0.25}),
    ("kseq, 8 x {gamma/8}", {"verifier": "kseq", "drafter": "kpath", "num_drafts": 8, "gamma": 0.125}),
    ("kseq, 2 x {gamma}", {"verifier": "kseq", "drafter": "kpath", "num_drafts": 2, "gamma": 1.0}),
    ("kseq, 4 x {gamma}", {"verifier": "kseq", "drafter": "kpath", "num_drafts": 4, "gamma": 1.0}),
    ("kseq, 8 x {gamma}", {"verifier": "kseq", "drafter": "kpath", "num_drafts": 8, "gamma": 1.0}),
    ("recursive_wor, tree 2-2-1-1-1-1-1-1", {"verifier": "recursive_wor", "tree": "2-2-1-1-1-1-1-1"}),
    ("recursive, iid tree 2-2-1-1-1-1-1-1", {"verifier": "recursive", "tree": "2-2-1-1-1-1-1-1"}),
    (
        "recursive, dynamic tree of 24",
        {"verifier": "recursive", "tree": "dynamic", "gamma": 1.0, "options": {"nodes": 24, "width": 3}},
    ),
    (
        "recursive, dynamic tree of 64",
        {"verifier": "recursive", "tree": "dynamic", "gamma": 1.0, "options": {"nodes": 64, "width": 6}},
    ),
    (
        "matching, dynamic tree of 24",
        {"verifier": "matching", "tree": "dynamic", "gamma": 1.0, "options": {"nodes": 24, "width": 3}},
    ),
]
LOSSY = [
    (
        "typical, dynamic tree of 24 (LOSSY)",
        {"verifier": "typical", "tree": "dynamic", "gamma": 1.0, "options": {"nodes": 24, "width": 3}},
    ),
    ("typical, chain (LOSSY)", {"verifier": "typical", "tree": None, "gamma": 1.0}),
    ("tolerance .1 (LOSSY)", {"verifier": "tolerance", "gamma": 1.0, "options": {"b": 0.1}}),
    ("tolerance .4 (LOSSY)", {"verifier": "tolerance", "gamma": 1.0, "options": {"b": 0.4}}),
    ("lenience .5 (LOSSY)", {"verifier": "lenience", "gamma": 1.0, "options": {"l": 0.5}}),
    ("coarse (LOSSY)", {"verifier": "coarse", "gamma": 1.0}),
]


@dataclass
class Row:
    """One setting and what its runs gave."""

    name: str
    tts: TTS
    rates: list[float] = field(default_factory=list)
    tokens: dict[int, list[int]] = field(default_factory=dict)  # of each sentence: tokens, target calls
    nodes: list[int] = field(default_factory=list)
    target_ms: list[float] = field(default_factory=list)
    laws_ms: list[float] = field(default_factory=list)
    verify_ms: list[float] = field(default_factory=list)
    draft_ms: list[float] = field(default_factory=list)

    def run(self, texts: list[list[int]], seed: int, sampling: dict[str, Any], keep: bool) -> None:
        """All sentences once."""
        law, total, seconds = self.tts.sampling.changed(**sampling), 0, 0.0
        for number, ids in enumerate(texts):
            began = time.perf_counter()
            session = Session(self.tts.target, frame_rate=self.tts.decoder.frame_rate)
            session.admit([Request(ids, seed=derive(seed, number, SENTENCE), sampling=law)])
            for _ in self._loop(session, keep):
                pass
            seconds += time.perf_counter() - began
            stats = session.stats[0]
            total += stats.tokens
            if keep:
                counts = self.tokens.setdefault(number, [0, 0])
                counts[0] += stats.tokens
                counts[1] += stats.target_calls
        if keep:
            self.rates.append(total / seconds)

    def _loop(self, session: Any, keep: bool) -> Any:
        parts = self.tts.decoder.parts
        if parts.plain:
            return generate(session)
        drafter: Any
        verifier: Any
        drafter, verifier = parts.make()
        if keep:
            _clock(drafter, "propose", self.draft_ms)
            for form in ("verify", "settle"):  # on lists, or on tensors alone: one of them is called
                if hasattr(verifier, form):
                    _clock(verifier, form, self.verify_ms)
            _clock(session, "score", self.target_ms)
            _clock(session, "laws", self.laws_ms)
            propose = drafter.propose
            drafter.propose = lambda *args: self._count(propose(*args))
        return speculate(session, drafter, verifier, parts.spec.gamma)

    def _count(self, proposal: Any) -> Any:
        self.nodes.append(len(proposal.tokens[0]))
        return proposal

    def result(self, base: Row) -> dict[str, Any]:
        per_call = ratio_interval([Measurement(*counts) for counts in self.tokens.values()])
        ratios = [mine / theirs for mine, theirs in zip(self.rates, base.rates)]
        after = [laws - target + verify for laws, target, verify in zip(self.laws_ms, self.target_ms, self.verify_ms)]
        share = median(after) / median(self.target_ms) if after else None
        return {"name": self.name, **self.tts.describe(),
                "tokens_per_call": per_call.to_dict(), "tokens_per_s": median(self.rates),
                "speedup": {"median": median(ratios), "lo": min(ratios), "hi": max(ratios)},
                "nodes": float(np.mean(self.nodes)) if self.nodes else 0.0,
                "target_ms": median(self.target_ms) if self.target_ms else None,
                "draft_ms": median(self.draft_ms) if self.draft_ms else None,
                "verify_ms": median(self.verify_ms) if self.verify_ms else None, "verify_share": share}  # fmt: skip


def _clock(thing: Any, name: str, times: list[float]) -> None:
    """A clock on one method of an object; milliseconds go to `times`."""
    method = getattr(thing, name)

    def timed(*args: Any, **more: Any) -> Any:
        began = time.perf_counter()
        out = method(*args, **more)
        times.append((time.perf_counter() - began) * 1e3)
        return out

    setattr(thing, name, timed)


def setting(tts: TTS, spec: dict[str, Any], gamma: int, drafter: str) -> TTS:
    """`gamma` in a row is a share of the whole draft length; every draft comes from the decoder of this drafter."""
    if spec.get("drafter") == "kpath":
        spec = {**spec, "options": {"of": drafter}}
    elif spec.get("drafter") != "none":
        spec = {**spec, "drafter": drafter}
    return tts.using(**{**spec, **({"gamma": max(1, round(spec["gamma"] * gamma))} if "gamma" in spec else {})})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--voice")
    parser.add_argument("--text", type=Path, help="sentences, one a line (default: those of bench)")
    parser.add_argument("--drafter", default="eagle", help="whose decoder drafts: eagle, small or small2")
    parser.add_argument("--limit", type=int, default=25)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--gamma", type=int, default=8)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--lossy", action="store_true", help="the lossy rules as well")
    args = parser.parse_args()
    tts = TTS.load(args.voice, threads=1)
    lines = (
        [line.strip() for line in args.text.read_text("utf-8").splitlines() if line.strip()]
        if args.text
        else list(SENTENCES)
    )
    texts = tts.texts(lines[: args.limit])
    sampling = {name: getattr(args, name) for name in ("temperature", "top_p") if getattr(args, name) is not None}
    rows = [
        Row(
            name.replace("{gamma}", str(args.gamma))
            .replace("{gamma/2}", str(max(1, args.gamma // 2)))
            .replace("{gamma/4}", str(max(1, args.gamma // 4)))
            .replace("{gamma/8}", str(max(1, args.gamma // 8))),
            setting(tts, spec, args.gamma, args.drafter),
        )
        for name, spec in ROWS + (LOSSY if args.lossy else [])
    ]
    for run in range(-1, args.runs):
        for row in rows[run % len(rows) :] + rows[: run % len(rows)]:
            row.run(texts[:3] if run < 0 else texts, max(run, 0), sampling, run >= 0)
            print(f"run {run + 1} of {args.runs}: {row.name}", file=sys.stderr, flush=True)
    found = [row.result(rows[0]) for row in rows]
    result = {
        "schema": "verifiers/1",
        "commit": commit(),
        "hardware": hardware(tts.target.device),
        "voice": tts.name,
        "command": " ".join(sys.argv),
        "drafter": args.drafter,
        "sampling": tts.sampling.changed(**sampling).to_dict(),
        "rows": found,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result) + "\n")
    table = [["rule and draft", "nodes a call", "tokens per target call", "speed-up", "verification / target forward"]]
    for row in found:
        call, gain, share = row["tokens_per_call"], row["speedup"], row["verify_share"]
        table.append(
            [
                row["name"],
                f"{row['nodes']:.1f}",
                f"{call['value']:.2f} [{call['lo']:.2f}, {call['hi']:.2f}]",
                f"{gain['median']:.2f} [{gain['lo']:.2f}, {gain['hi']:.2f}]",
                "" if share is None else f"{100 * share:.0f} %",
            ]
        )
    print(f"{result['voice']}, {result['hardware']}, commit {result['commit']}\n\n{markdown(table)}")


if __name__ == "__main__":
    main()
