"""Work in shards: whoever does it, and wherever it is killed, the files are the same."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest

from spear_spec.errors import AudioError, MissingExtraError, WorkerError
from spear_spec.training.data.spread import Hands, forget, spread
from tests.stubs.tasks import Note, clips

ALONE = Hands(progress=False)
TWO = Hands(workers=2, progress=False)


def run(task: Note, folder: Path, hands: Hands, count: int = 23) -> list[bytes]:
    return [path.read_bytes() for path in spread(task, clips(count), folder, hands, name="test", shard=5)]


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    (tmp_path / "seen").mkdir()
    return tmp_path / "seen"


def test_processes_leave_the_same_files(seen: Path, tmp_path: Path) -> None:
    alone = run(Note(str(seen)), tmp_path / "alone", ALONE)
    assert [len(part.split()) for part in alone] == [5, 5, 5, 5, 3]
    assert b" ".join(alone).decode().split() == [clip.id for clip in clips(23)]
    assert {path.name for path in seen.iterdir()} == {str(os.getpid())}
    together = run(Note(str(seen)), tmp_path / "together", TWO)
    assert together == alone
    assert len(list(seen.iterdir())) > 1
    assert run(Note(str(seen)), tmp_path / "none", TWO, 0) == []
    forget(tmp_path / "together")
    assert not (tmp_path / "together").exists()


def test_what_is_done_is_not_done_again(seen: Path, tmp_path: Path) -> None:
    wanted = run(Note(str(seen)), tmp_path / "out", ALONE)
    (tmp_path / "out" / "000001").unlink()
    (tmp_path / "out" / "000003").write_bytes(b"by hand")
    assert run(Note(str(seen)), tmp_path / "out", ALONE) == [*wanted[:3], b"by hand", wanted[4]]


def test_a_killed_worker_loses_nothing_that_was_finished(seen: Path, tmp_path: Path) -> None:
    wanted = run(Note(str(seen)), tmp_path / "wanted", ALONE)
    task = Note(str(seen), die_at="012")
    with pytest.raises(WorkerError, match="go on"):
        run(task, tmp_path / "out", TWO)
    assert not (tmp_path / "out" / "000002").exists()
    (seen / "alive").touch()
    assert run(task, tmp_path / "out", TWO) == wanted


def test_killed_altogether_and_again(seen: Path, tmp_path: Path) -> None:
    wanted = run(Note(str(seen)), tmp_path / "wanted", ALONE)
    task = Note(str(seen), die_at="017")
    process = multiprocessing.get_context("spawn").Process(target=run, args=(task, tmp_path / "out", ALONE))
    process.start()
    process.join(60)
    assert process.exitcode == -9
    assert {path.name for path in (tmp_path / "out").glob("0*")} == {"000000", "000001", "000002"}
    (seen / "alive").touch()
    assert run(task, tmp_path / "out", ALONE) == wanted


@pytest.mark.parametrize("hands", [ALONE, TWO])
def test_what_a_worker_refuses_is_told(hands: Hands, seen: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="021 cannot be heard"):
        run(Note(str(seen), refuse_at="021"), tmp_path / "out", hands)
    assert (tmp_path / "out" / "000000").exists()


def test_without_ray(seen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"\[ray\]"):
        run(Note(str(seen)), tmp_path / "out", Hands(ray="local", progress=False))
