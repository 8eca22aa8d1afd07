"""What stands on disk: shards whole or not at all, one run a folder, a manifest that can be checked."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spear_spec.bulk import run as driver
from spear_spec.bulk.folder import Folder, check_folder
from spear_spec.bulk.lines import Line
from spear_spec.bulk.settings import Settings
from spear_spec.bulk.shards import cut_shards
from spear_spec.bulk.worker import Worker
from spear_spec.errors import AudioError, ConfigError
from tests.bulk.conftest import Inline


@pytest.fixture
def speak(
    worker: Worker, settings: Settings, lines: list[Line], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    def call(folder: Path = tmp_path / "out", dies: Any = lambda worker, shard: None, **changed: Any) -> dict[str, Any]:
        given = {"lines": lines, "workers": 2, **changed}
        own = replace(settings, **{k: v for k, v in given.items() if k not in ("lines", "workers")})
        worker.folder, worker.settings = Folder(folder), own
        call.crew = Inline(worker, dies)
        monkeypatch.setattr(driver, "_crew", lambda *args: call.crew)
        return driver.speak_lines(given["lines"], own, folder, workers=given["workers"])

    return call


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("packing", ["files", "tar"])
@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_the_manifest(speak: Any, lines: list[Line], worker: Worker, tmp_path: Path, kind: str, packing: str) -> None:
    folder = tmp_path / "out"
    totals = speak(format=kind, packing=packing)
    assert (totals["lines"], totals["spoken"], totals["failed"], totals["shards"]) == (8, 7, 1, 4)
    told = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert [line["id"] for line in told] == [line.id for line in lines]
    assert [line["line"] for line in told] == [line.number for line in lines]
    for line, record in zip(lines, told):
        if line.text == "...":
            assert record["file"] is None and "nothing to speak" in record["error"]
            continue
        audio = worker.choir.tts.synthesize(line.text, seed=3 if line.seed is None else line.seed, max_tokens=40)
        data = audio.encode(f".{kind}")
        if packing == "tar":
            with tarfile.open(folder / record["file"]) as tar:
                assert tar.extractfile(record["member"]).read() == data
        else:
            assert (folder / record["file"]).read_bytes() == data
        assert record["sha256"] == hashlib.sha256(data).hexdigest()
        assert (record["samples"], record["tokens"]) == (len(audio.samples), audio.stats["tokens"])
    assert check_folder(folder)["spoken"] == 7
    subprocess.run(["sha256sum", "-c", "--quiet", "SHA256SUMS"], cwd=folder, check=True)
    assert not (folder / ".work").exists()


def test_again_is_nothing_to_do(speak: Any, tmp_path: Path) -> None:
    first = speak()
    before = tree(tmp_path / "out")
    again = speak()
    assert again["resumed"] == 8 and speak.crew.hired == 0
    assert tree(tmp_path / "out") == before
    assert {k: v for k, v in again.items() if k not in ("resumed", "wall_s")} == {
        k: v for k, v in first.items() if k not in ("resumed", "wall_s")
    }


@pytest.mark.parametrize("how", ["before", "after"])
def test_workers_die(speak: Any, tmp_path: Path, how: str) -> None:
    """Of each shard the first worker dies, before or after it has published it."""
    speak(tmp_path / "quiet")
    met: set[str] = set()

    def dies(worker: int, shard: Any) -> str | None:
        return None if shard.name in met else met.add(shard.name) or how

    totals = speak(dies=dies)
    assert totals["deaths"] == 4
    assert tree(tmp_path / "out") == tree(tmp_path / "quiet")
    assert sorted(speak.crew.done) == ["00000", "00001", "00002", "00003"]


def test_an_idle_worker_takes_what_a_dead_one_left(speak: Any, lines: list[Line], tmp_path: Path) -> None:
    """The last shard's worker dies when nothing else is to do."""
    met: list[int] = []
    totals = speak(
        dies=lambda worker, shard: "before" if shard.name == "00003" and not met.append(1) and len(met) < 2 else None
    )
    assert (totals["deaths"], totals["spoken"]) == (1, 7)
    assert speak.crew.hired <= 3


def test_a_shard_that_kills_is_given_up_and_the_others_stay(speak: Any, tmp_path: Path) -> None:
    with pytest.raises(driver.WorkerError, match=r"1 of 4 shards .* lines 3 to 4"):
        speak(dies=lambda worker, shard: "before" if shard.name == "00001" else None)
    folder = tmp_path / "out"
    assert sorted(path.name for path in (folder / "shards").iterdir()) == ["00000", "00002", "00003"]
    assert not (folder / "manifest.json").exists()
    assert speak()["resumed"] == 6
    check_folder(folder)


@pytest.mark.parametrize(
    "changed", [{"seed": 4}, {"format": "flac"}, {"speed": 1.5}, {"shard_lines": 3}, {"fingerprint": "other"}]
)
def test_other_settings_are_refused(speak: Any, tmp_path: Path, changed: dict[str, Any]) -> None:
    speak()
    before = tree(tmp_path / "out")
    with pytest.raises(ConfigError, match=f"other settings .*{next(iter(changed))}.*--out-dir"):
        speak(**changed)
    assert tree(tmp_path / "out") == before


def test_other_lines_are_refused(speak: Any, lines: list[Line]) -> None:
    speak()
    with pytest.raises(ConfigError, match="other lines"):
        speak(lines=[*lines, Line(9, "new", "New.")])


def test_the_batch_is_no_other_work(speak: Any) -> None:
    speak()
    assert speak(batch=1)["resumed"] == 8


@pytest.mark.parametrize("damage", ["truncated", "missing", "record", "foreign"])
def test_a_damaged_shard_is_done_again(speak: Any, tmp_path: Path, damage: str) -> None:
    speak()
    folder = tmp_path / "out"
    before, shard = tree(folder), folder / "shards" / "00002"
    wav = next(shard.glob("*.wav"))
    if damage == "truncated":
        wav.write_bytes(wav.read_bytes()[:-2])
    elif damage == "missing":
        wav.unlink()
    elif damage == "record":
        (shard / "shard.json").write_text("{")
    else:
        record = json.loads((shard / "shard.json").read_text())
        (shard / "shard.json").write_text(json.dumps({**record, "key": "0"}))
    assert speak()["resumed"] == 6
    assert tree(folder) == before


def test_two_runs_at_once(speak: Any, settings: Settings, lines: list[Line], tmp_path: Path) -> None:
    with (
        Folder(tmp_path / "out").claim(settings, cut_shards(lines, settings)),
        pytest.raises(AudioError, match="another run"),
    ):
        speak()
    speak()


def test_a_full_disk(speak: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One error; the shards that were finished stay, nothing half-made does, and the same call goes on."""
    real, calls = os.fsync, []

    def full(handle: int) -> None:
        if os.readlink(f"/proc/self/fd/{handle}").endswith(".wav"):
            calls.append(handle)
            if len(calls) == 5:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AudioError, match=r"cannot write .*shards.*No space left on device"):
        speak()
    folder = tmp_path / "out"
    there = sorted(path.name for path in (folder / "shards").iterdir())
    assert there and len(there) < 4 and not (folder / ".work").exists() and not (folder / "manifest.json").exists()
    monkeypatch.setattr(os, "fsync", real)
    assert speak()["resumed"] == 2 * len(there)
    speak(tmp_path / "quiet")
    assert tree(folder) == tree(tmp_path / "quiet")


def test_a_folder_that_cannot_be_made(speak: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AudioError, match="cannot write"):
        speak(tmp_path / "file" / "out")


def test_half_a_shard_of_a_dead_run_is_swept_away(speak: Any, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / ".work" / "00000.dead").mkdir(parents=True)
    (folder / ".work" / "00000.dead" / "000.wav").write_bytes(b"RIFF")
    speak()
    assert not (folder / ".work").exists()
    check_folder(folder)


@pytest.mark.parametrize("damage", ["altered", "more", "less", "manifest", "incomplete"])
def test_the_check_has_teeth(speak: Any, tmp_path: Path, damage: str) -> None:
    speak()
    folder = tmp_path / "out"
    wav = next((folder / "shards" / "00002").glob("*.wav"))
    if damage == "altered":
        wav.write_bytes(wav.read_bytes()[:-1] + b"\x55")
    elif damage == "more":
        (wav.parent / "other.wav").write_bytes(b"")
    elif damage == "less":
        wav.unlink()
    elif damage == "manifest":
        manifest = folder / "manifest.jsonl"
        manifest.write_bytes(manifest.read_bytes() + b"\n")
    else:
        (folder / "manifest.json").unlink()
    with pytest.raises(AudioError):
        check_folder(folder)
