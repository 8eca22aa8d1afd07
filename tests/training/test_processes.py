"""Several processes that train together: the same weights as one, one of them writes, all stop together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from spear_spec.errors import ConfigError, MissingExtraError
from spear_spec.training.checkpoint import load_checkpoint
from spear_spec.training.data.utterances import IGNORE
from spear_spec.training.processes import find_processes
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.run import run_plan
from spear_spec.training.t2s.batches import Share, collate

HERE = Path(__file__).parent


def launch(count: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    script = [str(HERE / "together.py"), *map(str, arguments)]
    options = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    many = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(count), *options]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1])}
    command = [sys.executable, *(many if count > 1 else []), *script]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_two_processes_end_with_the_weights_of_one_even_when_they_are_stopped(tmp_path: Path) -> None:
    """Six steps by one; four, a SIGTERM to the one that does not write, and the rest by two. One batch is of one
    utterance, so that a process has nothing of its own in it; dropout is 0.
    """
    one = launch(1, tmp_path / "one", 6)
    assert one.returncode == 0, one.stderr
    stopped = launch(2, tmp_path / "two", 6, 3)
    assert "t2s at step 4" in stopped.stdout, stopped.stdout + stopped.stderr
    assert load_checkpoint(tmp_path / "two/checkpoint.pt")["step"] == 4
    two = launch(2, tmp_path / "two", 6)
    assert two.returncode == 0, two.stderr
    a, b = (load_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("one", "two"))
    for part in ("trainee", "ema"):
        for name, tensor in a[part].items():
            assert torch.allclose(tensor, b[part][name], atol=1e-5, rtol=0), (part, name)
    lines = [
        [json.loads(line) for line in (tmp_path / name / "train.log").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert [[line["step"] for line in log] for log in lines] == [[0, 6], [0, 6]]  # one of them writes
    for key in ("train_nll", "train_align", "train_auxiliary"):
        assert lines[0][-1][key] == pytest.approx(lines[1][-1][key], abs=2e-4), key


def some_share() -> Share:
    namespace: dict[str, Any] = {"__name__": "together"}
    exec((HERE / "together.py").read_text(), namespace)
    batch = collate(namespace["utterances"](), 9, 8)
    no_text = torch.tensor([False, True, False, False, False, False, False])
    return Share(batch, torch.rand(batch.tokens.shape) < 0.3, no_text)


@pytest.mark.parametrize("count", [2, 3, 9])
def test_shares_are_the_whole_batch(count: int) -> None:
    whole = some_share()
    shares = [whole.of(rank, count, 8) for rank in range(count)]
    aligned = [share.batch.align.masked_fill(share.no_text[:, None], IGNORE) != IGNORE for share in shares]
    sums = [
        sum(int((share.batch.target != IGNORE).sum()) for share in shares),
        sum(int(known.sum()) for known in aligned),
        sum(int(share.batch.spoken(8).sum()) for share in shares),
    ]
    assert all(list(share.counts or ()) == sums for share in shares)
    assert whole.of(0, 1, 8) is whole
    rows = sorted(tuple(row) for share in shares for row in share.batch.target.tolist() if max(row) != IGNORE)
    assert rows == sorted(tuple(row) for row in whole.batch.target.tolist())
    assert all(len(share.masked) == len(share.no_text) == len(share.batch.tokens) > 0 for share in shares)


def test_without_the_library_one_process_works_and_several_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    assert find_processes().count == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MissingExtraError, match=r"spear_spec\[train\]"):
        find_processes()
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(ConfigError, match="WORLD_SIZE"):
        find_processes()


def test_other_stages_are_done_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    plan = Plan.from_dict({"out": str(tmp_path), "prepare": {"corpora": ["none"]}, "stages": ["prepare"]})
    with pytest.raises(ConfigError, match="stage 0, prepare is done by one process, and 2 were started"):
        run_plan(plan)
