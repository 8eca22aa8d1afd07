"""What each process of `test_processes.py` runs: a few steps of the transformer, together with those that were started
with it: `together.py OUT STEPS [kill a signal's way out at this step]`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spear_spec.config import T2SConfig
from spear_spec.errors import SpearSpecError
from spear_spec.training import loop
from spear_spec.training.data.utterances import Utterance
from spear_spec.training.processes import find_processes
from spear_spec.training.recipe.plan import CLOCK
from spear_spec.training.t2s import trainer
from spear_spec.training.t2s.settings import T2STraining

SHAPE = T2SConfig(6, 8, 32, 1, 2, 2, 16)
# one batch holds a single utterance, so that a process has nothing of its own; some have no known positions
SIZES = ((6, 20), (4, 9), (5, 12), (3, 14), (6, 7), (7, 90), (5, 16))


def utterances() -> list[Utterance]:
    rng = np.random.default_rng(0)
    return [
        Utterance(
            [5, *rng.integers(1, 5, s).tolist(), 6],
            rng.integers(0, 8, t),
            np.sort(rng.integers(0, s + 2, t + 1)) if t != 12 else None,
            "a",
        )
        for s, t in SIZES
    ]


def train(out: Path, steps: int, stop_at: int | None = None, device: str = "cpu") -> None:
    """stop_at: the last process is told to stop in this step."""
    together, data = find_processes(device), utterances()
    cfg = T2STraining(
        steps=steps, warmup=2, batch_tokens=80, align_layers=(0, 1), align_heads=1, dropout=0.0, join_share=0.0
    )
    advance = loop.Run.advance

    def told(self: loop.Run, shared: Any = None) -> None:
        if self.step == stop_at and together.rank == together.count - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        advance(self, shared)

    loop.Run.advance = told  # type: ignore[method-assign]
    trainer.mixed = lambda device: torch.autocast("cpu", enabled=False)  # bfloat16 would hide what is to be equal
    trainer.train_t2s(
        data, data[:3], SHAPE, cfg, out, space=1, clock=CLOCK, every=100, progress_bar=False, processes=together,
        device=together.device,
    )  # fmt: skip


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        train(Path(sys.argv[1]), int(sys.argv[2]), *map(int, sys.argv[3:]))
    except SpearSpecError as error:
        print(error, flush=True)
        raise SystemExit(2) from None
