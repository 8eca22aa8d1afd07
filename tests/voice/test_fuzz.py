"""Thousands of small damages: a voice loads as its files say, or a BundleError says why not; never anything else."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from spear_spec.config import T2SConfig
from spear_spec.errors import BundleError
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.drafts import Drafts
from spear_spec.voice.parts import load_stage, load_target
from tests.voice.damage import put

CONFIGS, TEXTS, HEADERS = 500, 200, 300
PARTS = ("t2s", "vocoder", "draft", "medusa", "centroids")
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 65, 10**6, 2**31, 2**63, 10**30, 0.5, 2.0, 1e308, -0.0,
    "", "a", "\x00", "é" * 50, "x" * 10**5, "../x",
    [], [0], [[0]], [1, 2], [None], ["a"], {}, {"a": 1}, {"kind": "x"}, [[[[[[]]]]]], [10**6] * 50,
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything within a JSON value."""
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def mutate(value: Any, chance: random.Random) -> Any:
    """A copy with one thing replaced, left out, moved, repeated or added."""
    changed = copy.deepcopy(value)
    # few of the many places lie in the alphabet and the tree of the heads
    by_head: dict[Any, list[tuple[Any, ...]]] = {}
    for path in places(changed):
        by_head.setdefault(path[:2] if path[0] in ("text", "drafters", "files") else path[0], []).append(path)
    path = chance.choice(by_head[chance.choice(list(by_head))])
    parent = changed
    for key in path[:-1]:
        parent = parent[key]
    last = path[-1]
    action = chance.randrange(6)
    if action == 0:
        del parent[last]
    elif action == 1 and isinstance(parent, dict):
        parent[chance.choice(["kind", "extra", "", "dim", "__class__"])] = parent.pop(last)
    elif action == 2 and isinstance(parent[last], (int, float)) and not isinstance(parent[last], bool):
        parent[last] = chance.choice(
            [parent[last] + 1, parent[last] * 2, -parent[last], float(parent[last]), str(parent[last])]
        )
    elif action == 3 and isinstance(parent, list):
        parent.insert(chance.randrange(len(parent) + 1), parent[last])
    elif action == 4:
        parent[last] = copy.deepcopy(
            parent[chance.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))]
        )
    else:
        parent[last] = chance.choice(VALUES)
    return changed


def loads(voice: Path, parts: tuple[str, ...] = PARTS) -> bool:
    """Whether these parts can be read; each is then what the files hold."""
    began = time.process_time()
    found: dict[str, Any] = {}
    try:
        bundle = open_voice(voice)
        if "t2s" in parts:
            found["t2s"] = load_target(bundle)
        if "vocoder" in parts:
            found["vocoder"] = load_stage(bundle)
        drafts = Drafts(bundle, T2SConfig.from_dict(bundle.config.t2s))
        found |= {part: drafts[name] for name, (part, _) in bundle.config.drafts.items() if part in parts}
        if "centroids" in parts:
            bundle.centroids()
    except BundleError as error:
        refusal: BundleError | None = error
    else:
        refusal = None
    assert time.process_time() - began < 1
    if refusal is not None:
        assert len(str(refusal)) <= 300
        return False
    for part, built in found.items():
        module = getattr(built, "module", built)
        stored: dict[str, torch.Tensor] = {}
        for entry in json.loads((voice / "config.json").read_text())["files"][part]:
            with safe_open(voice / entry["file"], "pt") as file:
                stored |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
        held = module.state_dict()
        assert stored.keys() == held.keys()
        assert all(torch.equal(held[name], tensor.float()) for name, tensor in stored.items())
    return True


def survey(voice: Path, rounds: int, damage: Callable[[random.Random], None], parts: tuple[str, ...] = PARTS) -> int:
    """How many of so many damaged voices loaded."""
    assert loads(voice)  # what is imported for the first does not count
    sound = {name: (voice / name).read_bytes() for name in ("config.json", "draft-1.safetensors")}
    held = 0
    for seed in range(rounds):
        damage(random.Random(seed))
        try:
            held += loads(voice, parts)
        except Exception as error:
            error.add_note(f"seed {seed}: {(voice / 'config.json').read_text()[:3000]}")
            raise
        for name, data in sound.items():  # all that is ever damaged
            if (voice / name).read_bytes() != data:
                (voice / name).write_bytes(data)
    return held


def test_configs(voice: Path) -> None:
    config = json.loads((voice / "config.json").read_text())
    kept = 0

    def damage(chance: random.Random) -> None:
        nonlocal kept
        changed = config
        for _ in range(chance.choice([1, 1, 1, 2, 4])):
            changed = mutate(changed, chance)
        kept += changed == config and str(changed) == str(config)
        (voice / "config.json").write_text(json.dumps(changed))

    held = survey(voice, CONFIGS, damage)
    assert kept < held < CONFIGS / 3, held  # what still loads has another name, licence, law, look-ahead


def test_what_loads_is_what_the_config_says(voice: Path) -> None:
    config = json.loads((voice / "config.json").read_text())
    for seed in range(CONFIGS):
        changed = mutate(config, random.Random(-1 - seed))
        (voice / "config.json").write_text(json.dumps(changed))
        try:
            found = open_voice(voice).config.to_dict()
        except BundleError:
            continue
        for key, value in changed.items():
            if key in ("text", "t2s", "vocoder") and "kind" not in value:
                value = {**value, "kind": found[key]["kind"]}
            assert json.loads(json.dumps(found[key])) == value, key
            assert json.dumps(found[key], sort_keys=True) == json.dumps(value, sort_keys=True), (
                key
            )  # 1 is not 1.0 or true


def test_texts(voice: Path) -> None:
    text = (voice / "config.json").read_bytes()

    def damage(chance: random.Random) -> None:
        data = bytearray(text)
        for _ in range(chance.choice([1, 1, 3, 20])):
            at = chance.randrange(len(data))
            action = chance.randrange(4)
            if action == 0:
                data[at] ^= 1 << chance.randrange(8)
            elif action == 1 and len(data) > 100:
                del data[at : at + chance.randrange(1, 40)]
            elif action == 2:
                data[at:at] = chance.choice(
                    [b"{", b"[", b'"', b",", b"\\", b"\xff", b"9" * 30, b"[" * 3000, b"-", b"e9", b"\x00"]
                )
            else:
                del data[chance.randrange(1, len(data) + 1) :]
        (voice / "config.json").write_bytes(data)

    assert survey(voice, TEXTS, damage) < TEXTS / 2


def test_headers(voice: Path) -> None:
    """Size and checksum are right: only what the header says is wrong."""
    part = "draft"
    whole = (voice / f"{part}-1.safetensors").read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header, body = json.loads(whole[8 : 8 + length]), whole[8 + length :]

    def damage(chance: random.Random) -> None:
        kind = chance.randrange(4)
        if kind == 0:
            data = bytearray(whole)
            for _ in range(chance.choice([1, 2, 8])):
                data[chance.randrange(8 + length)] ^= 1 << chance.randrange(8)
            put(voice, part, bytes(data))
            return
        changed = header
        for _ in range(chance.choice([1, 1, 2])):
            changed = mutate(changed, chance)
        raw = json.dumps(changed).encode()
        told = len(raw) + (chance.choice([-1, 1, 8, 1000, 2**40]) if kind == 1 else 0)
        put(voice, part, told.to_bytes(8, "little") + raw + (body[:-2] if kind == 2 else body))

    assert survey(voice, HEADERS, damage, ("draft",)) < HEADERS / 3
