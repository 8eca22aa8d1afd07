"""What the autoregressive loop costs around the target's forward: tokens/s over 1000 / target_step_ms["1"].

    python recipes/benchmark/loop.py [--voice NAME | --random] [--runs 7] [--json FILE]

One thread, batch 1. Decodes the sentences of `spear-spec bench` with the voice's own sampling, with a clock on every
target call; the share is that of the calls' median in the time a token takes. Encoding the text is counted apart.
efficiency_cpu is the same by the process's CPU time, which a busy machine disturbs less.
--random takes random weights of the size of FINDINGS' 10 M model instead of a voice.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from spear_spec.bench.speed import SENTENCES, commit, hardware
from spear_spec.config import SamplingConfig, T2SConfig
from spear_spec.decoding import Request
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.decoding.loop import generate
from spear_spec.decoding.session import Session
from spear_spec.models.contract import Target
from spear_spec.models.spear_tts import TextToSemantic

RANDOM = T2SConfig(
    num_text_token_ids=192, num_semantic_token_ids=1024, dim=256, source_depth=4, target_depth=6, heads=4
)


def material(voice: str | None, random: bool) -> tuple[Target, list[list[int]], SamplingConfig]:
    """Target, text ids, sampling."""
    if random:
        model = TextToSemantic(RANDOM).eval()
        texts = torch.randint(1, RANDOM.num_text_token_ids, (len(SENTENCES), 60)).tolist()
        return model, texts, SamplingConfig()
    from spear_spec.pipeline import TTS

    tts = TTS.load(voice, device="cpu")
    return tts.target, tts.texts(SENTENCES), tts.sampling


def run(model: Target, texts: list[list[int]], sampling: SamplingConfig, seed: int) -> dict[str, float]:
    """One pass over the texts: tokens/s of the loop alone and with encoding, and the median target call in ms."""
    calls: list[float] = []
    cpu_calls: list[float] = []
    tokens, encoding, looping, cpu = 0, 0.0, 0.0, 0.0
    for number, text in enumerate(texts):
        began = time.perf_counter()
        session = Session(model)
        session.admit([Request(text, seed=derive(seed, number, SENTENCE), sampling=sampling)])
        encoded, cpu_began = time.perf_counter(), time.process_time()
        score = session.score

        def timed(proposal: None, score: Any = score) -> Tensor:
            start, cpu_start = time.perf_counter(), time.process_time()
            logits = score(proposal)
            calls.append((time.perf_counter() - start) * 1e3)
            cpu_calls.append((time.process_time() - cpu_start) * 1e3)
            return logits

        cast(Any, session).score = timed
        for _ in generate(session):
            pass
        looping += time.perf_counter() - encoded
        cpu += time.process_time() - cpu_began
        encoding += encoded - began
        tokens += len(session.tokens[0])
    step = median(calls)
    return {
        "target_step_ms": step,
        "tokens_per_s": tokens / looping,
        "tokens_per_s_with_encoding": tokens / (looping + encoding),
        "efficiency": tokens / looping * step / 1e3,
        "efficiency_cpu": tokens / cpu * median(cpu_calls) / 1e3,
        "target_step_cpu_ms": median(cpu_calls),
        "efficiency_with_encoding": tokens / (looping + encoding) * step / 1e3,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--voice")
    options.add_argument("--random", action="store_true")
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--guidance", type=float)
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, texts, sampling = material(args.voice, args.random)
    if args.guidance is not None:
        sampling = replace(sampling, guidance=args.guidance)
    run(model, texts[:2], sampling, 0)
    found = [run(model, texts, sampling, seed) for seed in range(args.runs)]
    middle = {name: round(median(values[name] for values in found), 4) for name in found[0]}
    report = {
        "schema": "loop/1",
        "commit": commit(),
        "hardware": hardware(model.device),
        "torch": torch.__version__,
        "voice": None if args.random else args.voice or "default",
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": 1,
        "batch": 1,
        "sampling": sampling.to_dict(),
        "runs": args.runs,
        **middle,
    }
    for name, value in middle.items():
        print(f"{name:28} {value:8.3f}   [{min(v[name] for v in found):.3f}, {max(v[name] for v in found):.3f}]")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
