"""How often two draws with one number agree: what `coupled` accepts, what Gumbel noise would, and the most there is.

    python recipes/benchmark/coupling.py [--text ../shared/text/dev.txt] [--sentences 12] [--gamma 8]

At every position that the rule `rejection` judges on the shipped voice, from the target's law p and the draft's q:
sum min(p, q), which no rule of chains exceeds; the overlap of the steps of the two running sums, which `coupled`
accepts; and what one exponential for each token would give (arXiv 2408.07978). JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import spear_spec
from spear_spec.bench.machine import commit, hardware
from spear_spec.decoding.chance import Chance
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.verifiers.rejection import RejectionVerifier


class Watched(RejectionVerifier):
    """Keeps the laws of the positions that it judges."""

    def __init__(self) -> None:
        self.laws: list[tuple[Tensor, Tensor]] = []

    def verify(self, proposal: Proposal, target_probs: Tensor, chance: Chance, rows: Sequence[int]) -> Verdict:
        verdict = super().verify(proposal, target_probs, chance, rows)
        if proposal.probs is not None:
            for row, kept in enumerate(verdict.num_accepted):
                for at in range(min(kept + 1, len(proposal.tokens[row]))):
                    pair = (target_probs[row, at], proposal.probs[row, at])
                    self.laws.append((pair[0].double().clone(), pair[1].double().clone()))
        return verdict


def overlap(p: Tensor, q: Tensor) -> float:
    """Of the steps of both running sums on [0, 1)."""
    high, low = torch.minimum(p.cumsum(0), q.cumsum(0)), torch.maximum(p.cumsum(0) - p, q.cumsum(0) - q)
    return float((high - low).clamp(min=0).sum())


def gumbel(p: Tensor, q: Tensor) -> float:
    """P(the same token) where each takes the least of E(x) / law(x), with the same exponentials E."""
    some = (p > 0) | (q > 0)
    p, q = p[some], q[some]
    both = [x for x in range(len(p)) if p[x] > 0 and q[x] > 0]
    return float(sum(1 / torch.maximum(p / p[x], q / q[x]).sum() for x in both))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, default=Path("../shared/text/dev.txt"))
    parser.add_argument("--sentences", type=int, default=12)
    parser.add_argument("--gamma", type=int, default=8)
    args = parser.parse_args()
    rule = Watched()
    tts = spear_spec.TTS.load(device="cpu", threads=1, gamma=args.gamma).using(verifier=rule, gamma=args.gamma)
    for seed, text in enumerate(args.text.read_text(encoding="utf-8").splitlines()[: args.sentences]):
        tts.synthesize(text, seed=seed)
    count = len(rule.laws)
    result = {
        "commit": commit(),
        "hardware": hardware(tts.target.device),
        "positions": count,
        "most": sum(float(torch.minimum(p, q).sum()) for p, q in rule.laws) / count,
        "coupled": sum(overlap(p, q) for p, q in rule.laws) / count,
        "gumbel": sum(gumbel(p, q) for p, q in rule.laws) / count,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
