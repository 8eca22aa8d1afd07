"""Stages 0 to 3 on a folder of LibriTTS's shape: readers that stay apart, what is left out, what is doubted."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from spear_spec.errors import ConfigError
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.prepared import Prepared, load_rows, save_rows
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import Plan
from spear_spec.training.recipe.run import run_plan
from spear_spec.training.recipe.stages.common import utterances
from tests.stubs.libritts import READERS, SENTENCES

ROOT = Path(__file__).parents[2]
UNSEEN = {
    "corpora": ["train-clean-100"], "dev": ["dev-clean"], "test": ["test-clean"], "unseen": True, "form": "libritts",
}  # fmt: skip


def plan(few_steps: dict[str, Any], out: Path, data: Path, *stages: str, **prepare: Any) -> Plan:
    values = copy.deepcopy(few_steps) | {"out": str(out), "stages": list(stages)}
    values["prepare"] = {"data": str(data), **UNSEEN, **prepare}
    return Plan.from_dict(values)


def test_readers_of_each_part(few_steps: dict[str, Any], libritts: Path, tmp_path: Path) -> None:
    run_plan(plan(few_steps, tmp_path, libritts, "prepare"))
    at = Layout(tmp_path)
    for folder, part in ((at.prepared, "train-clean-100"), (at.dev, "dev-clean"), (at.test, "test-clean")):
        assert {clip.speaker for clip in folder.clips()} == set(READERS[part]) == set(folder.names())
        assert folder.left_out() == []
    assert len(at.prepared.clips()) == len(SENTENCES)
    assert not at.shards("prepare").exists() or not list(at.shards("prepare").iterdir())
    run_plan(plan(few_steps, tmp_path / "b", libritts, "prepare", limit=5, test=()))
    assert len(Layout(tmp_path / "b").prepared.clips()) == len(Layout(tmp_path / "b").dev.clips()) == 5
    assert not Layout(tmp_path / "b").test.folder.exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"dev": ["train-clean-100"]}, r"prepare.dev has readers of training \(prepare.corpora\): 103, 1034, 84\."),
        ({"test": ["train-clean-100"]}, r"prepare.test has readers of training"),
        ({"test": ["dev-clean"]}, r"prepare.test has readers of prepare.dev: 251\."),
        ({"unseen": False}, r"no held-out clip of these speakers \(prepare.unseen=true"),
        ({"unseen": False, "dev": (), "test": ["train-clean-100"]}, r"prepare.test has readers of training"),
        ({"test": ["test-other"]}, "test-other: no such corpus folder"),
    ],
)
def test_readers_that_do_not_stay_apart(
    settings: dict[str, Any], words: str, few_steps: dict[str, Any], libritts: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        run_plan(plan(few_steps, tmp_path, libritts, "prepare", **settings))
    assert not Layout(tmp_path).prepared.utterances.exists()


def test_a_reader_taken_out_of_training_may_be_tested_on(
    few_steps: dict[str, Any], libritts: Path, tmp_path: Path
) -> None:
    settings = {"speakers": ["84", "103"], "dev": ["train-clean-100"], "unseen": False, "test": ["test-clean"]}
    run_plan(plan(few_steps, tmp_path, libritts, "prepare", **settings))
    at = Layout(tmp_path)
    assert at.prepared.names() == at.dev.names() == ["84", "103"]
    assert {reason for _, reason in at.dev.left_out()} == {"speaker 1034"}


def test_run_sh_fetches_nothing_prepares_and_lists_what_it_left_out(
    few_steps: dict[str, Any], libritts: Path, tmp_path: Path
) -> None:
    data = tmp_path / "LibriTTS"
    shutil.copytree(libritts, data)
    [junk, cut, *_] = sorted((data / "train-clean-100").rglob("*.wav"))
    junk.write_bytes(b"junk")
    cut.write_bytes(cut.read_bytes()[:-1000])
    values = {"progress": False, **few_steps, "prepare": {**UNSEEN, "pace": [5.0, 20.0]}}
    values["download"] = {"mirrors": ["http://127.0.0.1:9"]}
    (tmp_path / "conf.json").write_text(json.dumps(values))
    command = [str(ROOT / "recipes/libritts/run.sh"), "--conf", str(tmp_path / "conf.json"), "--data", str(data)]
    command += ["--out", str(tmp_path / "out"), "--from", "0"]
    env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def call(*more: str) -> tuple[int, str]:
        done = subprocess.run([*command, *more], env=env, capture_output=True, text=True, timeout=900, check=False)
        return done.returncode, done.stdout + done.stderr

    code, told = call("--to", "1")
    assert code == 0, told
    assert told.count("there already") == 3
    left = dict(Layout(tmp_path / "out").prepared.left_out())
    assert left.keys() == {f"train-clean-100/{path.stem}" for path in (junk, cut)}
    assert left[f"train-clean-100/{cut.stem}"] == "truncated: 1000 bytes of audio are missing"
    code, told = call("--to", "0", 'prepare.dev=["dev-dirty"]')
    assert code == 2
    assert "download: " in told and "no subset of LibriTTS" in told and "Traceback" not in told
    assert call("--to", "10")[0] == call("--nonsense")[0] == call("--to")[0] == 2


def test_the_same_in_two_processes(few_steps: dict[str, Any], libritts: Path, tmp_path: Path) -> None:
    values = copy.deepcopy(few_steps) | {"stages": ["prepare", "tokenize", "align"]}
    values["prepare"] = {"data": str(libritts), **UNSEEN}
    for workers in (1, 2):
        run_plan(Plan.from_dict({**values, "out": str(tmp_path / str(workers)), "workers": workers}))
    one, two = (
        {str(p.relative_to(tmp_path / w)): p.read_bytes() for p in (tmp_path / w).rglob("*.*") if p.suffix != ".log"}
        for w in ("1", "2")
    )
    assert one.keys() == two.keys()
    different = {name for name in one if one[name] != two[name]}
    assert {name for name in different if not name.endswith(".pt")} == set()


def test_texts_in_doubt_are_not_read_and_readers_without_a_token_are_read_as_the_first(
    few_steps: dict[str, Any], libritts: Path, tmp_path: Path
) -> None:
    folder = Prepared(tmp_path / "dev")
    folder.write([Clip(name, who, "t", "x.wav", "hˈI.") for name, who in (("a", "84"), ("b", "84"), ("c", "61"))])
    save_rows(folder.tokens, {name: torch.tensor([1, 2, 3]) for name in "abc"})
    front, of = PhonemeTokenizer(("103", "84")), plan(few_steps, tmp_path, libritts)
    first, second, third = utterances(of, folder, front)
    assert first.text == second.text
    assert third.text[1:] == first.text[1:]
    assert [u.text[0] for u in (first, third)] == [front.encode_phonemes("h", who)[0] for who in ("84", "103")]
    folder.write_doubted([("a", "5.00 nats a phone")])
    assert len(utterances(of, folder, front)) == 2
    assert set(load_rows(folder.tokens)) == {"a", "b", "c"}
