"""Bulk synthesis on a local Ray cluster, one of whose workers is killed. `make test-ray` runs this, `make test` does
not: to start a cluster takes longer than all else in it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from spear_spec.bulk.crew import Done, Gone, Ready
from spear_spec.bulk.folder import check_folder
from spear_spec.bulk.lines import Line
from spear_spec.bulk.run import speak_lines
from spear_spec.bulk.settings import Settings
from spear_spec.config import SpecConfig
from spear_spec.errors import BundleError
from spear_spec.tuning.store import fingerprint
from tests.stubs.voice import SAMPLING, make_voice


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    bundle = make_voice(tmp_path_factory.mktemp("bulk") / "tiny")
    return Settings(
        voice=str(bundle.path), name="tiny", fingerprint=fingerprint(bundle.path), speaker="af_heart", version="0",
        sampling=SAMPLING.to_dict(), spec=SpecConfig(drafter="none").to_dict(), shard_lines=4, max_tokens=60,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _short_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", tempfile.mkdtemp(prefix="r", dir=os.environ.get("RAY_TMPDIR", "/tmp")))


def test_a_worker_is_killed(settings: Settings, tmp_path: Path) -> None:
    lines = [Line(n + 1, f"{n:03d}", f"Number {n}. It was late." if n % 9 else "...", seed=n) for n in range(60)]
    pids: dict[int, int] = {}
    done: list[int] = []
    killed: list[int] = []

    def told(event: object) -> None:
        if isinstance(event, Ready):
            pids[event.worker] = event.pid
        elif isinstance(event, Gone):
            assert [event.worker] == killed
        elif isinstance(event, Done):
            done.append(event.worker)
            if set(done) == {0, 1} and not killed:  # the other one is in the middle of a shard
                killed.append(1 - event.worker)
                os.kill(pids[killed[0]], signal.SIGKILL)

    totals = speak_lines(lines, settings, tmp_path / "ray", workers=2, ray="local", told=told)
    assert totals["deaths"] == 1
    assert len(done) == 15
    assert (totals["spoken"], totals["failed"]) == (53, 7)
    speak_lines(lines, settings, tmp_path / "processes")
    names = ("manifest.jsonl", "manifest.json", "SHA256SUMS")
    assert all((tmp_path / "ray" / name).read_bytes() == (tmp_path / "processes" / name).read_bytes() for name in names)
    assert check_folder(tmp_path / "ray")["lines"] == 60


def test_errors_reach_the_driver(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not the one that this run began with"):
        speak_lines([Line(1, "a", "Yes.")], replace(settings, fingerprint="0"), tmp_path / "out", ray="local")


PROGRAM = """
import json, sys
from pathlib import Path
from spear_spec.bulk.lines import Line
from spear_spec.bulk.run import speak_lines
from spear_spec.bulk.settings import Settings
settings, lines, folder = json.loads(sys.argv[1])
speak_lines([Line(**line) for line in lines], Settings.from_dict(settings), Path(folder), workers=2, ray="local")
"""


def test_the_cluster_is_lost(settings: Settings, tmp_path: Path) -> None:
    """Its head and its node are killed in the middle; the same call, here without Ray, goes on."""
    lines = [Line(n + 1, f"{n:03d}", f"Number {n}. It was late.", seed=n) for n in range(600)]
    told = json.dumps([settings.to_dict(), [line.to_dict() for line in lines], str(tmp_path / "out")])
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.Popen([sys.executable, "-c", PROGRAM, told], env=env, stderr=subprocess.PIPE)
    parts: dict[int, str] = {}
    try:
        until = time.monotonic() + 120
        while len(list((tmp_path / "out").glob("shards/*"))) < 4 and time.monotonic() < until:
            time.sleep(0.02)
        for pid in map(int, Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()):
            parts[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
        for pid, name in parts.items():
            if name in ("gcs_server", "raylet"):
                os.kill(pid, signal.SIGKILL)
        assert run.wait(120) != 0
    finally:
        run.kill()
        for pid in parts:  # what the cluster has left behind
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    there = len(list((tmp_path / "out").glob("shards/*")))
    assert 4 <= there < 150
    assert speak_lines(lines, settings, tmp_path / "out")["resumed"] == 4 * there
    assert check_folder(tmp_path / "out")["spoken"] == 600
