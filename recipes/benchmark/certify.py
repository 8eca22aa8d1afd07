"""`verify` on a voice for every exact rule, what it is stated for, batch 1 and 8 and four samplings; and for every
other drafter.

    python recipes/benchmark/certify.py --out runs/certify.json [--samples 1500] [--only SUBSTRING] [--shard 0/2]
    [--voice NAME]

Run again after a stop: what is finished is kept. Several runs may share the work with --shard, each with a file of
its own;
`--merge FILE ...` puts their files into --out. Exit status 1 if any pair failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from spear_spec import TTS, verify_drafter
from spear_spec.bench.machine import commit, hardware
from spear_spec.config import SamplingConfig

SAMPLINGS = {
    "T=1": {"temperature": 1.0, "top_k": 0, "top_p": 1.0},
    "T=.7, top-k 50": {"temperature": 0.7, "top_k": 50, "top_p": 1.0},
    "T=1, top-p .95": {"temperature": 1.0, "top_k": 0, "top_p": 0.95},
    "shipped, guidance 2": {"guidance": 2.0},
}
TREE = {"tree": "4-2-2-1-1-1"}
RULES: dict[str, dict[str, Any]] = {
    "rejection, chain": {"drafter": "eagle", "verifier": "rejection"},
    "block, chain": {"drafter": "eagle", "verifier": "block"},
    "kseq, 4 paths": {"drafter": "kpath", "verifier": "kseq", "num_drafts": 4, "options": {"of": "eagle"}},
    "recursive, independent tree": {"drafter": "eagle", "verifier": "recursive", **TREE},
    "recursive, dynamic tree": {"drafter": "eagle", "verifier": "recursive", "tree": "dynamic"},
    "recursive_wor, tree": {"drafter": "eagle", "verifier": "recursive_wor", **TREE},
    "matching, dynamic tree": {"drafter": "eagle", "verifier": "matching", "tree": "dynamic"},
    "matching, tree": {"drafter": "eagle", "verifier": "matching", **TREE, "options": {"siblings": "wor"}},
}
DRAFTERS: dict[str, dict[str, Any]] = {
    "small": {"drafter": "small", "verifier": "block"},
    "small2": {"drafter": "small2", "verifier": "block"},
    "kpath of small": {"drafter": "kpath", "verifier": "kseq", "num_drafts": 4},
    "prophet": {"drafter": "prophet", "verifier": "block"},
    "medusa, sparse tree": {"drafter": "medusa", "verifier": "recursive", "tree": "sparse"},
    "medusa, chain": {"drafter": "medusa", "verifier": "block"},
    "layer_skip": {"drafter": "layer_skip", "verifier": "block", "gamma": 4, "options": {"stop": "confidence"}},
    "early_exit": {"drafter": "early_exit", "verifier": "block", "gamma": 4},
    "ngram": {"drafter": "ngram", "verifier": "rejection"},
    "lookup": {"drafter": "lookup", "verifier": "rejection"},
    "eagle, adaedl": {"drafter": "eagle", "verifier": "block", "gamma": 12, "options": {"stop": "adaedl"}},
    "eagle, acceptance": {"drafter": "eagle", "verifier": "block", "gamma": 12, "options": {"stop": "acceptance"}},
}


def cells(shipped: SamplingConfig) -> Iterator[tuple[str, dict[str, Any], SamplingConfig, int]]:
    """Key, pair, sampling and batch of every check."""
    for name, pair in RULES.items():
        for law, given in SAMPLINGS.items():
            for batch in (1, 8):
                yield f"{name}|{law}|{batch}", pair, SamplingConfig(**{**shipped.to_dict(), **given}), batch
    for name, pair in DRAFTERS.items():
        for batch in (1, 8):
            yield f"{name}|shipped|{batch}", pair, shipped, batch


def summary(found: dict[str, Any]) -> str:
    """One line a pair."""
    lines = [
        "| pair | checks passed | smallest p-value of any | a distance found in nine runs of ten |",
        "|---|---|---|---|",
    ]
    for name in dict.fromkeys(key.split("|")[0] for key in found):
        mine = [value for key, value in found.items() if key.split("|")[0] == name]
        detectable = max(value["detectable_tv"] for value in mine)
        lines.append(
            f"| {name} | {sum(value['pass'] for value in mine)} of {len(mine)} | "
            f"{min(value['p_value'] for value in mine):.2g} | {detectable:.3f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--only", default="")
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--voice")
    parser.add_argument("--merge", type=Path, nargs="*")
    args = parser.parse_args()
    result = json.loads(args.out.read_text()) if args.out.exists() else {}
    found: dict[str, Any] = result.setdefault("cells", {})
    if args.merge:
        for path in args.merge:
            other = json.loads(path.read_text())
            found |= other["cells"]
            result |= {key: value for key, value in other.items() if key != "cells"}
    else:
        torch.set_num_threads(1)
        tts = TTS.load(args.voice, threads=1)
        result |= {
            "schema": "certify/1",
            "commit": commit(),
            "hardware": hardware(tts.target.device),
            "command": " ".join(sys.argv),
            "voice": tts.name,
        }
        shard, shards = map(int, args.shard.split("/"))
        for number, (key, pair, law, batch) in enumerate(cells(tts.sampling)):
            if number % shards != shard or key in found or args.only not in key:
                continue
            began = time.monotonic()
            checks = verify_drafter(tts, sampling=law, batch=batch, samples=args.samples, seed=number, **pair)
            power = next(
                check["detectable_tv"] for check in checks["checks"] if check["name"] == "by probability: distribution"
            )
            values = [check["p_value"] for check in checks["checks"] if check["p_value"] is not None]
            found[key] = {
                "pass": checks["pass"],
                "p_value": min(values),
                "checks": len(checks["checks"]),
                "detectable_tv": power,
                "samples": args.samples,
            }
            print(f"{time.monotonic() - began:5.0f} s  {key}: {found[key]}", flush=True)
            args.out.write_text(json.dumps(result, indent=0) + "\n")
    args.out.write_text(json.dumps(result, indent=0) + "\n")
    print(summary(found))
    return 0 if all(value["pass"] for value in found.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
