"""Each stage, alone: on what it says that it reads and nothing else, and on the device that the plan names."""

from __future__ import annotations

import copy
import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from spear_spec.training.recipe.layout import Layout
from spear_spec.training.recipe.plan import STAGES, Plan
from spear_spec.training.recipe.run import run_plan
from spear_spec.training.recipe.stages import TABLE


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
        ("tokenize", "SpeechEncoder", 2),
        ("align", "train_ctc", "device"),
        ("t2s", "train_t2s", "device"),
        ("vocoder", "train_vocoder", "device"),
        ("sampling", "load_target", 1),
        ("draft", "load_target", 1),
        ("drafters", "load_target", 1),
        ("evaluate", "TTS.load", "device"),
    ],
)
def test_every_stage_that_computes_does_it_on_the_plans_device(
    stage: str, part: str, place: Any, finished: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spy(*args: Any, **kwargs: Any) -> None:
        raise Seen(args[place] if isinstance(place, int) else kwargs[place])

    shutil.copytree(finished["out"], tmp_path / "out")
    (tmp_path / "out/ctc.safetensors").unlink()
    module = importlib.import_module(f"spear_spec.training.recipe.stages.{stage}")
    if part == "TTS.load":
        monkeypatch.setattr("spear_spec.pipeline.TTS.load", spy)
    else:
        monkeypatch.setattr(module, part, spy)
    plan = Plan.from_dict({**finished, "out": str(tmp_path / "out"), "device": "cuda:7"})
    [this] = [each for each in TABLE if each.name == stage]
    with pytest.raises(Seen, match="cuda:7"):
        this.run(plan)
