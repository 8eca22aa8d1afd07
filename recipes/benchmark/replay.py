"""What the runtime gives where drafting is perfect and free: `replay` against spear-tts-pytorch's cached `generate`.

    make test-peer                                            # makes .venv-peer
    .venv-peer/bin/python recipes/benchmark/replay.py [--runs 7] [--tokens 300] [--out
    recipes/benchmark/results/replay.json]

72 M random weights (width 512, 6 + 12 layers), the same on both sides; one thread, batch 1, float32, temperature 0. The
drafter `replay` knows the continuation, proposes eight tokens of it a call, and costs nothing: nine tokens a target
call,
verified as any other draft. The peer's `generate` runs as it comes (its own cache, its own top-k filter, temperature
0);
both write the same tokens, which is checked. Encoding the text counts on both sides.

Runs alternate; a ratio is the median of the ratios of neighbouring runs, by wall clock and by the process's own CPU
time
(which a busy machine disturbs less). Plain greedy decoding of random weights repeats one token for ever, which our
loop's
guard would cut off; with the decoder's matrices eight times as large it wanders. That changes no cost.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from peer import CONFIG, SYMBOLS, summary, timed

from spear_spec.bench.machine import commit, hardware
from spear_spec.bench.peer import DISTRIBUTION, same_model, version
from spear_spec.config import SamplingConfig
from spear_spec.decoding import Proposal, Session, Verdict, generate, make_verifier, speculate
from spear_spec.models.spear_tts import TextToSemantic

GREEDY = SamplingConfig(temperature=0.0, top_p=1.0)
GAIN = 8.0


class Replay:
    """A drafter that knows what comes: a chain of point masses from a fixed continuation."""

    name, form = "replay", "chain"

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens

    def start(self, session: Session) -> None:
        return None

    def propose(self, session: Session, state: None, limits: list[int]) -> Proposal:
        kept = (len(session.tokens[row]) for row in session.rows)
        return Proposal([self.tokens[at : at + limit] for at, limit in zip(kept, limits)])

    def commit(self, session: Session, state: None, verdict: Verdict) -> None:
        return None


def wandering(seed: int = 0) -> TextToSemantic:
    """Random weights whose greedy continuation does not repeat itself."""
    torch.manual_seed(seed)
    model = TextToSemantic(CONFIG).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if name.startswith("decoder.") and weight.dim() == 2:
            weight.mul_(GAIN)
    return model


def decode(model: TextToSemantic, text: Tensor, tokens: int, drafter: Replay | None = None, gamma: int = 8) -> Session:
    """Greedy, with the drafter or autoregressively."""
    with torch.inference_mode():
        memory = model.encode(torch.cat((text, torch.tensor([[model.text_eos_id]])), 1))
    session = Session(model, memory, GREEDY, generator=torch.Generator().manual_seed(0), max_tokens=tokens)
    for _ in generate(session) if drafter is None else speculate(session, drafter, make_verifier("rejection"), gamma):
        pass
    return session


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=7)
    options.add_argument("--tokens", type=int, default=300)
    options.add_argument("--gamma", type=int, default=8)
    options.add_argument("--out", type=Path)
    args = options.parse_args()
    torch.set_num_threads(1)
    model = wandering()
    text = torch.randint(1, CONFIG.num_text_token_ids, (1, SYMBOLS))
    known = decode(model, text, args.tokens).tokens[0]
    if len(known) != args.tokens:
        sys.exit(f"the continuation ended after {len(known)} tokens: choose fewer")
    theirs = same_model(model)

    def peer() -> list[int]:
        written: Tensor = theirs.generate(
            text, source_type="text", target_type="speech", temperature=0.0, max_length=args.tokens
        )
        return list(map(int, written[0]))

    arms: dict[str, Callable[[], Any]] = {
        f"{DISTRIBUTION} {version()} generate, cached": peer,
        "spear_spec generate": lambda: decode(model, text, args.tokens).tokens[0],
        f"spear_spec speculate, replay, gamma {args.gamma}": lambda: decode(
            model, text, args.tokens, Replay(known), args.gamma
        ).tokens[0],
    }
    for name, arm in arms.items():  # warm-up, and the proof that all write the same
        if arm() != known:
            sys.exit(f"{name} wrote other tokens")
    stats = decode(model, text, args.tokens, Replay(known), args.gamma).stats[0]
    rates: list[list[tuple[float, float]]] = [[] for _ in arms]
    for _ in range(args.runs):
        for arm, found in zip(arms.values(), rates):
            found.append(timed(arm, args.tokens))
    rows: list[dict[str, Any]] = []
    for name, found in zip(arms, rates):
        over = [summary([mine[clock] / peers[clock] for mine, peers in zip(found, rates[0])]) for clock in (0, 1)]
        rows.append(
            {
                "arm": name,
                "tokens_per_s_wall": summary([rate[0] for rate in found]),
                "tokens_per_s_cpu": summary([rate[1] for rate in found]),
                "over_peer_wall": over[0],
                "over_peer_cpu": over[1],
            }
        )
    report = {
        "schema": "replay/1",
        "commit": commit(),
        "command": " ".join(sys.argv),
        "hardware": hardware(model.device),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "config": CONFIG.to_dict(),
        "tokens": args.tokens,
        "runs": args.runs,
        "threads": 1,
        "batch": 1,
        "dtype": "float32",
        "sampling": GREEDY.to_dict(),
        "drafter": "replay",
        "verifier": "rejection",
        "gamma": args.gamma,
        "target_calls": stats.target_calls,
        "tokens_per_call": round(stats.tokens_per_call, 4),
        "same_tokens": True,
        "rows": rows,
    }
    for row in rows:
        wall, ratio, cpu = row["tokens_per_s_wall"], row["over_peer_wall"], row["over_peer_cpu"]
        print(
            f"{row['arm']:44} {wall['median']:8.1f} tokens/s [{wall['lo']}, {wall['hi']}], "
            f"{ratio['median']:.2f} x the peer [{ratio['lo']}, {ratio['hi']}], by CPU time {cpu['median']:.2f} x"
        )
    print(f"{stats.tokens_per_call:.2f} tokens per target call")
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
