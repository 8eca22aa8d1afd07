"""Trainers multiply in bfloat16 where the machine has it, in float32 where it would be emulated, and learn the same
either way.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from spear_spec.config import T2SConfig
from spear_spec.training import precision
from spear_spec.training.data.utterances import Utterance
from spear_spec.training.precision import has_bfloat16, mixed
from spear_spec.training.recipe.plan import CLOCK
from spear_spec.training.t2s.settings import T2STraining
from spear_spec.training.t2s.trainer import train_t2s


@pytest.mark.parametrize(
    ("able", "dtype"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx2": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_products_of_a_cpu(able: dict[str, bool], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    with mixed("cpu"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


def test_a_torch_that_cannot_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not has_bfloat16("cpu")


def test_a_target_learns_the_same_in_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of the T2S trainer; the heads of the joint recipe, which share its products, come along."""
    rng = np.random.default_rng(0)
    data = [Utterance([5, *rng.integers(1, 5, 4).tolist(), 6], rng.integers(0, 8, 12), None, "a") for _ in range(4)]
    learnt = {}
    for able in (True, False):
        monkeypatch.setattr(precision, "has_bfloat16", lambda device, able=able: able)
        model = train_t2s(
            data,
            data,
            T2SConfig(6, 8, 32, 2, 2, 2, 16),
            T2STraining(steps=2, warmup=1, batch_tokens=100, joint="prophet"),
            tmp_path / str(able),
            space=1,
            clock=CLOCK,
            every=1000,
            progress_bar=False,
        )
        learnt[able] = torch.cat([p.flatten() for p in model.parameters()])
    assert not torch.equal(learnt[True], learnt[False])  # the patch took
    assert torch.dist(learnt[True], learnt[False]) < 0.02 * learnt[True].norm()
