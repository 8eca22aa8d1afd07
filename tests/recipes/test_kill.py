"""A kill (SIGKILL) in the middle of each stage, and again: the same result as without, tensor for tensor."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from spear_spec.pipeline import TTS
from spear_spec.training.data.prepared import load_rows
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import STAGES

ROOT = Path(__file__).parents[2]
# what says how long something took; a loop's speed-up and the like are of the second hand too
TIMES = {"minutes", "seconds", "rtf", "ttfa_s", "t2s_s", "wall_s", "decode_s", "vocoder_s"}
# markers and owners hold hashes of files that name times; tables show them; layer_skip's switches are found by them
PASSED = ("done.", "work/", "drafters.md", "benchmark.")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory, libritts: Path, few_steps: dict[str, Any]) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("killed")
    values = copy.deepcopy(few_steps) | {"out": str(folder)}
    values["prepare"] = {
        "data": str(libritts), "corpora": ["train-clean-100"], "dev": ["dev-clean"], "test": ["test-clean"],
        "unseen": True, "form": "libritts",
    }  # fmt: skip
    # a checkpoint a step; runs of several steps and several lines; drafters that no stopwatch chooses
    values["t2s"] |= {"save_minutes": 1e-9, "every": 3}
    values["t2s"]["training"]["steps"] = 7
    values["vocoder"]["training"] |= {"steps": 4, "tail": 1}
    values["draft"]["training"] = values["draft"]["training"] | {"steps": 5}
    values["drafters"] |= {"names": ["small", "medusa"]}
    values["drafters"]["training"] = values["drafters"]["training"] | {"steps": 5}
    recipe, report = folder / "recipe.json", folder / "report.json"
    recipe.write_text(json.dumps(values))
    command = [sys.executable, str(ROOT / "tests/recipes/mortal.py"), str(recipe), ",".join(STAGES), str(report)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-6000:]
    return {**json.loads(report.read_text()), "folder": folder, "log": done.stdout + done.stderr}


def test_every_stage_was_killed_in_the_middle(killed: dict[str, Any]) -> None:
    assert killed["ended"] == dict.fromkeys(STAGES, -signal.SIGKILL), killed["log"][-6000:]
    assert killed["last"] == 0, killed["log"][-6000:]
    assert {name for name, count in killed["ticks"].items() if count < 2} <= {"push"}


def plain(value: Any, out: Path) -> Any:
    """JSON without times, paths as seen from the recipe's folder."""
    if isinstance(value, dict):
        return {key: plain(item, out) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [plain(item, out) for item in value]
    return value.replace(str(out), "OUT") if isinstance(value, str) else value


def content(path: Path, out: Path) -> Any:
    if path.suffix == ".safetensors":
        return {key: tensor.numpy() for key, tensor in load_file(path).items()}
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    if path.suffix == ".npz":
        with np.load(path) as data:
            return dict(data)
    if path.suffix == ".json":
        return plain(json.loads(path.read_text()), out)
    if path.suffix in (".jsonl", ".log"):
        return [plain(json.loads(line), out) for line in path.read_text().splitlines()]
    return path.read_bytes()


def same(a: Any, b: Any, where: str) -> None:
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - TIMES:
            same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for number, pair in enumerate(zip(a, b)):
            same(*pair, f"{where}/{number}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and np.array_equal(a, b), where
    else:
        assert a == b, where


def test_nothing_tells_that_it_was(killed: dict[str, Any]) -> None:
    whole, cut = killed["folder"] / "whole", killed["folder"] / "cut"
    files = []
    for out in (whole, cut):
        found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
        files.append({name for name in found if not name.startswith(PASSED) and not name.endswith((".tmp", ".part"))})
    assert files[0] == files[1]
    assert {"t2s/export/t2s.safetensors", "voice/tiny/config.json", "evaluation.json"} <= files[0]
    for name in sorted(files[0]):
        same(content(whole / name, whole), content(cut / name, cut), name)
    speeds = [json.loads((out / "benchmark.json").read_text()) for out in (whole, cut)]
    rows = [[(row["drafter"], row["gamma"], row["batch"]) for row in each["rows"]] for each in speeds]
    assert rows[0] == rows[1] and len(rows[0]) == 2
    assert {"pushed/config.json", "pushed/t2s-1.safetensors", "pushed/README.md"} <= files[0]


def test_the_voice_has_the_readers_of_the_training_part_alone(killed: dict[str, Any]) -> None:
    """Held out and tested on are other readers."""
    at = Layout(killed["folder"] / "cut")
    tts = TTS.load(at.voice("tiny"), device="cpu")
    assert tts.speakers == ("1034", "84", "103") and tts.spec.drafter == "eagle"
    for speaker in ("1034", "84"):
        audio = tts.synthesize("The cat sat.", speaker=speaker, max_tokens=25, seed=3)
        assert audio.sample_rate == 24000 and len(audio.samples) > 0 and audio.stats["target_calls"] >= 1
    for folder, readers in ((at.dev, {"251"}), (at.test, {"61", "908"})):
        assert {clip.speaker for clip in folder.clips()} == readers
        assert set(load_rows(folder.tokens)) == {clip.id for clip in folder.clips()}
        assert all(clip.frames for clip in folder.clips())
