"""Which loss a draft learns best from: the same small decoder, data and steps, with each loss. One process, the same
batches.

    python recipes/benchmark/losses.py TARGET_EXPORT SAMPLES OUT [--held-out FOLDER] [--limit 2000] [--steps 400]
    [--temperature .7]

Leaves OUT/LOSS/train.log; prints a table of acceptance (sum of min(p, q)) on held-out speech.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from spear_spec.config import SamplingConfig
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.data.prepared import Prepared
from spear_spec.training.data.utterances import read_utterances
from spear_spec.training.drafts.observed import observe
from spear_spec.training.drafts.settings import LOSSES, DraftTraining
from spear_spec.training.drafts.trainer import draft_shapes, load_target, train_drafts
from spear_spec.training.recipe.plan import CLOCK


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("samples", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--speakers", type=Path, required=True, help="the prepared folder that names the speakers")
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--temperature", type=float, default=0.7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, front = load_target(args.target), PhonemeTokenizer(Prepared(args.speakers).names())
    data, held = (
        observe(model, read_utterances(folder, front.encode_phonemes, len(front.vocab), clock=CLOCK)[:limit], ())
        for folder, limit in ((Prepared(args.samples), args.limit), (Prepared(args.held_out), 60))
    )
    laws = [SamplingConfig(temperature=0.7, top_p=0.9), SamplingConfig(temperature=1.0, top_p=0.95)]
    shape = draft_shapes(model.cfg)["small"]
    train_drafts(
        model,
        data,
        held,
        dict.fromkeys(LOSSES, shape),
        {name: DraftTraining(steps=args.steps, loss=name, temperature=args.temperature) for name in LOSSES},
        args.out,
        laws=laws,
    )
    print(
        "| loss | " + " | ".join(f"T = {law.temperature:g}, top-p {law.top_p:g}" for law in laws) + " |\n|---|---|---|"
    )
    for name in LOSSES:
        last = json.loads((args.out / name / "train.log").read_text().splitlines()[-1])
        print(
            f"| {name} | "
            + " | ".join(f"{value['acceptance'][0]:.4f}" for value in last.values() if isinstance(value, dict))
            + " |"
        )


if __name__ == "__main__":
    main()
