"""A bundle with a prompt encoder, and without: saved and loaded alike, checked before anything is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from spear_spec.acoustic.prompt import check_hears
from spear_spec.acoustic.unit.prompt import PromptConfig, PromptEncoder, listen
from spear_spec.acoustic.unit.stage import HearingStage
from spear_spec.errors import BundleError, ConfigError
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.parts import load_stage
from tests.stubs.prompting import SHAPE, make_encoder, prompting_voice
from tests.voice.damage import edit, put
from tests.voice.test_save import again


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return make_encoder()


@pytest.fixture(scope="module")
def written(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prompting_voice(open_voice(original), tmp_path_factory.mktemp("voices") / "hearing")


@pytest.fixture
def hearing(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "hearing"))


def clip() -> torch.Tensor:
    return 0.1 * torch.randn(24000, generator=torch.Generator().manual_seed(2))


def test_the_encoder_comes_back(written: Path, encoder: PromptEncoder) -> None:
    stage = load_stage(open_voice(written))
    assert isinstance(stage, HearingStage)
    assert torch.equal(stage.prompt(clip(), 24000).value, listen(encoder, clip(), 24000))
    assert PromptConfig.from_dict(open_voice(written).config.prompt or {}) == SHAPE
    check_hears(stage, stage.speakers)


def test_a_voice_without_one_reads_as_it_always_did(original: Path, tmp_path: Path) -> None:
    bundle = open_voice(original)
    assert "prompt" not in bundle.config.to_dict() and not bundle.has("prompt")
    again(bundle, tmp_path / "again", shard_bytes=110_000)
    old, new = (json.loads((folder / "config.json").read_text()) for folder in (original, tmp_path / "again"))
    assert list(old) == list(new) and old | {"files": {}} == new | {"files": {}}
    with pytest.raises(ConfigError, match="takes no prompts: its sound is that of its own speakers"):
        check_hears(load_stage(bundle), bundle.config.speakers)


def test_changes_that_are_refused(hearing: Path) -> None:
    whole = (hearing / "config.json").read_bytes()

    def refused(change: Any, complaint: str) -> None:
        edit(hearing, change)
        with pytest.raises(BundleError, match=complaint):
            load_stage(open_voice(hearing))
        (hearing / "config.json").write_bytes(whole)

    refused(lambda c: c["prompt"].update(vector=34), "vector is 34, the vocoder's speaker vectors have 32")
    refused(lambda c: c["prompt"].update(dim=8), "has shape")
    refused(lambda c: c["prompt"].update(dim=10**9), "dim must be a whole number")
    refused(lambda c: c["prompt"].update(wings=2), "wings")
    refused(lambda c: c.update(prompt=[1]), "prompt must be an object")
    refused(lambda c: c["files"].pop("prompt"), "no files for prompt")
    load_stage(open_voice(hearing))


def test_weights_that_are_not_finite_are_refused(hearing: Path, encoder: PromptEncoder) -> None:
    weights = {name: value.half() for name, value in encoder.state_dict().items()}
    put(hearing, "prompt", save(weights))
    load_stage(open_voice(hearing))
    weights["out.bias"][3] = float("nan")
    put(hearing, "prompt", save(weights))
    with pytest.raises(BundleError, match="NaN"):
        load_stage(open_voice(hearing))
