"""Two steps of the trainers on a GPU: the losses are those of the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spear_spec.config import T2SConfig
from spear_spec.training.data.utterances import Utterance
from spear_spec.training.recipe.plan import CLOCK
from spear_spec.training.t2s.settings import T2STraining
from spear_spec.training.t2s.trainer import train_t2s


@pytest.mark.gpu
def test_t2s_trains_on_a_gpu(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data = [
        Utterance([5, *rng.integers(1, 5, 6).tolist(), 6], rng.integers(0, 8, 20), np.sort(rng.integers(0, 8, 21)), "a")
        for _ in range(8)
    ]
    config = T2SConfig(6, 8, 32, 1, 2, 2, 16)
    models = {}
    for device in ("cpu", "cuda"):
        settings = T2STraining(
            steps=2,
            warmup=1,
            batch_tokens=100,
            dropout=0.0,
            history_max=0.0,
            history_all=0.0,
            history_max_late=0.0,
            no_text=0.0,
        )
        models[device] = train_t2s(
            data,
            data[:4],
            config,
            settings,
            tmp_path / device,
            space=1,
            clock=CLOCK,
            device=device,
            every=1,
            progress_bar=False,
        ).cpu()
    for a, b in zip(models["cpu"].parameters(), models["cuda"].parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=5e-3, rtol=5e-2)
