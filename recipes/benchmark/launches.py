"""How many kernels a round launches, counted without a GPU: the operations of one round on the device `meta`.

    python recipes/benchmark/launches.py [--gamma 10] [--batch 1]

Views and empty tensors are not counted; an operation of torch that is not a view is taken for one launch (a sort or a
scan may be several, a composite one is seen as its parts). One line of JSON a drafter: the shipped voice's loop, its
draft, and a random block decoder, each with and without the kernels in Triton.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from spear_spec.bench.machine import commit
from spear_spec.config import SamplingConfig
from spear_spec.decoding import Request, make_drafter, make_verifier
from spear_spec.decoding.rounds.board import Board
from spear_spec.decoding.rounds.draft import StaticChain
from spear_spec.decoding.rounds.fused.chain import Ahead
from spear_spec.decoding.rounds.loop import RoundSession
from spear_spec.exactness.capturable import Capturable, without_values
from spear_spec.models.drafts.block import BlockConfig, BlockDecoder
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.drafts import Drafts
from spear_spec.voice.parts import load_target

FREE = {
    "view", "_unsafe_view", "expand", "slice", "select", "unsqueeze", "squeeze", "transpose", "permute", "as_strided",
    "unbind", "split", "split_with_sizes", "alias", "detach", "t", "reshape", "view_as_real", "view_as_complex",
    "empty", "empty_like", "new_empty", "unflatten", "chunk", "_reshape_alias", "narrow",
}  # fmt: skip


def launches(target: Any, made: tuple[Any, ...], batch: int, law: SamplingConfig, fused: bool) -> int:
    """Of one round of so many rows."""
    session = RoundSession(Board(target, *made, fused=False))  # whoever is called here is torch
    with torch.inference_mode():
        session.admit([Request([5, 6, 7], seed=n, sampling=law, cap=100) for n in range(batch)])
        session._ask()
        (found,) = session.board.made.values()
        if fused and isinstance(found.draft, StaticChain):
            object.__setattr__(found.draft, "ahead", Ahead.of(found.draft.runner))
        bare = without_values(found)
        object.__setattr__(bare, "fused", fused)
        bare()
        with Capturable("meta") as seen:
            bare()
    return sum(name.partition(".")[2] not in FREE for name, _ in seen.trace)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--gamma", type=int, default=10)
    options.add_argument("--batch", type=int, default=1)
    args = options.parse_args()
    bundle = open_voice(None)
    target: Any = load_target(bundle, torch.device("cpu"), torch.float32)
    drafts = Drafts(bundle, target)
    cfg = target.cfg
    layers = tuple(sorted({-(-cfg.target_depth * i // 3) for i in (1, 2, 3)}))
    block = BlockDecoder(BlockConfig(cfg.dim, target.vocab_size, layers, 2, cfg.heads, cfg.dim_head), cfg).eval()
    rule = make_verifier("block")
    arms: dict[str, tuple[Any, ...]] = {
        "none": (None, None, 0),
        "eagle": (make_drafter("eagle", drafts["eagle"]), rule, args.gamma),
        "block": (make_drafter("block", block), rule, args.gamma),
    }
    for name, made in arms.items():
        torch_, triton = (launches(target, made, args.batch, bundle.sampling, fused) for fused in (False, True))
        gamma = 0 if name == "none" else args.gamma
        row = {"drafter": name, "gamma": gamma, "batch": args.batch, "torch": torch_, "triton": triton}
        print(json.dumps({**row, "commit": commit()}), flush=True)


if __name__ == "__main__":
    main()
