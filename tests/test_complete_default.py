"""What requests that say nothing of completeness get: of a voice that says that it helps, and of others."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spear_spec.cli.main import main
from spear_spec.errors import BundleError
from spear_spec.pipeline import TTS
from spear_spec.voice.bundle import open_voice
from tests.stubs.voice import make_voice
from tests.voice.damage import edit
from tests.voice.test_save import again

TEXT = "A letter came; nobody read it."
SHORT: dict[str, Any] = {"seed": 7, "max_tokens": 40}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_voice(tmp_path_factory.mktemp("voices") / "plain", depth=3).path


@pytest.fixture(scope="module")
def whole(plain: Path) -> Path:
    return again(open_voice(plain), plain.with_name("whole"), complete=True).path


def said(tts: TTS, **options: Any) -> tuple[np.ndarray, int]:
    audio = tts.synthesize(TEXT, **SHORT, **options)
    return audio.samples, audio.stats["redrawn"]


def streamed(tts: TTS, **options: Any) -> np.ndarray:
    return np.concatenate([chunk.samples for chunk in tts.stream(TEXT, **SHORT, **options)])


def test_the_voice_decides(plain: Path, whole: Path) -> None:
    """Whole sentences are drawn again as a whole, streams go back; a request that says otherwise is obeyed."""
    bare, tts = TTS.load(str(plain), "cpu"), TTS.load(str(whole), "cpu")
    on, redrawn = said(tts, complete="on")
    assert redrawn > 0  # random weights leave out words
    for got, want in ((said(tts), on), (said(tts, complete=None), on), (said(bare, complete=True), on)):
        assert got[1] == redrawn
        np.testing.assert_array_equal(got[0], want)
    off, none = said(bare)
    assert none == 0 and not np.array_equal(off, on)
    np.testing.assert_array_equal(said(tts, complete=False)[0], off)
    on_its_way = streamed(tts, complete="stream")
    np.testing.assert_array_equal(streamed(tts), on_its_way)
    assert not np.array_equal(on_its_way, streamed(tts, complete="off"))
    np.testing.assert_array_equal(streamed(bare), streamed(tts, complete="off"))


def test_where_nothing_can_be_drawn_again(whole: Path, tmp_path: Path) -> None:
    """A beam search, and a transformer that does not tell where it is, are left alone."""
    tts = TTS.load(str(whole), "cpu")
    assert said(tts, beam=2)[1] == 0 and len(streamed(tts, beam=2))
    shallow = make_voice(tmp_path / "shallow", depth=2)
    flagged = TTS.load(str(again(shallow, tmp_path / "flagged", complete=True).path), "cpu")
    assert said(flagged)[1] == 0


def test_the_config(plain: Path, whole: Path, tmp_path: Path) -> None:
    """A voice that says nothing reads as it always did."""
    assert open_voice(whole).config.complete and not open_voice(plain).config.complete
    assert "complete" not in json.loads((plain / "config.json").read_text())
    assert json.loads((whole / "config.json").read_text())["complete"] is True
    assert again(open_voice(whole), tmp_path / "not").config.complete is False
    edit(tmp_path / "not", lambda config: config.update(complete="yes"))
    with pytest.raises(BundleError, match="complete must be true or false"):
        open_voice(tmp_path / "not")


def test_the_command(plain: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def redrawn(*asked: str) -> int:
        told = ["say", TEXT, "--seed", "7", "--max-tokens", "40", "--untuned", "-o", str(tmp_path / "a.wav"), "--json"]
        assert main([*told, *asked]) == 0
        [item] = json.loads(capsys.readouterr().out.splitlines()[-1])["items"]
        return int(item["redrawn"])

    usual, wanted = redrawn("--voice", str(whole)), redrawn("--voice", str(whole), "--complete", "on")
    assert usual == wanted > 0 and redrawn("--voice", str(whole), "--complete", "stream") != wanted
    assert redrawn("--voice", str(whole), "--complete", "off") == 0
    os.mkfifo(pipe := tmp_path / "pipe")  # somebody listens
    with ThreadPoolExecutor() as pool:
        heard = pool.submit(pipe.read_bytes)
        assert redrawn("--voice", str(whole), "-o", str(pipe)) == redrawn("--voice", str(whole), "--complete", "stream")
        assert len(heard.result()) > 44
    assert redrawn("--voice", str(whole), "--beam", "2") == 0
    assert redrawn("--voice", str(plain)) == 0


@pytest.mark.parametrize("flags", [[], ["--complete", "off"], ["--complete", "stream"]])
def test_files_of_many_lines(
    plain: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    (tmp_path / "lines.txt").write_text(TEXT + "\n")
    asked = ["say", "--file", str(tmp_path / "lines.txt"), "--workers", "1", "--max-tokens", "40", "--json", *flags]
    for voice, usual in ((whole, "on"), (plain, "off"))[: 1 if flags else 2]:
        assert main([*asked, "--voice", str(voice), "--out-dir", str(tmp_path / voice.name)]) == 0
        settings = json.loads(capsys.readouterr().out.splitlines()[-1])["settings"]
        assert settings["complete"] == (flags[1] if flags else usual)
