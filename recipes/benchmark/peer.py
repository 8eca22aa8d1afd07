"""Tokens a second of our autoregressive loop against spear-tts-pytorch's cached `generate`, on the same 72 M weights.

    make test-peer                                            # makes .venv-peer
    .venv-peer/bin/python recipes/benchmark/peer.py [--runs 7] [--json FILE]

One thread, batch 1, float32. Both arms hold the same random weights and filter logits by the same code (our
`probabilities`); both draw a token at every step, which is then replaced by the next one of a fixed list, so that
both write the same 300 tokens whatever was drawn. Runs alternate; the ratio is the median of the ratios of
neighbouring runs, by wall clock and by the process's own CPU time (which a busy machine disturbs less).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from spear_spec.config import SamplingConfig, T2SConfig
from spear_spec.decoding.chance import Chance, Uniforms
from spear_spec.decoding.loop import generate
from spear_spec.decoding.sampling import probabilities
from spear_spec.decoding.session import Session
from spear_spec.interop import to_spear_tts_state_dict
from spear_spec.interop.shims import import_spear_tts
from spear_spec.models.spear_tts import TextToSemantic

CONFIG = T2SConfig(
    num_text_token_ids=256, num_semantic_token_ids=1024, dim=512, source_depth=6, target_depth=12, heads=8
)
SAMPLING = SamplingConfig(temperature=1.0, top_p=0.95)
SYMBOLS = 60  # length of the text


class Forced(Chance):
    """Draws like `Uniforms`, then answers with the next token of a fixed list."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens, self.at, self.chance = tokens, 0, Uniforms([0])

    def bernoulli(self, p: float, row: int) -> bool:
        return self.chance.bernoulli(p, row)

    def categorical(self, weights: Tensor, rows: Sequence[int]) -> list[int]:
        self.chance.categorical(weights, rows)
        self.at += 1
        return [self.tokens[self.at - 1]]


class Ours:
    name = "spear_spec generate"

    def __init__(self, model: TextToSemantic, text: Tensor, tokens: list[int]) -> None:
        self.model, self.tokens = model, tokens
        self.text = torch.cat((text, torch.tensor([[model.text_eos_id]])), 1)

    def __call__(self, seen: list[Tensor] | None = None) -> None:
        with torch.inference_mode():
            memory = self.model.encode(self.text)
        session = Session(self.model, memory, SAMPLING, chance=Forced(self.tokens), max_tokens=len(self.tokens))
        for _ in generate(session):
            if seen is not None and session.output is not None:
                seen.append(session.output.logits[:, -1].clone())
        assert session.tokens[0] == self.tokens


class Theirs:
    name = "spear-tts-pytorch 0.4.8 generate, cached"

    def __init__(self, model: TextToSemantic, text: Tensor, tokens: list[int]) -> None:
        package = import_spear_tts()
        sys.modules["spear_tts_pytorch.spear_tts_pytorch"].tqdm = lambda steps: steps  # type: ignore[attr-defined]
        cfg = model.cfg
        self.model = package.TextToSemantic(
            dim=cfg.dim,
            source_depth=cfg.source_depth,
            target_depth=cfg.target_depth,
            heads=cfg.heads,
            dim_head=cfg.dim_head,
            num_text_token_ids=cfg.num_text_token_ids,
            num_semantic_token_ids=cfg.num_semantic_token_ids,
        ).eval()
        self.model.load_state_dict(to_spear_tts_state_dict(model))
        self.text, self.tokens = text, tokens

    def __call__(self, seen: list[Tensor] | None = None) -> None:
        at = 0

        def choose(logits: Tensor) -> Tensor:
            nonlocal at
            if seen is not None:
                seen.append(logits.clone())
            probabilities(logits, SAMPLING)
            at += 1
            only = torch.full_like(logits, float("-inf"))
            only[:, self.tokens[at - 1]] = 0.0  # its Gumbel draw then has one outcome
            return only

        written = self.model.generate(
            self.text, source_type="text", target_type="speech", filter_logits_fn=choose, max_length=len(self.tokens)
        )
        assert written[0].tolist() == self.tokens


def timed(arm: Callable[[], None], tokens: int) -> tuple[float, float]:
    """Tokens a second by wall clock and by CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    arm()
    return tokens / (time.perf_counter() - wall), tokens / (time.process_time() - cpu)


def summary(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 2), "lo": round(min(values), 2), "hi": round(max(values), 2)}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--tokens", type=int, default=300)
    options.add_argument("--json", type=Path)
    args = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = TextToSemantic(CONFIG).eval()
    text = torch.randint(1, CONFIG.num_text_token_ids, (1, SYMBOLS))
    tokens = torch.randint(0, CONFIG.num_semantic_token_ids, (args.tokens,)).tolist()
    arms: list[Any] = [Theirs(model, text, tokens), Ours(model, text, tokens)]
    seen: list[list[Tensor]] = [[], []]
    for arm, logits in zip(arms, seen):  # warm-up, and the proof that both compute the same
        arm(logits)
    difference = (torch.stack(seen[0]) - torch.stack(seen[1])).abs().max().item()
    rates: list[list[tuple[float, float]]] = [[], []]
    for _ in range(args.runs):
        for arm, found in zip(arms, rates):
            found.append(timed(arm, args.tokens))
    ratios = [[ours[clock] / theirs[clock] for theirs, ours in zip(*rates)] for clock in (0, 1)]
    report = {
        "schema": "peer/1",
        "parameters": sum(p.numel() for p in model.parameters()),
        "config": CONFIG.to_dict(),
        "tokens": args.tokens,
        "runs": args.runs,
        "threads": 1,
        "batch": 1,
        "dtype": "float32",
        "sampling": SAMPLING.to_dict(),
        "torch": torch.__version__,
        "hardware": platform.processor() or platform.machine(),
        "largest_logit_difference": difference,
        "rows": [
            {
                "arm": arm.name,
                "tokens_per_s_wall": summary([r[0] for r in found]),
                "tokens_per_s_cpu": summary([r[1] for r in found]),
            }
            for arm, found in zip(arms, rates)
        ],
        "ratio_wall": summary(ratios[0]),
        "ratio_cpu": summary(ratios[1]),
    }
    for row in report["rows"]:
        wall, cpu = row["tokens_per_s_wall"], row["tokens_per_s_cpu"]
        print(
            f"{row['arm']:42} {wall['median']:8.1f} tokens/s wall [{wall['lo']}, {wall['hi']}] "
            f"{cpu['median']:8.1f} CPU [{cpu['lo']}, {cpu['hi']}]"
        )
    print(
        f"ratio, ours over theirs: {report['ratio_wall']['median']} wall, {report['ratio_cpu']['median']} CPU; "
        f"largest difference of logits {difference:.1e}"
    )
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
