"""A document of SSML into a file with chapters: its paragraphs, their pauses, and what is refused."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spear_spec import TTS
from spear_spec.books import open_book, speak_book
from spear_spec.cli import main
from spear_spec.decoding.chance import derive
from spear_spec.errors import TextError
from spear_spec.text import Pauses
from tests.stubs.voice import make_voice

DOCUMENT = """<?xml version="1.0"?>
<speak xmlns:amazon="x" version="1.1">
  <metadata>not spoken <p>at all</p></metadata>
  Before &amp; it.
  <p>One <break time="300ms"/> <sub alias="and two">&lt;2&gt;</sub>.</p>
  <break time="1s"/>
  <p>Three.</p>
  <mark name="The second"/>
  <p><prosody rate="80%">Four.</prosody></p>
  <p> </p>
  <break time="2s"/>
</speak>"""
BLOCKS = [
    [
        "<speak>Before &amp; it.</speak>",
        '<speak><p>One <break time="300ms"></break> <sub alias="and two">&lt;2&gt;</sub>.</p></speak>',
        '<speak><break time="1s"></break>\n  <p>Three.</p></speak>',
    ],
    ['<speak><p><prosody rate="80%">Four.</prosody></p></speak>'],
]


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path)


@pytest.mark.parametrize("name", ["talk.ssml", "talk.txt"])
def test_paragraphs_and_chapters(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(DOCUMENT)
    book = open_book(path, ssml=name.endswith(".txt"))
    assert (book.title, book.ssml) == ("talk", True)
    assert [chapter.title for chapter in book.chapters] == ["talk", "The second"]
    assert [list(chapter.blocks()) for chapter in book.chapters] == BLOCKS


def test_samples_and_pauses(voice: str, tmp_path: Path) -> None:
    tts = TTS.load(voice, "cpu")
    (tmp_path / "b.ssml").write_text(DOCUMENT.replace('<mark name="The second"/>', ""))

    def said(text: str) -> np.ndarray:
        own = derive(5, int.from_bytes(sha256(text.encode()).digest()[:8]), 5)
        samples = tts.synthesize(text, seed=own, max_tokens=4, ssml=True).samples
        return np.clip(np.rint(samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)

    between = np.zeros(int(Pauses().paragraph * tts.sample_rate), np.int16)
    first, second, third, fourth = (said(block) for chapter in BLOCKS for block in chapter)
    speak_book(tts, open_book(tmp_path / "b.ssml"), tmp_path / "b.flac", seed=5, max_tokens=4)
    found = soundfile.read(tmp_path / "b.flac", dtype="int16")[0]
    whole = np.concatenate([first, between, second, third, between, fourth])  # a break is its own pause, no more
    assert len(found) == len(whole) and np.abs(found.astype(int) - whole).max() <= 1


def test_the_command(voice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = tmp_path / "b.txt", tmp_path / "b.m4b"
    source.write_text(DOCUMENT)
    call = ["say", "--voice", voice, "--file", str(source), "-o", str(target), "--max-tokens", "4"]
    assert main([*call, "--ssml"]) == 0
    assert "2 chapters" in capsys.readouterr().err
    source.write_text("<speak><p>One.</p><nonsense/></speak>")
    assert main([*call, "--ssml"]) == 2
    assert "line 1, column 19" in capsys.readouterr().err


def test_what_is_no_document(tmp_path: Path) -> None:
    for name, text in (("b.epub", "<speak>One.</speak>"), ("b.txt", "One."), ("b.txt", "<speak> </speak>")):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(TextError):
            open_book(path, ssml=True)
