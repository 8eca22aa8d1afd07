"""`spear-spec serve` as a process: it says where it listens, answers, and ends as it is told."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from spear_spec.cli import serve
from spear_spec.cli.options import build_parser
from spear_spec.errors import ConfigError
from tests.stubs.voice import make_voice

ROOT = Path(__file__).parents[2]


class Process:
    """A server in a folder of its own; `lines` is what it has said so far."""

    def __init__(self, folder: Path, *flags: str, **environment: str) -> None:
        for part in ("work", "tmp"):
            (folder / part).mkdir()
        self.folder, self.lines = folder, list[str]()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "spear_spec", "serve", "--port", "0", *flags],
            cwd=folder / "work",
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(folder / "tmp"),
                "HOME": str(folder),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r" at (http://\S+) after ", line):
                self.url = found[1]
                break
        else:
            raise AssertionError("".join(self.lines))
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr or ()), daemon=True)
        self._reader.start()

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        status = self.process.wait(20)
        self._reader.join(5)
        return status

    def left(self) -> list[Path]:
        return [path for part in ("work", "tmp") for path in (self.folder / part).rglob("*")]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path)


@pytest.fixture
def server(voice: str, tmp_path: Path) -> Iterator[Process]:
    (tmp_path / "keys").write_text("sk-file\n")
    flags = ("--voice", voice, "--device", "cpu", "--voice-name", "onyx=am_michael", "--max-characters", "60")
    one = Process(tmp_path, *flags, "--api-key-file", str(tmp_path / "keys"), SPEAR_SPEC_API_KEYS="sk-variable")
    yield one
    one.process.kill()
    one.process.wait()


def test_from_start_to_end(server: Process) -> None:
    body = {"input": "Yes, zymurgy.", "voice": "onyx", "seed": 3, "response_format": "pcm"}
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/audio/speech", json=body).status_code == 401
        heard = []
        for key in ("sk-file", "sk-variable"):
            answer = client.post("/v1/audio/speech", json=body, headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == 200 and answer.headers["x-spear-spec-voice"] == "am_michael"
            heard.append(answer.content)
        assert heard[0] == heard[1] and len(heard[0]) > 1000
        long = client.post("/v1/audio/speech", json={"input": "a" * 61}, headers={"Authorization": "Bearer sk-file"})
        assert long.json()["error"]["code"] == "string_above_max_length"
    assert server.end(signal.SIGTERM) == 0
    said = "".join(server.lines)
    assert "ended=done" in said and "zymurgy" not in said and "sk-" not in said and "Traceback" not in said
    assert server.process.stdout is not None and server.process.stdout.read() == ""
    assert server.left() == []


def test_options_reach_the_scheduler(voice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    class Enough(Exception):
        pass

    def scheduler(tts: Any, limits: Any, *, complete: bool | str, best_of: int, judge: str | None) -> None:
        asked.append((complete, best_of, judge, limits.takes))
        raise Enough

    monkeypatch.setattr("spear_spec.serving.scheduler.Scheduler", scheduler)
    for flags in (
        [],
        ["--complete", "on"],
        ["--complete", "stream", "--best-of", "12", "--judge", "likelihood"],
    ):
        with pytest.raises(Enough):
            serve.run(build_parser().parse_args(["serve", "--voice", voice, "--port", "0", *flags]))
    assert asked == [(False, 1, None, 8), (True, 1, None, 8), ("stream", 12, "likelihood", 12)]
    with pytest.raises(ConfigError, match="there is no judge"):
        serve.run(build_parser().parse_args(["serve", "--voice", voice, "--port", "0", "--judge", "nobody"]))
