"""docs/reading.md: its code runs, its commands work, its tables say what there is. On a tiny voice."""

from __future__ import annotations

import io
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

import spear_spec
from spear_spec.books import FORMATS
from spear_spec.cli import main
from spear_spec.text import Pauses
from spear_spec.text.say_as import DATES, KINDS
from spear_spec.text.ssml import RATES, READ_THROUGH, SKIPPED, STRENGTHS
from tests.books.epubs import write
from tests.stubs.voice import make_voice
from tests.test_play import Device

LOAD = spear_spec.TTS.load
PAGE = (Path(__file__).parents[2] / "docs" / "reading.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path)


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [lexicon], [document] = blocks("tsv"), blocks("xml")
    Path("own.tsv").write_text(lexicon, encoding="utf-8")
    Path("pie.ssml").write_text(document, encoding="utf-8")
    Path("book.md").write_text("# One\n\nYes.\n\n# Two\n\nNo.\n")
    write(Path("book.epub"))


def test_its_code_runs(voice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(spear_spec.TTS, "load", lambda *args, **kwargs: LOAD(voice, "cpu"))
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks("python"):
        exec(compile(block, "reading.md", "exec"), names)
    assert capsys.readouterr().out.startswith("['One', 'Two'] ")
    assert Path("book.m4b").exists()


@pytest.mark.parametrize("command", re.findall(r"^    spear-spec (say .*)$", PAGE, re.M))
def test_its_commands_work(command: str, voice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", Device())
    command, _, source = command.partition(" < ")
    if source:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path(source).read_bytes())))
    args = shlex.split(command)
    assert main([*args, "--voice", voice, "--device", "cpu", "--max-tokens", "20"]) == 0
    if "-o" in args:
        assert Path(args[args.index("-o") + 1]).stat().st_size > 100


def test_its_tables_are_complete() -> None:
    rows = {row[0]: row[1] for row in re.findall(r"^\| (.*?) \| (.*) \|$", PAGE, re.M)}
    [strengths] = [v for k, v in rows.items() if "strength" in k]
    for name, seconds in STRENGTHS.items():
        assert re.search(rf"\b{name} (\(.*?\) )?{f'{seconds:g}'.lstrip('0') or '0'}\b", strengths), name
    [rates] = [v for k, v in rows.items() if "prosody rate" in k]
    for name, rate in RATES.items():
        assert name == "default" or f"{name} {f'{rate:g}'.removeprefix('0')}" in rates
    [kinds] = [v for k, v in rows.items() if "say-as" in k]
    assert set(re.findall(r"[a-z-]+", kinds)) >= {*KINDS, *DATES, "yyyymmdd"}
    [through] = [k for k in rows if "<emphasis>" in k]
    assert set(re.findall(r"<(\w+)>", through)) == set(READ_THROUGH)
    [skipped] = [k for k in rows if "<metadata>" in k]
    assert set(re.findall(r"<(\w+)>", skipped)) == set(SKIPPED)
    assert all(f"`{suffix}`" in PAGE for suffix in FORMATS)
    assert (Pauses().sentence, Pauses().paragraph) == (0.1, 0.4) and "they are .1 and .4" in PAGE


def test_its_lines_are_not_longer_than_a_screen() -> None:
    assert all(len(line) <= 140 for line in PAGE.splitlines() if not line.startswith("|"))
