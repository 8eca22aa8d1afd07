"""Without Ray: one clear line. What needs Ray is in tests/ray."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from spear_spec.bulk.lines import Line
from spear_spec.bulk.run import speak_lines
from spear_spec.bulk.settings import Settings
from spear_spec.errors import ConfigError, MissingExtraError, WorkerError
from spear_spec.serving.ray import Replicas, app


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("spear_spec.cluster.QUIET", {})
    monkeypatch.setattr("spear_spec.cluster.ALONE", {})


def test_bulk(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'spear_spec\[ray\]'"):
        speak_lines([Line(1, "a", "Yes.")], settings, tmp_path / "out", ray="local")


def test_a_cluster_that_is_not_there(settings: Settings, tmp_path: Path) -> None:
    """Told at once: Ray would try for minutes."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for at in (address, f"ray://{address}"):
            with pytest.raises(WorkerError, match=f"no Ray cluster at {at}: Connection refused"):
                speak_lines([Line(1, "a", "Yes.")], settings, tmp_path / "out", ray=at)


def test_serve() -> None:
    with pytest.raises(MissingExtraError, match=r"pip install 'spear_spec\[ray\]'"):
        app({"max_replicas": "4"})


def test_arguments_of_a_deployment() -> None:
    """`serve run` gives them as text."""
    assert Replicas.read({"max_replicas": "4", "target": "2.5", "voice": "7", "log_text": "true"}) == Replicas(
        max_replicas=4, target=2.5, voice="7", log_text=True
    )


@pytest.mark.parametrize(
    "wrong",
    [{"max_replicas": "four"}, {"replicas": 2}, {"min_replicas": 3}, {"streams": 0}, {"target": "NaN"}, {"voice": 7}],
)
def test_arguments_that_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Replicas.read(wrong)
