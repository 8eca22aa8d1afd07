"""Work in shards by Ray Data on a local cluster: the same files as by processes. `make test-ray`."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from spear_spec.errors import SpearSpecError, WorkerError
from spear_spec.training.data.spread import Hands, spread
from tests.stubs.tasks import Note, clips


@pytest.fixture(autouse=True)
def _short_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", tempfile.mkdtemp(prefix="r", dir=os.environ.get("RAY_TMPDIR", "/tmp")))


def test_ray_data_leaves_the_same_files(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    seen.mkdir()

    def run(task: Note, folder: str, hands: Hands) -> list[bytes]:
        return [p.read_bytes() for p in spread(task, clips(23), tmp_path / folder, hands, name="test", shard=5)]

    wanted = run(Note(str(seen)), "alone", Hands(progress=False))
    cluster = Hands(workers=2, ray="local", progress=False)
    assert run(Note(str(seen)), "ray", cluster) == wanted
    assert len(list(seen.iterdir())) >= 2  # this process, and at least one of theirs
    with pytest.raises(SpearSpecError, match="021 cannot be heard"):
        run(Note(str(seen), refuse_at="021"), "refused", cluster)
    with pytest.raises(WorkerError, match="no Ray cluster"):
        run(Note(str(seen)), "nowhere", Hands(ray="127.0.0.1:9", progress=False))
