"""Every stage of the recipe, for a few steps, on 20-clip folders; what comes out speaks."""

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
from safetensors.torch import load_file

from spear_spec.audio import load_audio
from spear_spec.errors import BundleError, ConfigError
from spear_spec.evaluation.reference import load_reference
from spear_spec.pipeline import TTS
from spear_spec.semantic import SemanticTokenizer
from spear_spec.training.data.prepared import load_rows, save_rows
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import STAGES, Plan
from spear_spec.training.recipe.run import run_config, run_plan
from spear_spec.training.recipe.stages.pack import add_reference
from spear_spec.voice.bundle import open_voice

ROOT = Path(__file__).parents[2]


def speaks(voice: Path, speaker: str) -> None:
    tts = TTS.load(voice, device="cpu")
    audio = tts.synthesize("The cat sat.", speaker=speaker, max_tokens=25, seed=3)
    assert audio.sample_rate == 24000
    assert len(audio.samples) > 0
    assert audio.stats["target_calls"] >= 1
    assert tts.spec.drafter == "eagle"


@pytest.fixture(scope="module")
def lj_run(tmp_path_factory: pytest.TempPathFactory, ljspeech: Path, few_steps: dict[str, Any]) -> Path:
    """run.sh, as a user calls it, on an LJSpeech-shaped folder."""
    folder = tmp_path_factory.mktemp("lj")
    (folder / "config.json").write_text(json.dumps(few_steps), encoding="utf-8")
    command = [
        str(ROOT / "recipes/default_voice/run.sh"),
        "--config",
        str(folder / "config.json"),
        "--corpus",
        str(ljspeech),
        "--out",
        str(folder / "out"),
    ]
    env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for number, name in enumerate(STAGES):
        assert f"stage {number}, {name}: done in" in done.stdout
    return folder


def test_ljspeech_shaped_folder_gives_a_voice_that_speaks(lj_run: Path) -> None:
    speaks(lj_run / "out" / "voice" / "tiny", "LJSpeech-tiny")
    evaluation = json.loads((lj_run / "out" / "evaluation.json").read_text())
    assert set(evaluation["arms"]) == {"speculative", "autoregressive"}
    assert evaluation["ctc_phoneme_error"] > 0
    assert evaluation["verify"]["pass"] and evaluation["verify"]["lossless"]
    speeds = json.loads((lj_run / "out" / "benchmark.json").read_text())
    assert {row["drafter"] for row in speeds["rows"]} == {"none", "eagle"}


def test_finished_stages_are_not_run_again(
    lj_run: Path, ljspeech: Path, few_steps: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    out = lj_run / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    run_config(lj_run / "config.json", [f"out={out}", f'prepare.corpora=["{ljspeech}"]'])
    assert capsys.readouterr().out.count("done before") == len(STAGES)
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_a_trainer_goes_on_from_its_checkpoint(
    lj_run: Path, ljspeech: Path, few_steps: dict[str, Any], tmp_path: Path
) -> None:
    values = copy.deepcopy(few_steps) | {"out": str(lj_run / "out"), "stages": ["t2s"]}
    values["prepare"]["corpora"] = [str(ljspeech)]
    values["t2s"]["training"]["steps"] = 5
    run_plan(Plan.from_dict(values))
    steps = [json.loads(line)["step"] for line in (lj_run / "out" / "t2s" / "train.log").read_text().splitlines()]
    assert steps == [0, 2, 3, 4, 5]


def test_tokens_are_those_of_the_audio(lj_run: Path) -> None:
    out = lj_run / "out"
    tokenizer = SemanticTokenizer.load(out / "centroids.safetensors")
    tokens = load_rows(Layout(out).prepared.tokens)
    clips = Layout(out).prepared.clips()
    assert len(clips) == 17
    assert set(tokens) == {clip.id for clip in clips}
    for clip in clips[:3]:
        audio = load_audio(clip.audio)
        assert torch.equal(tokens[clip.id].long(), tokenizer.encode(audio.samples, audio.sample_rate))
        assert len(tokens[clip.id]) == int(audio.seconds * 25)
    assert len({int(t) for row in tokens.values() for t in row}) > 8


def test_clips_without_durations_get_them(lj_run: Path) -> None:
    prepared = Layout(lj_run / "out").prepared
    tokens = load_rows(prepared.tokens)
    for clip in prepared.clips():
        assert clip.frames is not None
        assert clip.phonemes is not None
        assert len(clip.frames) == len(clip.phonemes) + 2
        assert min(clip.frames) >= 0
        assert sum(clip.frames) == round(len(tokens[clip.id]) * 1.6)


def test_given_tokens_are_compared(lj_run: Path, ljspeech: Path, few_steps: dict[str, Any], tmp_path: Path) -> None:
    made = load_rows(Layout(lj_run / "out").prepared.tokens) | load_rows(Layout(lj_run / "out").dev.tokens)
    given = {key.split("/", 1)[1]: row.clone() for key, row in made.items()}
    total = sum(len(row) for row in given.values())
    first = next(iter(given.values()))
    first[:4] = (first[:4] + 1) % 16
    save_rows(tmp_path / "given.safetensors", given)
    values = copy.deepcopy(few_steps) | {"out": str(tmp_path / "out"), "stages": ["prepare", "tokenize"]}
    values["prepare"]["corpora"] = [str(ljspeech)]
    values["tokenize"] |= {
        "centroids": str(lj_run / "out" / "centroids.safetensors"),
        "given": [[str(ljspeech), str(tmp_path / "given.safetensors")]],
    }
    run_plan(Plan.from_dict(values))
    assert json.loads((tmp_path / "out" / "agreement.json").read_text()) == {
        "clips": 20, "tokens": total, "equal": total - 4, "share": (total - 4) / total}  # fmt: skip


def test_gpu_script_goes_on_across_machines(lj_run: Path, few_steps: dict[str, Any], tmp_path: Path) -> None:
    """The GPU recipe on the CPU: pack here, train there, collect here, train on on a fresh machine."""
    env = {
        **os.environ,
        "PYTHON": sys.executable,
        "OMP_NUM_THREADS": "1",
        "GPU_DIR": str(tmp_path / "parcel"),
        "DEVICE": "cpu",
        "WORKERS": "1",
    }

    def gpu(*arguments: object, **more: object) -> str:
        command = [str(ROOT / "recipes/gpu.sh"), *map(str, arguments)]
        done = subprocess.run(
            command,
            env={**env, **{k: str(v) for k, v in more.items()}},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    gpu("pack", lj_run / "out", "--kbit", 24)
    assert (tmp_path / "parcel" / "data.tar").stat().st_size < 400_000
    for number, steps in enumerate((3, 5)):
        out = tmp_path / f"out{number}"
        out.mkdir()
        settings = [f"t2s.training.steps={steps}", "t2s.every=1"]
        gpu("train", "t2s", 2, lj_run / "config.json", *settings, WORK=tmp_path / f"machine{number}", OUT=out)
        assert {path.name for path in out.iterdir()} == {"t2s-1.safetensors", "t2s.log"}
        gpu("collect", out, "t2s", tmp_path / "recipe")
    log = [json.loads(line)["step"] for line in (tmp_path / "out1" / "t2s.log").read_text().splitlines()]
    assert log == [3, 4, 5]
    state = torch.load(tmp_path / "recipe" / "t2s" / "checkpoint.pt", weights_only=True)
    assert state["step"] == 5
    clip = Layout(tmp_path / "machine1").prepared.clips()[0]
    assert load_audio(clip.audio).seconds == pytest.approx(clip.seconds, abs=0.05)


def test_the_voice_brings_its_speakers_reference(
    lj_run: Path, ljspeech: Path, few_steps: dict[str, Any], tmp_path: Path
) -> None:
    plan = Plan.from_dict(few_steps | {"out": str(lj_run / "out"), "prepare": {"corpora": [str(ljspeech)]}})
    add_reference(plan, tmp_path)
    assert load_reference(tmp_path, "LJSpeech-tiny") is None  # every clip is too short
    add_reference(plan, tmp_path, clips_each=2, shortest=0.5)
    embedding = load_reference(tmp_path, "LJSpeech-tiny")
    assert embedding is not None
    assert embedding.shape == (256,)


def test_training_goes_on_from_a_voice(lj_run: Path, ljspeech: Path, few_steps: dict[str, Any], tmp_path: Path) -> None:
    """One step at learning rate 0 leaves the voice's own weights; without `start` it leaves random ones."""
    for name in ("prepared", "dev", "centroids.safetensors"):
        (tmp_path / name).symlink_to(lj_run / "out" / name)
    voice = open_voice(lj_run / "out" / "voice" / "tiny")
    values = copy.deepcopy(few_steps) | {"out": str(tmp_path), "stages": ["t2s", "vocoder"]}
    values["prepare"]["corpora"] = [str(ljspeech)]
    values["t2s"]["training"] |= {"steps": 1, "lr": 0.0}
    values["vocoder"]["training"] |= {"steps": 1, "learning_rate": 0.0, "gan_learning_rate": 0.0, "gan_start": 0}
    values["t2s"]["start"] = values["vocoder"]["start"] = str(voice.path)
    run_plan(Plan.from_dict(values))
    for part, export in (("t2s", "export"), ("vocoder", "export")):
        trained = load_file(tmp_path / part / export / f"{part}.safetensors")
        for key, tensor in voice.tensors(part).items():
            assert torch.equal(trained[key], tensor), key
    (tmp_path / "sampling.json").symlink_to(lj_run / "out" / "sampling.json")
    values["stages"] = ["draft"]
    values["draft"]["training"] |= {"steps": 1, "lr": 0.0}
    values["draft"]["start"] = str(voice.path)
    run_plan(Plan.from_dict(values))
    trained = load_file(tmp_path / "draft" / "export" / "draft.safetensors")
    assert all(torch.equal(trained[key], tensor) for key, tensor in voice.tensors("draft").items())


def test_a_voice_of_another_shape_or_alphabet_is_no_start(
    lj_run: Path, ljspeech: Path, few_steps: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("prepared", "dev", "centroids.safetensors"):
        (tmp_path / name).symlink_to(lj_run / "out" / name)
    values = copy.deepcopy(few_steps) | {"out": str(tmp_path), "stages": ["t2s"]}
    values["prepare"]["corpora"] = [str(ljspeech)]
    values["t2s"] |= {"start": str(lj_run / "out" / "voice" / "tiny"), "dim": 48}
    with pytest.raises(BundleError, match="shape"):
        run_plan(Plan.from_dict(values))
    voice = tmp_path / "voice"
    shutil.copytree(lj_run / "out" / "voice" / "tiny", voice)
    config = json.loads((voice / "config.json").read_text())
    symbols = config["text"]["symbols"]
    symbols[5], symbols[6] = symbols[6], symbols[5]
    (voice / "config.json").write_text(json.dumps(config))
    values["t2s"] |= {"start": str(voice), "dim": 32}
    with pytest.raises(ConfigError, match="another alphabet of phonemes"):
        run_plan(Plan.from_dict(values))
