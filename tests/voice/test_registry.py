"""Kinds: what ships, what a program registers, what a package brings; and what is said when one is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from spear_spec.errors import BundleError, ConfigError
from spear_spec.registry import Registry
from spear_spec.voice import kinds
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.config import VoiceConfig
from spear_spec.voice.parts import load_front_end, load_stage, load_target
from spear_spec.voice.registry import STAGES, TARGETS
from spear_spec.voice.save import save_voice
from tests.voice.damage import edit


def install(folder: Path, package: str, module: str, code: str, points: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `pip install` leaves: a module, and beside it the metadata with the entry points."""
    about = folder / f"{package.replace('-', '_')}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(points)
    (folder / f"{module}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, module, raising=False)


def test_names_of_three_origins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "[test.things]\ntheirs = things_of_others:thing\nours = things_of_others:thing\n"
    install(tmp_path, "package-of-others", "things_of_others", "thing = 3", points, monkeypatch)
    registry: Registry[Any] = Registry("thing", "test.things", {"ours": "spear_spec.config:WIDEST"})
    assert registry.register("mine", 2) == 2
    assert registry.register("mine", 2) == 2
    assert registry.names() == ("ours", "mine", "theirs")
    assert "things_of_others" not in sys.modules  # read lazily
    assert (registry.get("ours"), registry.get("mine"), registry.get("theirs")) == (2**14, 2, 3)
    assert [registry.package(name) for name in registry.names()] == [None, None, "package-of-others"]
    assert "theirs" in registry and "nobody's" not in registry and 3 not in registry


def test_what_a_registry_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = "[test.things]\ntheirs = things_of_others:thing\nbroken = things_of_others:missing\n"
    install(tmp_path, "package-of-others", "things_of_others", "thing = 3", points, monkeypatch)
    registry: Registry[Any] = Registry("thing", "test.things", {"ours": "spear_spec.config:WIDEST"})
    registry.register("mine", 2)
    with pytest.raises(ConfigError, match="there is a thing 'ours' already"):
        registry.register("ours", 1)
    with pytest.raises(ConfigError, match="there is a thing 'mine' already"):
        registry.register("mine", 3)
    with pytest.raises(ConfigError, match="no thing 'yours'; available: ours, mine, theirs, broken"):
        registry.get("yours")
    with pytest.raises(ConfigError, match="'broken' of package-of-others cannot be imported"):
        registry.get("broken")
    other = tmp_path / "other"
    other.mkdir()
    install(
        other,
        "rival",
        "things_of_a_rival",
        "thing = 4",
        "[test.things]\ntheirs = things_of_a_rival:thing\n",
        monkeypatch,
    )
    with pytest.raises(ConfigError, match=r"claimed by several packages .package-of-others, rival."):
        registry.get("theirs")


def test_a_voice_without_kinds_is_what_ships(voice: Path, original: Path) -> None:
    def strip(config: dict[str, Any]) -> None:
        assert config["t2s"].pop("kind") == "spear-tts"
        assert config["vocoder"].pop("kind") == "unit-vocoder"

    edit(voice, strip)
    bundle, same = open_voice(voice), open_voice(original)
    assert bundle.config == same.config
    assert bundle.config.kinds == {"text": "misaki-en-us", "t2s": "spear-tts", "vocoder": "unit-vocoder"}
    before, after = load_target(same).state_dict(), load_target(bundle).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_config_goes_through_json_and_back(original: Path) -> None:
    config = open_voice(original).config
    assert VoiceConfig.from_dict(config.to_dict()) == config
    assert config.to_dict()["t2s"]["kind"] == "spear-tts" and "kind" not in config.t2s


@pytest.mark.parametrize(("part", "load"), [("t2s", load_target), ("vocoder", load_stage), ("text", load_front_end)])
def test_an_unknown_kind_says_which_package_it_needs(voice: Path, part: str, load: Any) -> None:
    edit(voice, lambda config: config[part].update(kind="flow"))
    with pytest.raises(BundleError, match=r"unknown (target|stage|front end) 'flow'; known are "):
        load(open_voice(voice))
    edit(voice, lambda config: config.update(packages={"flow": "spear-flow"}))
    with pytest.raises(BundleError, match=r"unknown .* 'flow'; install the package spear-flow"):
        load(open_voice(voice))


def test_an_unknown_drafter_says_which_package_it_needs(voice: Path) -> None:
    from spear_spec.voice.drafts import Drafts

    edit(voice, lambda config: config["drafters"].update(oracle={"dim": 32}))
    edit(voice, lambda config: config.update(packages={"oracle": "spear-oracle"}))
    bundle = open_voice(voice)
    with pytest.raises(BundleError, match="unknown drafter 'oracle'; install the package spear-oracle"):
        Drafts(bundle, load_target(bundle).cfg)["oracle"]


def test_no_code_is_named_by_a_voice(voice: Path) -> None:
    edit(voice, lambda config: config["vocoder"].update(kind="spear_spec.voice.kinds:unit_vocoder"))
    with pytest.raises(BundleError, match="unknown stage"):
        load_stage(open_voice(voice))


def test_a_target_of_another_package(
    voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, original: Path
) -> None:
    """Saved, described by its package, loaded again; refused where the package is not installed."""
    code = (
        "from spear_spec.config import T2SConfig\nfrom spear_spec.models.spear_tts import TextToSemantic\n\n\n"
        "class Mine(TextToSemantic):\n    pass\n\n\n"
        "def build(shape, voice):\n    return Mine(T2SConfig.from_dict(shape['inner']))\n"
    )
    install(tmp_path, "spear-mine", "spear_mine", code, "[spear_spec.targets]\nmine = spear_mine:build\n", monkeypatch)
    bundle = open_voice(voice)
    saved = save_voice(
        tmp_path / "saved",
        name="saved",
        licence="CC0-1.0",
        origin="random",
        sample_rate=bundle.config.sample_rate,
        speakers=list(bundle.config.speakers),
        text=bundle.config.text,
        semantic=bundle.config.semantic,
        sampling=bundle.sampling,
        spec=bundle.spec,
        configs={"t2s": {"inner": bundle.config.t2s}, "vocoder": bundle.config.vocoder},
        weights={part: bundle.tensors(part) for part in ("t2s", "vocoder", "centroids")},
        kinds={"t2s": "mine"},
    )
    assert saved.config.packages == {"mine": "spear-mine"}
    target = load_target(saved)
    assert type(target).__name__ == "Mine"
    expected = load_target(open_voice(original)).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in target.state_dict().items())
    monkeypatch.setitem(TARGETS._known, "mine", None)
    del TARGETS._known["mine"]
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    with pytest.raises(BundleError, match="unknown target 'mine'; install the package spear-mine"):
        load_target(open_voice(tmp_path / "saved"))


def test_a_registered_stage(voice: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(STAGES, "_known", dict(STAGES._known))
    STAGES.register("copy", kinds.unit_vocoder)
    edit(voice, lambda config: config["vocoder"].update(kind="copy"))
    assert type(load_stage(open_voice(voice))) is type(
        kinds.unit_vocoder(open_voice(voice).config.vocoder, open_voice(voice).config)
    )


def test_a_voice_is_opened_without_torch(original: Path) -> None:
    code = (
        f"import sys; from spear_spec.voice.bundle import open_voice; open_voice({str(original)!r})\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
