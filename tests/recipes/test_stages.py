"""Each stage, alone: on what it says that it reads and nothing else, and on the device that the plan names."""

from __future__ import annotations

import copy
import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from spear_spec.audio import load_audio
from spear_spec.errors import ConfigError
from spear_spec.semantic import SpeechEncoder, SupervisedConfig, SupervisedEncoder
from spear_spec.semantic.tokenizer import read_centroids
from spear_spec.training.data.prepared import load_rows
from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import STAGES, Plan
from spear_spec.training.recipe.run import run_plan
from spear_spec.training.recipe.stages import TABLE, vocoder
from spear_spec.voice.bundle import open_voice


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, ljspeech: Path, few_steps: dict[str, Any]) -> dict[str, Any]:
    """A recipe that has run, with a drafter of each kind of training."""
    values = copy.deepcopy(few_steps) | {"out": str(tmp_path_factory.mktemp("finished"))}
    values["prepare"]["corpora"] = [str(ljspeech)]
    values["drafters"]["names"] = ["small", "medusa", "layer_skip"]
    run_plan(Plan.from_dict(values))
    return values


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_needs_what_it_says_and_leaves_what_it_says(
    name: str, finished: dict[str, Any], tmp_path: Path
) -> None:
    [stage] = [stage for stage in TABLE if stage.name == name]
    whole = Plan.from_dict(finished)
    alone = Plan.from_dict({**finished, "out": str(tmp_path), "stages": [name]})
    for path in stage.reads(whole, Layout(whole.out)):
        if path.is_relative_to(whole.out):
            copied = tmp_path / path.relative_to(whole.out)
            copied.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(path, copied) if path.is_dir() else shutil.copyfile(path, copied)
    stage.run(alone)
    assert stage.written(alone)
    here = {path.relative_to(tmp_path) for path in stage.writes(alone, Layout(tmp_path))}
    assert here == {path.relative_to(whole.out) for path in stage.writes(whole, Layout(whole.out))}


class Seen(Exception):
    """A stand-in was called with a device."""


@pytest.mark.parametrize(
    ("stage", "part", "place"),
    [
        ("tokenize", "spear_spec.training.data.tokens.SpeechEncoder", 2),
        ("align", "train_ctc", "device"),
        ("t2s", "train_t2s", "device"),
        ("vocoder", "train_vocoder", "device"),
        ("sampling", "load_target", 1),
        ("draft", "load_target", 1),
        ("drafters", "load_target", 1),
        ("evaluate", "TTS.load", "device"),
        ("benchmark", "TTS.load", "device"),
    ],
)
def test_every_stage_that_computes_does_it_on_the_plans_device(
    stage: str, part: str, place: Any, finished: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spy(*args: Any, **kwargs: Any) -> None:
        raise Seen(args[place] if isinstance(place, int) else kwargs[place])

    shutil.copytree(finished["out"], tmp_path / "out")
    (tmp_path / "out/ctc.safetensors").unlink()
    if stage == "tokenize":
        (tmp_path / "out/prepared/tokens.safetensors").unlink()  # what is there is not made again
    module = importlib.import_module(f"spear_spec.training.recipe.stages.{stage}")
    if part == "TTS.load":
        monkeypatch.setattr("spear_spec.pipeline.TTS.load", spy)
    elif "." in part:
        monkeypatch.setattr(part, spy)
    else:
        monkeypatch.setattr(module, part, spy)
    plan = Plan.from_dict({**finished, "out": str(tmp_path / "out"), "device": "cuda:7"})
    [this] = [each for each in TABLE if each.name == stage]
    with pytest.raises(Seen, match="cuda:7"):
        this.run(plan)


def test_tokens_of_a_supervised_encoder(finished: dict[str, Any], encoder: Path, tmp_path: Path) -> None:
    shutil.copytree(finished["out"], tmp_path / "out")
    torch.manual_seed(2)
    trained = SupervisedEncoder(SupervisedConfig(inputs=2 * 2 * 32, dim=12, expansion=2, blocks=1)).eval()
    trained.save(file := tmp_path / "supervised.safetensors")
    tokenize = {**finished["tokenize"], "supervised": str(file), "layers": [1, 2]}
    plan = Plan.from_dict({**finished, "out": str(tmp_path / "out"), "tokenize": tokenize})
    for stage in TABLE:
        if stage.name in ("tokenize", "pack"):
            assert file in stage.reads(plan, Layout(plan.out))
            stage.run(plan)
    at = Layout(plan.out)
    [clip, *_] = at.prepared.clips()
    audio = load_audio(clip.audio)
    first, second = (SpeechEncoder(str(encoder), layer).hidden(audio.samples, audio.sample_rate) for layer in (1, 2))
    pairs = [torch.cat((first[i], second[i], first[i + 1], second[i + 1])) for i in range(0, len(first) - 1, 2)]
    with torch.no_grad():
        features = trained(torch.stack(pairs)[None])[0]
    centroids = read_centroids(at.centroids)[0]
    assert centroids.shape == (16, 12)
    distances = torch.stack([(features - centroid).square().sum(-1) for centroid in centroids])
    assert distances.argmin(0).tolist() == load_rows(at.prepared.tokens)[clip.id].tolist()
    bundle = open_voice(at.voice(plan.pack.name))
    assert bundle.config.semantic == {
        "encoder": str(encoder), "layers": [1, 2], "supervised": True, "rate": 25, "k": 16
    }  # fmt: skip
    packed = SupervisedEncoder.from_tensors(bundle.tensors("supervised"))
    for name, tensor in trained.state_dict().items():
        assert torch.equal(packed.state_dict()[name], tensor.half().float()), name


def test_the_vocoder_learns_from_the_encoder_of_the_tokens(
    finished: dict[str, Any], encoder: Path, tmp_path: Path
) -> None:
    torch.manual_seed(2)
    trained = SupervisedEncoder(SupervisedConfig(inputs=2 * 2 * 32, dim=12, expansion=2, blocks=1)).eval()
    trained.save(file := tmp_path / "supervised.safetensors")

    def plan(weights: dict[str, float], **tokenize: Any) -> Plan:
        told = {**finished["tokenize"], **tokenize}
        given = {**finished.get("vocoder", {}), "training": {**finished["vocoder"]["training"], **weights}}
        return Plan.from_dict({**finished, "tokenize": told, "vocoder": given})

    supervised = {"supervised": str(file), "layers": [1, 2]}
    assert vocoder.recogniser(plan({}, **supervised)) is None
    heard = vocoder.recogniser(plan({"hearing": 1.0}, **supervised))
    assert heard is not None and heard.supervised is None
    wanted = plan({"reading": 1.0}, **supervised)
    read = vocoder.recogniser(wanted)
    assert read is not None and read.supervised is not None and read.read == (1, 2)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(read.supervised.state_dict()[name], tensor), name
    assert file in vocoder.STAGE.reads(wanted, Layout(wanted.out))
    assert file not in vocoder.STAGE.reads(plan({"hearing": 1.0}, **supervised), Layout(wanted.out))
    with pytest.raises(ConfigError, match=r"tokenize\.supervised"):
        vocoder.recogniser(plan({"reading": 1.0}))
