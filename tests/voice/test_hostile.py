"""A voice folder made to do harm: one line of at most 300 characters, at once, and nothing allocated for it."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spear_spec.errors import BundleError
from spear_spec.voice.bundle import open_voice
from tests.voice.damage import edit, put, read_all

NESTED = "[" * 5000 + "]" * 5000


def refused(voice: Path) -> str:
    """The complaint; a second of computing is the most that it may cost."""
    began = time.process_time()
    with pytest.raises(BundleError) as caught:
        read_all(voice)
    assert time.process_time() - began < 1
    line = str(caught.value)
    assert 0 < len(line) <= 300
    assert line.isprintable()
    return line


@pytest.fixture(scope="module", autouse=True)
def _nothing_is_read_or_allocated(original: Path) -> Any:
    read_all(original)  # what is imported for the first voice does not count
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


SIZES = {
    "t2s": ["num_text_token_ids", "num_semantic_token_ids", "dim", "source_depth", "target_depth", "heads", "dim_head",
            "kv_heads", "ff_mult", "early_exit_layer"],
    "vocoder": ["num_semantic_token_ids", "num_speakers", "sample_rate", "hop", "frames_per_token", "n_fft", "dim",
                "prosody_dim", "expansion", "kernel", "token_right", "prosody_right", "frame_right", "f0_floor",
                "f0_ceil"],
    "draft": ["dim", "depth", "heads", "dim_head", "ff_mult", "target_layers"],
    "medusa": ["dim", "heads", "inner", "tree"],
    "layer_skip": ["attention", "feed_forward"],
    "sampling": ["temperature", "top_k", "top_p", "guidance"],
    "spec": ["drafter", "verifier", "gamma", "num_drafts", "tree", "options"],
    "semantic": ["rate", "k"],
}  # fmt: skip
VALUES = [10**6, 10**9, 10**400, -1, 2.5, 1e300, True, [], [10**6] * 3, {}, "x" * 10**5]
ALLOWED = {
    ("layer_skip", "attention", "[]"), ("layer_skip", "feed_forward", "[]"), ("medusa", "tree", "[]"),
    ("draft", "target_layers", "[]"), ("spec", "options", "{}"), ("sampling", "top_k", "1000000"),
    ("sampling", "guidance", "2.5"), ("sampling", "temperature", "2.5"), ("vocoder", "f0_floor", "2.5"),
}  # fmt: skip


def section(config: dict[str, Any], part: str) -> dict[str, Any]:
    drafters: dict[str, Any] = config["drafters"]
    return drafters[part] if part in drafters else config[part]  # type: ignore[no-any-return]


@pytest.mark.parametrize("part", SIZES)
def test_no_field_is_believed(voice: Path, part: str) -> None:
    edit(voice, lambda config: config["drafters"].update(layer_skip={"attention": [1], "feed_forward": []}))
    sound = (voice / "config.json").read_text()
    for name in SIZES[part]:
        for value in VALUES:
            if (part, name, str(value)) not in ALLOWED:
                edit(voice, lambda config: section(config, part).update({name: value}))  # noqa: B023  called at once
                refused(voice)
                (voice / "config.json").write_text(sound)
    read_all(voice)


LARGEST = {
    "widest": lambda c: c["t2s"].update(dim=2**14, ff_mult=64, heads=256, dim_head=1024, source_depth=64),
    "deepest": lambda c: c["t2s"].update(source_depth=64, target_depth=64),
    "most ids": lambda c: c["t2s"].update(num_text_token_ids=2**20),
    "widest vocoder": lambda c: c["vocoder"].update(dim=2**14, prosody_dim=2**14, expansion=16, num_speakers=10_000),
    "deepest vocoder": lambda c: c["vocoder"].update(frame_right=[1] * 64, token_right=[1] * 64),
    "most heads": lambda c: c["drafters"]["medusa"].update(heads=64, inner=2**14),
    "deepest draft": lambda c: c["draft"].update(depth=64, heads=256, dim_head=1024, ff_mult=64),
    "a matrix of centroids": lambda c: c["semantic"].update(k=2**20),
}


@pytest.mark.parametrize("name", LARGEST)
def test_shapes_are_compared_before_anything_is_allocated(voice: Path, name: str) -> None:
    """Within every bound, and hundreds of gigabytes."""
    edit(voice, LARGEST[name])
    refused(voice)


@pytest.mark.parametrize("text", [
    NESTED, '{"schema":' * 5000, '{"a":' * 5000 + "1" + "}" * 5000,
    '{"schema": "spear-voice/1", "name": ' + NESTED + "}",
    "1" * 100_000, '{"schema": "spear-voice/1", "sample_rate": NaN}', "[" * 10**6,
    '{"schema": "spear-voice/1", "schema": "spear-voice/1"}', "\x00" * 1000, '"\\ud800"', "",
    '{"schema": "spear-voice/1' + "y" * 10**5 + '"}', '{"schema": "spear-voice/1", "' + "y" * 10**5 + '": 1}',
])  # fmt: skip
def test_json_of_any_kind(voice: Path, text: str) -> None:
    (voice / "config.json").write_text(text)
    refused(voice)


def test_a_stack_that_is_almost_full(voice: Path) -> None:
    depth = 20
    (voice / "config.json").write_text('{"schema": "spear-voice/1", "name": ' + "[" * depth + "]" * depth + "}")

    def dive(levels: int) -> None:
        if levels:
            return dive(levels - 1)
        with pytest.raises(BundleError):
            open_voice(voice)

    frame, used = sys._getframe(), 0
    while frame.f_back is not None:
        frame, used = frame.f_back, used + 1
    dive(sys.getrecursionlimit() - used - 60)


def test_a_config_without_end(voice: Path) -> None:
    with (voice / "config.json").open("ab") as file:
        file.truncate(3 * 10**9)
    assert "more than" in refused(voice)


@pytest.mark.parametrize("file", ["config.json", "t2s-1.safetensors", "draft-1.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "zero", "folder", "loop"])
def test_what_is_not_a_file(voice: Path, file: str, kind: str) -> None:
    (voice / file).unlink()
    make: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(voice / file),
        "zero": lambda: (voice / file).symlink_to("/dev/zero"),
        "folder": lambda: (voice / file).mkdir(),
        "loop": lambda: (voice / file).symlink_to(file),
    }
    make[kind]()
    refused(voice)


@pytest.mark.parametrize("size", [3 * 10**9, 2**31, 1_900_000_000])
@pytest.mark.parametrize("told", [True, False])
def test_a_shard_of_gigabytes(voice: Path, size: int, told: bool) -> None:
    """Sparse, with and without its true size in config.json."""
    with (voice / "t2s-1.safetensors").open("ab") as file:
        file.truncate(size)
    if told:
        edit(voice, lambda config: config["files"]["t2s"][0].update(bytes=size))
    refused(voice)


def test_a_shard_of_gigabytes_with_a_header_that_fits_it(voice: Path) -> None:
    size = 1_800_000_000
    header = json.dumps({"start": {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}}).encode()
    path = voice / "t2s-1.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with path.open("ab") as file:
        file.truncate(8 + len(header) + size)
    edit(voice, lambda c: c["files"].update(t2s=[{**c["files"]["t2s"][0], "bytes": 8 + len(header) + size}]))
    assert "missing" in refused(voice)


def test_one_shard_listed_three_thousand_times(voice: Path) -> None:
    edit(voice, lambda config: config["files"].update(t2s=config["files"]["t2s"][:1] * 3000))
    assert "shards; a voice has at most" in refused(voice)
    edit(voice, lambda config: config["files"].update(t2s=config["files"]["t2s"][:1] * 2))
    assert "listed twice" in refused(voice)


@pytest.mark.parametrize("header", [
    {}, [], {"a": 1}, {"start": {"dtype": "F16", "shape": [10**12], "data_offsets": [0, 8]}},
    {"start": {"dtype": "F16", "shape": [4], "data_offsets": [0, 10**15]}},
    {"start": {"dtype": "F16", "shape": [2.0, 2], "data_offsets": [0, 8]}},
    {"start": {"dtype": "F16", "shape": [-2, -2], "data_offsets": [0, 8]}},
    {"start": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}},
    {"x" * 10**5: {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}},
    {"a": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]},
     "b": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}},
    {"start": {"dtype": "F16", "shape": [[]], "data_offsets": [0, 8]}},
])  # fmt: skip
def test_headers_that_lie(voice: Path, header: Any) -> None:
    raw = json.dumps(header).encode()
    put(voice, "t2s", len(raw).to_bytes(8, "little") + raw + bytes(8))
    refused(voice)


@pytest.mark.parametrize("data", [b"", b"\0" * 7, b"\xff" * 8, b"\xff" * 4096, (2**40).to_bytes(8, "little"),
                                  (5000).to_bytes(8, "little") + b"[" * 5000])  # fmt: skip
def test_files_that_have_no_header(voice: Path, data: bytes) -> None:
    put(voice, "t2s", data)
    refused(voice)


@pytest.mark.parametrize("change", [
    lambda c: c.update(name="n" * 10**5), lambda c: c.update(licence="\x1b[2J"), lambda c: c.update(origin="\ud800"),
    lambda c: c.update(speakers=["s" * 10**5]), lambda c: c.update(speakers=["a", "a"]),
    lambda c: c.update(speakers="af_heart"), lambda c: c.update(speakers=[1]),
    lambda c: c["drafters"].update({"d" * 10**5: {}}), lambda c: c["files"].update({"p" * 10**5: []}),
    lambda c: c["files"]["t2s"][0].update(file="f" * 10**5), lambda c: c["files"]["t2s"][0].update(sha256="0" * 10**5),
    lambda c: c["files"]["t2s"][0].update(bytes=float(c["files"]["t2s"][0]["bytes"])),
    lambda c: c["files"]["t2s"][0].update(file="a\0b.safetensors"), lambda c: c["files"].update(t2s=None),
    lambda c: c["t2s"].update(kind="k" * 10**5), lambda c: c["vocoder"].update(kind=["unit-vocoder"]),
    lambda c: c["text"].update(kind=None), lambda c: c["text"].update(symbols=c["text"]["symbols"] * 2),
    lambda c: c["text"].update(symbols=[*c["text"]["symbols"], "x"]), lambda c: c["semantic"].pop("rate"),
    lambda c: c["semantic"].pop("k"), lambda c: c.update(kinds={}), lambda c: c.update(packages={"a": 1}),
    lambda c: c["spec"].update(drafter="d" * 79), lambda c: c["spec"].update(options={"o" * 79: 1}),
    lambda c: c["spec"].update(tree="t" * 199), lambda c: c.update(draft=[]),
])  # fmt: skip
def test_words_that_are_none(voice: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(voice, change)
    refused(voice)


@pytest.mark.parametrize("name", ["a" * 10**5, "a\0b", "~nobody/x", "x/" * 3000, "\ud800"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(BundleError) as caught:
        open_voice(name)
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("voice", [b"tiny", 3, ["tiny"], 2.5])
def test_voices_of_another_type(voice: Any) -> None:
    with pytest.raises(BundleError, match="name or its folder"):
        open_voice(voice)
