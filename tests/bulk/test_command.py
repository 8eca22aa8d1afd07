"""`say --file big.jsonl`: arguments, exit statuses, the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spear_spec.bulk import run as driver
from spear_spec.bulk.folder import check_folder
from spear_spec.bulk.settings import Settings
from spear_spec.bulk.worker import Worker
from spear_spec.cli import main
from tests.bulk.conftest import Inline
from tests.stubs.schemas import check


@pytest.fixture(autouse=True)
def _inline(monkeypatch: pytest.MonkeyPatch) -> None:
    def crew(settings: Settings, folder: Path, workers: int, ray: str | None) -> Inline:
        return Inline(Worker(settings, str(folder)))

    monkeypatch.setattr(driver, "_crew", crew)


def say(settings: Settings, *args: str) -> int:
    return main(["say", "--voice", str(settings.voice), "--device", "cpu", "--max-tokens", "20", *args])


def test_as_told(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts, folder = tmp_path / "big.jsonl", tmp_path / "out"
    texts.write_text('{"text": "Yes.", "id": "a"}\n{"text": "No."}\n')
    assert say(settings, "--file", str(texts), "--out-dir", str(folder), "--json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    check(result, "bulk/1")
    check(json.loads((folder / "manifest.json").read_text()), "bulk/1")
    assert result["settings"]["spec"]["drafter"] == "none" and result["spoken"] == 2
    assert "2 lines" in captured.err
    assert check_folder(folder)["lines"] == 2
    assert say(settings, "--file", str(texts), "--out-dir", str(folder), "--batch", "2") == 0
    assert "2 lines were there" in capsys.readouterr().err
    assert say(settings, "--file", str(texts), "--out-dir", str(folder), "--seed", "1") == 2
    assert "seed 0, not 1" in capsys.readouterr().err


def test_a_text_file_and_a_line_that_fails(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, folder = tmp_path / "big.txt", tmp_path / "out"
    texts.write_text("Yes.\n...\n")
    assert say(settings, "--file", str(texts), "--out-dir", str(folder), "--workers", "2", "--gamma", "2") == 2
    assert "line 2 (001): there is nothing to speak" in capsys.readouterr().err
    assert (folder / "shards/00000/000.wav").exists()
    assert json.loads((folder / "bulk.json").read_text())["settings"]["spec"]["gamma"] == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["Hello.", "--workers", "2"], "go with --file"),
        (["--file", "a.txt", "--out-dir", "x", "--format", "flac"], "bulk synthesis"),
        (["--file", "a.jsonl"], "--file needs --out-dir"),
        (["--file", "a.jsonl", "--out-dir", "x", "-o", "y.wav"], "-o goes with one text"),
        (["Hello.", "--file", "a.jsonl", "--out-dir", "x"], "not both"),
        (["--file", "a.jsonl", "--out-dir", "x", "--runtime", "graphs"], "eagerly"),
        (["--file", "a.jsonl", "--out-dir", "x", "--timestamps", "srt"], "no timestamps"),
        (["--file", "a.jsonl", "--out-dir", "x", "--speaker", "nobody"], "no speaker 'nobody'"),
        (["--file", "missing.jsonl", "--out-dir", "x"], "cannot read missing.jsonl"),
        (["--file", "a.jsonl", "--out-dir", "a.jsonl"], "cannot write a.jsonl"),
    ],
)
def test_refused(
    settings: Settings, args: list[str], said: str, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.jsonl").write_text('{"text": "Yes."}')
    Path("a.txt").write_text("Yes.")
    assert say(settings, *args) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert not Path("x").exists()
