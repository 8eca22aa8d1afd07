"""One torch thread and fixed seeds for every test."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # the many processes that tests start would compile the package anew

import gc
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


# the files that take longest, the longest first
LONG = (
    "recipes/test_tiny",
    "recipes/test_recipe",
    "decoding/test_trees",
    "kernels/test_asan",
    "recipes/test_kill",
    "recipes/test_gpu_bench",
    "test_cli",
    "decoding/test_verify",
    "test_tune",
    "decoding/test_joining_drafters",
    "training/test_processes",
    "decoding/test_verifiers_law",
    "decoding/test_self_drafts",
    "test_engine",
    "plugins/test_outside_voice",
    "recipes/test_low_resource_recipe",
    "bulk/test_processes",
    "decoding/rounds/test_fused",
    "decoding/test_verifiers_settle",
    "decoding/test_adaptive",
    "kernels/test_asan_vocoder",
    "quality/test_voice_quality",
    "test_bench",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `gpu` are skipped where there is none; nothing else is ever skipped.

    DEVICE=cpu rehearses those of `tests/gpu` without one (`recipes/gpu.sh bench`). Long files come first, so that no
    worker is left alone with one at the end (Makefile: without xdist's own order, which is by numbers of tests).
    """
    rank = {f"tests/{name}.py": number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))
    if torch.cuda.is_available() or os.environ.get("DEVICE") == "cpu":
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def pytest_collection_finish() -> None:
    """What was imported stays: no collection of garbage looks at it again."""
    gc.collect()
    gc.freeze()
