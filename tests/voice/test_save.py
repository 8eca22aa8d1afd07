"""Writing a voice: whole or not at all, over an old voice or beside a stranger's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from spear_spec.acoustic.unit.stage import UnitStage
from spear_spec.errors import BundleError
from spear_spec.voice import save
from spear_spec.voice.bundle import Bundle, open_voice
from spear_spec.voice.parts import load_stage
from spear_spec.voice.save import save_voice
from tests.stubs.voice import make_voice
from tests.voice.damage import edit, read_all


def again(source: Bundle, folder: Path, **changes: Any) -> Bundle:
    """Save an opened voice, changed or not, in a folder."""
    config = source.config
    values: dict[str, Any] = {
        "name": config.name,
        "licence": config.licence,
        "origin": config.origin,
        "sample_rate": config.sample_rate,
        "speakers": list(config.speakers),
        "text": config.text,
        "semantic": config.semantic,
        "sampling": source.sampling,
        "spec": source.spec,
        "configs": {"t2s": config.t2s, "vocoder": config.vocoder, "draft": config.draft, **config.drafters},
        "weights": {part: source.tensors(part) for part in config.files},
    }
    return save_voice(folder, **{**values, **changes})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_saving_twice_is_saving_once(original: Path, tmp_path: Path) -> None:
    source = open_voice(original)
    again(source, tmp_path / "one")
    first = contents(tmp_path / "one")
    again(source, tmp_path / "one")
    assert contents(tmp_path / "one") == first
    turned = {part: dict(reversed(source.tensors(part).items())) for part in source.config.files}
    again(source, tmp_path / "many", shard_bytes=70_000)
    again(source, tmp_path / "turned", shard_bytes=70_000, weights=turned)  # the order of the tensors does not matter
    assert contents(tmp_path / "turned") == contents(tmp_path / "many")
    read_all(tmp_path / "one")


def test_a_voice_says_whether_its_vocoder_rounds(original: Path, tmp_path: Path) -> None:
    """Whole numbers in the frame blocks: where the voice says so, and where its stage is told otherwise, not."""
    plain = load_stage(open_voice(original))
    bundle = again(open_voice(original), tmp_path / "rounded", rounded=True)
    assert json.loads((tmp_path / "rounded" / "config.json").read_text())["rounded"] is True
    stage, tokens = load_stage(bundle), torch.arange(12) % 4
    assert isinstance(stage, UnitStage) and isinstance(plain, UnitStage)

    def said(stage: UnitStage) -> torch.Tensor:
        return stage.render(tokens, stage.speakers[0], torch.Generator().manual_seed(0))

    apart = (said(stage) - said(plain)).norm() / said(plain).norm()
    assert 0 < apart < 0.05
    stage.rounded = False
    assert torch.equal(said(stage), said(plain))
    edit(tmp_path / "rounded", lambda config: config.update(rounded=1))
    with pytest.raises(BundleError, match="rounded must be true or false"):
        open_voice(tmp_path / "rounded")


def test_old_shards_go_and_nothing_else(original: Path, tmp_path: Path) -> None:
    source, folder = open_voice(original), tmp_path / "voice"
    make_voice(folder, seed=3, shard_bytes=70_000)  # more shards than the next one has
    listed = {entry["file"] for part in open_voice(folder).config.files.values() for entry in part}
    others = {"mine.safetensors": b"a", "speaker_reference.json": b"b", "t2s-99.safetensors": b"c", ".x.part": b"d"}
    for name, data in others.items():
        (folder / name).write_bytes(data)
    bundle = again(source, folder)
    kept = contents(folder)
    assert {name: kept[name] for name in others} == others
    now = {entry["file"] for part in bundle.config.files.values() for entry in part}
    assert kept.keys() == {*others, *now, "config.json"}
    assert listed - now
    assert all(torch.equal(tensor, source.tensors("t2s")[name]) for name, tensor in bundle.tensors("t2s").items())


def test_a_strangers_file_of_the_same_name_stays(original: Path, tmp_path: Path) -> None:
    (tmp_path / "t2s-1.safetensors").write_bytes(b"a stranger's")
    bundle = again(open_voice(original), tmp_path)
    assert (tmp_path / "t2s-1.safetensors").read_bytes() == b"a stranger's"
    assert "t2s-1.safetensors" not in {entry["file"] for entry in bundle.config.files["t2s"]}
    read_all(tmp_path)


@pytest.mark.parametrize("text", ['{"model_type": "whisper"}', "{", "[]", '{"schema": 3}', ""])
def test_a_config_of_another_project_stays(original: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    before = contents(tmp_path)
    with pytest.raises(BundleError, match="is not of a voice"):
        again(open_voice(original), tmp_path)
    assert contents(tmp_path) == before


def test_an_old_config_deletes_nothing_outside(original: Path, tmp_path: Path) -> None:
    folder = tmp_path / "voice"
    again(open_voice(original), folder)
    (tmp_path / "precious.safetensors").write_bytes(b"a")
    (folder / "notes.txt").write_bytes(b"b")
    edit(folder, lambda c: c["files"].update(x=[{"file": "../precious.safetensors"}, {"file": "notes.txt"}]))
    again(open_voice(original), folder)
    assert (tmp_path / "precious.safetensors").exists() and (folder / "notes.txt").exists()


def test_nan_is_not_written_and_the_old_voice_stays(original: Path, tmp_path: Path) -> None:
    source, folder = open_voice(original), tmp_path / "voice"
    again(source, folder)
    before = contents(folder)
    weights = {part: source.tensors(part) for part in source.config.files}
    weights["t2s"]["start"] = weights["t2s"]["start"].float() + 1e6  # beyond half precision
    with pytest.raises(BundleError, match="'start' holds NaN or values too large"):
        again(source, folder, weights=weights)
    assert contents(folder) == before
    with pytest.raises(BundleError):
        again(source, tmp_path / "new", weights=weights)
    with pytest.raises(BundleError):  # a folder cut short is not a voice
        open_voice(tmp_path / "new")


@pytest.mark.parametrize(
    "changes", [{"name": "a\nb"}, {"speakers": []}, {"sample_rate": 16000}, {"semantic": {"rate": 25}}]
)
def test_what_could_not_be_opened_is_not_written(original: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    source, folder = open_voice(original), tmp_path / "voice"
    again(source, folder)
    before = contents(folder)
    with pytest.raises(BundleError, match="cannot write the voice"):
        again(source, folder, **changes)
    assert contents(folder) == before


@pytest.mark.parametrize("call", range(1, 106, 8))
def test_cut_short_at_any_point(original: Path, tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fails at some write, rename or deletion: the old voice, the new one, or none that can be opened."""
    folder, source = tmp_path / "voice", open_voice(original)
    old = make_voice(folder, seed=3)
    expected = [{part: b.tensors(part) for part in b.config.files} for b in (old, source)]
    count = 0

    def failing(name: str) -> None:
        whole = getattr(Path, name)

        def method(self: Path, *args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += self.parent == folder
            if self.parent == folder and count == call:
                raise OSError(28, "No space left on device")
            return whole(self, *args, **kwargs)

        monkeypatch.setattr(Path, name, method)

    for name in ("write_bytes", "rename", "unlink"):
        failing(name)
    refusal = ""
    try:
        again(source, folder)
    except BundleError as error:
        refusal = str(error)
    assert ("No space left" in refusal) == (count >= call)
    monkeypatch.undo()
    try:
        found = open_voice(folder)
        tensors = {part: found.tensors(part) for part in found.config.files}
    except BundleError:
        assert not (folder / "config.json").exists()
        return
    assert any(
        all(torch.equal(tensor, known[part][name]) for part, held in tensors.items() for name, tensor in held.items())
        for known in expected
    )


def test_a_config_that_is_too_large(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(save, "CONFIG_BYTES", 100)
    with pytest.raises(BundleError, match=r"config\.json would have"):
        again(open_voice(original), tmp_path / "voice")


def test_the_form_of_a_config(original: Path) -> None:
    config = json.loads((original / "config.json").read_text())
    assert config["schema"] == "spear-voice/1"
    assert config["t2s"]["kind"] == "spear-tts" and config["vocoder"]["kind"] == "unit-vocoder"
    assert config["packages"] == {} and "kinds" not in config
