"""Voice bundles: what is written is what is read, and damage of every kind is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from spear_spec.errors import BundleError
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.config import PARTS
from spear_spec.voice.drafts import Drafts
from spear_spec.voice.parts import load_parts, load_target
from spear_spec.voice.save import SHARD_BYTES
from spear_spec.voice.search import find_voice, list_voices
from tests.voice.damage import edit, put, read_all


def rewrite(voice: Path, part: str, change: Callable[[dict], None]) -> None:
    """Replace a part's weights by changed ones in a bundle that is otherwise sound."""
    bundle = open_voice(voice)
    weights = {name: bundle.tensors(name) for name in bundle.config.files}
    change(weights[part])
    for shard in bundle.config.files[part]:
        (voice / shard["file"]).unlink()
    put(voice, part, save(weights[part]))


def test_round_trip(original: Path) -> None:
    bundle = open_voice(original)
    _, t2s, stage = load_parts(bundle)
    draft = Drafts(bundle, t2s)["small"]
    for part, module in (("t2s", t2s), ("draft", draft), ("vocoder", stage.module)):
        stored = {}
        for shard in sorted(original.glob(f"{part}-*.safetensors")):
            stored.update(load_file(shard))
        assert stored.keys() == module.state_dict().keys()
        for name, tensor in module.state_dict().items():
            assert tensor.dtype == torch.float32
            assert stored[name].dtype == torch.float16
            torch.testing.assert_close(tensor, stored[name].float(), rtol=0, atol=0)
        assert not module.training
    assert bundle.centroids().shape == (16, 8)
    assert bundle.spec.gamma == 3
    assert bundle.sampling.top_p == 0.95


def test_weights_survive_the_trip_to_disk(tmp_path: Path, original: Path) -> None:
    bundle = open_voice(original)
    t2s = load_target(bundle)
    torch.manual_seed(0)
    fresh = TextToSemantic(t2s.cfg)
    with torch.no_grad():
        fresh.semantic_emb.weight.mul_(0.1)
    for name, tensor in fresh.state_dict().items():
        torch.testing.assert_close(t2s.state_dict()[name], tensor.half().float(), rtol=0, atol=0)


def test_shards_stay_small(original: Path) -> None:
    files = sorted(original.glob("*.safetensors"))
    assert len(files) > len(PARTS)
    assert max(file.stat().st_size for file in files) <= 110_000
    assert SHARD_BYTES == 15 * 2**20


def test_search(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spear_spec.voice.search.INSTALLED", tmp_path / "none")
    with pytest.raises(BundleError, match="no voice 'tiny'"):
        find_voice("tiny")
    with pytest.raises(BundleError, match="kokoro-duo"):
        find_voice(None)
    monkeypatch.setenv("SPEAR_SPEC_VOICES", f"/nonexistent:{original.parent}")
    assert find_voice("tiny") == original
    assert original in list_voices()
    assert find_voice(original) == original


@pytest.mark.parametrize("name", ["", ".", "..", "no-such-voice", "/etc/passwd", "a/b/c"])
def test_not_a_voice(name: str) -> None:
    with pytest.raises(BundleError):
        open_voice(name)


def _truncate(voice: Path) -> None:
    path = voice / "t2s-1.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _flip(voice: Path) -> None:
    path = voice / "vocoder-1.safetensors"
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(bytes(data))


def _pickle(voice: Path) -> None:
    import pickle

    put(voice, "t2s", pickle.dumps({"a": 1}))


def _lfs(voice: Path) -> None:
    (voice / "t2s-1.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "shard missing": (lambda v: (v / "draft-1.safetensors").unlink(), "cannot read .*draft-1.safetensors"),
    "shard truncated": (_truncate, "t2s-1.safetensors is damaged: .* bytes instead of"),
    "one bit flipped": (_flip, "vocoder-1.safetensors is damaged: its checksum"),
    "a pickle for a shard": (_pickle, "not a safetensors file"),
    "lfs pointer": (_lfs, "Git LFS pointer"),
    "no config": (lambda v: (v / "config.json").unlink(), "not a voice|no voice"),
    "config cut short": (
        lambda v: (v / "config.json").write_text((v / "config.json").read_text()[:99]),
        "config.json is damaged",
    ),
    "config is binary": (lambda v: (v / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json is damaged"),
    "another project's folder": (
        lambda v: (v / "config.json").write_text('{"model_type": "whisper"}'),
        "not a voice of spear_spec",
    ),
    "a newer version": (lambda v: edit(v, lambda c: c.update(schema="spear-voice/2")), "another version"),
    "unknown key": (lambda v: edit(v, lambda c: c.update(colour="red")), "unknown key colour"),
    "missing key": (lambda v: edit(v, lambda c: c.pop("licence")), "licence"),
    "unknown model key": (lambda v: edit(v, lambda c: c["t2s"].update(depth=3)), "unknown key depth"),
    "unknown part": (lambda v: edit(v, lambda c: c["files"].update(malware=[])), "unknown part 'malware'"),
    "part without files": (lambda v: edit(v, lambda c: c["files"].pop("vocoder")), "no files for vocoder"),
    "path outside": (
        lambda v: edit(v, lambda c: c["files"]["t2s"][0].update(file="../t2s-1.safetensors")),
        "not the name of",
    ),
    "file entry": (lambda v: edit(v, lambda c: c["files"]["t2s"][0].pop("sha256")), "file entry"),
    "impossible sampling": (lambda v: edit(v, lambda c: c["sampling"].update(top_p=2)), "top_p"),
    "impossible spec": (lambda v: edit(v, lambda c: c["spec"].update(gamma=0)), "gamma"),
    "no speakers": (lambda v: edit(v, lambda c: c.update(speakers=[])), "speaker"),
    "too many speakers": (lambda v: edit(v, lambda c: c.update(speakers=["a", "b", "c"])), "speaker"),
    "sample rate": (lambda v: edit(v, lambda c: c.update(sample_rate=16000)), "sample rate"),
    "foreign vocoder": (lambda v: edit(v, lambda c: c["vocoder"].update(num_semantic_token_ids=99)), "semantic tokens"),
    "another width": (lambda v: edit(v, lambda c: c["t2s"].update(ff_mult=3)), "has shape"),
    "another depth": (lambda v: edit(v, lambda c: c["t2s"].update(target_depth=3)), r"tensor\(s\) missing"),
    "missing tensor": (lambda v: rewrite(v, "t2s", lambda t: t.pop("start")), "missing, the first 'start'"),
    "unknown tensor": (
        lambda v: rewrite(v, "draft", lambda t: t.update(extra=torch.zeros(1))),
        "does not have, the first 'extra'",
    ),
    "NaN": (lambda v: rewrite(v, "t2s", lambda t: t["start"].__setitem__(3, float("nan"))), "'start' holds NaN"),
    "infinity": (
        lambda v: rewrite(v, "vocoder", lambda t: t["prosody_in.bias"].__setitem__(0, float("-inf"))),
        "prosody_in.bias.* holds NaN or inf",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(voice: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    damage(voice)
    with pytest.raises(BundleError, match=message):
        read_all(voice)
