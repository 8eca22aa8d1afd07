"""Real workers and a real driver, really killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from spear_spec.bulk import run as driver
from spear_spec.bulk.folder import Folder, check_folder
from spear_spec.bulk.lines import Line
from spear_spec.bulk.run import speak_lines
from spear_spec.bulk.settings import Settings
from spear_spec.bulk.worker import Worker
from spear_spec.errors import BundleError
from tests.bulk.conftest import Inline

PROGRAM = """
import json, sys
from pathlib import Path
from spear_spec.bulk.lines import Line
from spear_spec.bulk.run import speak_lines
from spear_spec.bulk.settings import Settings
settings, lines, folder = json.loads(sys.argv[1])
speak_lines([Line(**line) for line in lines], Settings.from_dict(settings), Path(folder))
"""


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + 120
    while not what():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_worker_and_then_the_driver_are_killed(
    settings: Settings, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL for both, each in the middle of a shard; the next call goes on. Each line once, and not a byte differs
    from a run in peace."""
    lines = [Line(n + 1, f"{n:03d}", f"Number {n}. It was late.", seed=n) for n in range(120)]
    folder, quiet = tmp_path / "out", tmp_path / "quiet"
    told = json.dumps([settings.to_dict(), [line.to_dict() for line in lines], str(folder)])
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    run = subprocess.Popen([sys.executable, "-c", PROGRAM, told], env=env, stderr=subprocess.DEVNULL)

    def children() -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]

    def shards() -> int:
        return len(list(folder.glob("shards/*")))

    try:
        wait_for(lambda: shards() >= 2)
        [first] = children()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: (now := children()) and first not in now)
        there = shards()
        wait_for(lambda: shards() >= there + 2)
        [second] = children()
    finally:
        run.kill()
        run.wait()
    wait_for(lambda: not Path(f"/proc/{second}").exists())  # it ends by itself
    there = shards()
    assert 4 <= there < 60 and not (folder / "manifest.json").exists()
    monkeypatch.setattr(driver, "_crew", lambda *args: Inline(worker))
    for place, resumed in ((folder, 2 * there), (quiet, 0)):
        worker.folder, worker.settings = Folder(place), settings
        assert speak_lines(lines, settings, place)["resumed"] == resumed
    names = ("manifest.jsonl", "manifest.json", "SHA256SUMS")
    assert all((folder / name).read_bytes() == (quiet / name).read_bytes() for name in names)
    assert check_folder(folder)["spoken"] == 120


def test_a_worker_that_cannot_begin(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not the one that this run began with"):
        speak_lines([Line(1, "a", "Yes.")], replace(settings, fingerprint="0"), tmp_path / "out")
