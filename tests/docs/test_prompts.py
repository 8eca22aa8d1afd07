"""docs/prompts.md: its Python runs and does what it says, its commands are ones."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import spear_spec
from spear_spec.cli.options import build_parser, normalise
from tests.docs.test_pages import DOCS, blocks
from tests.stubs.hearing import hearing_voice
from tests.stubs.speech import RATE, speech
from tests.stubs.voice import make_voice

PAGE = "prompts.md"
LOAD = spear_spec.TTS.load


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page's code has defined, run from top to bottom beside a recording of Anna."""
    tiny = make_voice(tmp_path / "tiny").path
    voice = str(hearing_voice(tiny, tmp_path / "hearing"))
    monkeypatch.setattr(spear_spec.TTS, "load", lambda *args, **kwargs: LOAD(voice, "cpu"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("spear_spec.acoustic.takes.JUDGED_S", 0.0)
    soundfile.write("anna.wav", speech(), RATE)
    found: dict[str, Any] = {"__name__": "page"}
    for block in blocks(PAGE, "python"):
        exec(compile(block, PAGE, "exec"), found)
    return found


def test_its_code_runs(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    tts, told = names["tts"], names["told"]
    assert names["anna"].sha256 in names["audio"].tags["comment"]
    by_takes = {"best_of": 4, "judge": "likelihood"}
    one, two = (
        [chunk.samples for chunk in tts.stream("Hello there. How are you?", **options) if chunk.sentence == 0]
        for options in (by_takes, {"seed": told["sentences"][0]["seed"]})
    )
    assert np.array_equal(np.concatenate(one), np.concatenate(two))
    [quick] = names["quick"].stats["best_of"]["sentences"]
    assert quick["judge"] == "quick" and quick["scores"][quick["chosen"]] == max(quick["scores"])
    assert spear_spec.acoustic.provenance.read_provenance("hello.wav").keys() == {
        "software", "voice", "speaker", "prompt-sha256",
    }  # fmt: skip


def test_its_commands_are_ones() -> None:
    text = (DOCS / PAGE).read_text("utf-8")
    commands = re.findall(r"^    spear-spec (.*)$", text, re.M)
    assert len(commands) >= 6
    for command in commands:
        build_parser().parse_args(normalise(shlex.split(command)))


def test_lines_are_not_too_long() -> None:
    assert all(len(line) <= 150 for line in (DOCS / PAGE).read_text("utf-8").splitlines())
