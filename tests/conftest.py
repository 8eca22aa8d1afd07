"""One torch thread and fixed seeds for every test."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import random

import numpy as np
import pytest
import torch

torch.set_num_threads(1)
if not torch.cuda.is_available():  # whether Triton compiles or interprets is decided when it is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  third-party code draws from the global generator
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _no_config_of_the_user(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `spear-spec tune` has stored on this machine must not reach a test."""
    monkeypatch.setenv("SPEAR_SPEC_CONFIG", str(tmp_path_factory.mktemp("config")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where there is none; nothing else is ever skipped.

    DEVICE=cpu rehearses those of `tests/gpu` without one (`recipes/gpu.sh bench`).
    """
    if torch.cuda.is_available() or os.environ.get("DEVICE") == "cpu":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
