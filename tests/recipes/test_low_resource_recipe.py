"""Every stage of the low-resource recipe for a few steps, as a user calls it; settings that ship; what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spear_spec.errors import ConfigError
from spear_spec.training.data.prepared import Prepared, load_rows
from spear_spec.training.low_resource.layout import Places
from spear_spec.training.low_resource.learner import best_weights
from spear_spec.training.low_resource.plan import STAGES, LowResource
from spear_spec.training.low_resource.run import TABLE, main, run_low_resource
from spear_spec.training.recipe.plan import read_file

ROOT = Path(__file__).parents[2]
FEW = {"steps": 2, "batch_tokens": 150, "warmup": 1, "ema": 0.5}


@pytest.fixture(scope="module")
def settings(encoder: Path, ljspeech: Path) -> dict[str, Any]:
    lesson = {"every": 2, "training": FEW}
    return {
        "progress": False,
        "prepare": {"corpora": [str(ljspeech)], "held_out_every": 5},
        "tokenize": {"encoder": str(encoder), "layer": 1, "clusters": 16, "fit_hours": 0.005},
        "shape": {"dim": 16, "heads": 2, "dim_head": 8, "encoder_layers": 2, "decoder_layers": 2},
        "parallel": {"minutes": 0.15},
        "freeze": {"lower": 1},
        "ctc": {"steps": 4, "dim": 8, "blocks": 1},
        **dict.fromkeys(("pretrain", "scratch", "finetune", "forward", "final"), lesson),
        "back": {"every": 2, "training": {**FEW, "join_share": 0.0}},
        "pseudo": {
            "batch": 4,
            "way": "sample",
            "temperature": 1.0,
            "top_p": 1.0,
            "candidates": 4,
            "filter": {"keep": 1.0, "slack": 10.0, "repeats": 90, "longest": 900},
        },
        "evaluate": {"sentences": 1, "judge": False},
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, Any]) -> Path:
    """run.sh on twenty clips, two parallel parts."""
    folder = tmp_path_factory.mktemp("low")
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    command = [str(ROOT / "recipes/low_resource/run.sh"), "--config", str(folder / "config.json")]
    command += [
        "--corpus",
        settings["prepare"]["corpora"][0],
        "--speaker",
        "LJSpeech-tiny",
        "--out",
        str(folder / "out"),
    ]
    command += ["--parallel-minutes", "0.15", "--parallel-minutes", "all"]
    env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    for stage in (stage.name for stage in TABLE):
        assert f"{stage}: done in" in found.stdout, found.stdout
    assert found.stdout.count("pretrain: done in") == 1  # both parts share it
    return folder / "out"


def test_run_sh_goes_through_every_stage(done: Path) -> None:
    at = Places(done, "LJSpeech-tiny-0.15min")
    known, every = at.parallel.clips(), at.shared.prepared.clips()
    assert 0 < sum(clip.seconds for clip in known) <= 60 * 0.15
    # what had no text has one that is not its own, and no part of the parallel clips is among it
    written = {clip.id: clip for clip in at.pseudo.clips()}
    assert written
    assert not {clip.id for clip in known} & set(written)
    truth = {clip.id: clip.phonemes for clip in every}
    assert all(not clip.text and clip.phonemes != truth[clip.id] for clip in written.values())
    assert {clip.id for clip in every} == {clip.id for clip in known} | set(written) | set(dict(at.pseudo.left_out()))
    tokens = load_rows(at.shared.prepared.tokens)
    assert all(len(row) == len(tokens[name]) for name, row in load_rows(at.pseudo.tokens).items())
    evaluation = json.loads(at.evaluation.read_text())
    assert set(evaluation["arms"]) == {"scratch", "finetune", "final"}
    table = (done / "table.md").read_text()
    assert table.count("| all | ") == 2
    assert table.count("| LJSpeech-tiny-0.15min | ") == 3
    assert table.index("LJSpeech-tiny-0.15min") < table.index("| all |")


def test_pseudo_pairs_have_no_durations_where_the_parallel_part_has_none(done: Path) -> None:
    assert not Places(done, "LJSpeech-tiny-0.15min").pseudo.durations.exists()


def test_each_training_begins_with_what_the_one_before_left(done: Path) -> None:
    """What is frozen in a lesson is the denoising model's, bit for bit."""
    at = Places(done, "LJSpeech-tiny-0.15min")
    first = best_weights(at.work("pretrain").folder)["trainee"]
    for name in ("finetune", "forward", "final"):
        kept = best_weights(at.work(name).folder)["trainee"]
        for key in (
            "model.encoder.1.ff.up.weight",
            "model.decoder.1.self_attn.to_qkv.weight",
            "model.semantic_emb.weight",
        ):
            assert kept[key].equal(first[key]), (name, key)
    kept = best_weights(at.work("back").folder)["trainee"]
    for key in ("model.encoder.0.ff.up.weight", "model.text_emb.weight", "model.encoder_norm.gamma"):
        assert kept[key].equal(first[key])


def test_what_is_done_is_not_done_again(
    done: Path, settings: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    values = {**settings, "out": str(done), "parallel": {"minutes": 0.15, "speaker": "LJSpeech-tiny"}}
    before = {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file()}
    run_low_resource(LowResource.from_dict(values))
    assert capsys.readouterr().out.count("done before") == len(STAGES)
    assert before == {path: path.stat().st_mtime_ns for path in done.rglob("*") if path.is_file()}


def test_another_share_begins_the_denoising_anew(
    done: Path, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    out = tmp_path / "out"
    shutil.copytree(done, out)
    values = {**settings, "out": str(out), "parallel": {"minutes": 0.15, "speaker": "LJSpeech-tiny"}}
    values |= {"pretrain": {"every": 2, "deleted": 0.5, "training": FEW}, "stages": ["pretrain", "finetune"]}
    run_low_resource(LowResource.from_dict(values))
    said = capsys.readouterr().out
    assert "pretrain: again, pretrain.deleted changed" in said
    assert "finetune: again, pretrain/best.pt changed" in said
    assert (out / "pretrain.before" / "best.pt").exists()
    longer = {
        **values,
        "pretrain": {"every": 2, "deleted": 0.5, "training": {**FEW, "steps": 4}},
        "stages": ["pretrain"],
    }
    run_low_resource(LowResource.from_dict(longer))
    steps = [json.loads(line)["step"] for line in (out / "pretrain" / "train.log").read_text().splitlines()]
    assert steps == [0, 2, 4]  # more steps go on from where it stood


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_settings_that_ship_can_be_read(name: str) -> None:
    values = read_file(ROOT / "recipes" / "low_resource" / "conf" / f"{name}.toml")
    values.setdefault("prepare", {})["corpora"] = ["corpus"]
    plan = LowResource.from_dict({**values, "out": "out"})
    assert plan.pretrain.deleted == 0.6
    assert plan.freeze.lower < plan.shape.encoder_layers
    assert plan.back.training.join_share == 0


@pytest.mark.parametrize(
    "change, message",
    [
        ({"stages": ["dance"]}, "unknown stage dance"),
        ({"pretrian": {}}, "unknown key pretrian"),
        ({"freeze": {"lower": 4}}, r"freeze\.lower: the encoder has 2 layers"),
        ({"pseudo": {"way": "guess"}}, "way must be one of guided, sample, beam"),
        ({"pseudo": {"filter": {"keep": 2.0}}}, "keep must lie in"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LowResource.from_dict({**settings, "out": "out", **change})


def test_more_minutes_than_there_are_are_one_line(
    done: Path, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**settings, "out": str(done)}), encoding="utf-8")
    assert main([str(config), "--stages", "parallel", "--set", "parallel.minutes=15"]) == 2
    assert "low_resource: LJSpeech-tiny has 0." in capsys.readouterr().out
    assert not Prepared(done / "most-15min" / "parallel").utterances.exists()
