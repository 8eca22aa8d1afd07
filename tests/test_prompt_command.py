"""`say --voice-prompt`, `--best-of`, `--provenance`: one text, many lines, a book."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from spear_spec import TTS, __version__
from spear_spec.acoustic.contract import Heard
from spear_spec.acoustic.provenance import provenance, read_provenance
from spear_spec.audio import Audio, wav_header, wav_info
from spear_spec.books import FORMATS
from spear_spec.cli import main
from spear_spec.errors import AudioError
from tests.stubs.hearing import KIND, hearing_voice
from tests.stubs.schemas import check
from tests.stubs.speech import RATE, chords, speech
from tests.stubs.voice import make_voice

TEXT = "Yes, of course. No."
COMMON = ("--device", "cpu", "--max-tokens", "30", "--untuned")


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    tiny = make_voice(tmp_path_factory.mktemp("voices") / "tiny").path
    return str(hearing_voice(tiny, tiny.with_name("hearing")))


@pytest.fixture(scope="module")
def prompt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompt.flac"
    soundfile.write(path, speech(), RATE)
    return path


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def say(*args: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["say", *args, *COMMON, "--json"]) == 0
    result: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return result


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "opus", "m4a"])
def test_a_prompt_and_what_the_file_says(
    suffix: str, voice: str, prompt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (TEXT, "--voice", voice, "--voice-prompt", str(prompt))
    result = say(*asked, "-o", f"one.{suffix}", capsys=capsys)
    check(result, "say/1")
    assert result["prompt"] == {"file": str(prompt), "sha256": digest(prompt)}
    told = {
        "software": f"spear_spec {__version__}",
        "voice": "tiny",
        "speaker": "af_heart",
        "prompt-sha256": digest(prompt),
    }
    assert read_provenance(f"one.{suffix}") == told
    # what other programs see
    with av.open(f"one.{suffix}") as container:
        tags = {**container.metadata, **container.streams.audio[0].metadata}
    [comment] = [value for name, value in tags.items() if name.lower() == "comment"]
    assert comment.startswith("synthetic speech; software=spear_spec ") and digest(prompt) in comment
    assert b"course" not in Path(f"one.{suffix}").read_bytes()  # nothing of the text
    # nothing is in the samples
    say(*asked, "-o", f"two.{suffix}", "--provenance", "off", capsys=capsys)
    assert read_provenance(f"two.{suffix}") is None
    assert np.array_equal(_decoded(f"one.{suffix}"), _decoded(f"two.{suffix}"))


def _decoded(path: str) -> Any:
    with av.open(path) as container:
        return np.concatenate([frame.to_ndarray().ravel() for frame in container.decode(audio=0)])


def test_samples_are_those_of_python(voice: str, prompt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say(TEXT, "--voice", voice, "--voice-prompt", str(prompt), "-o", "one.wav", capsys=capsys)
    tts = TTS.load(voice, "cpu")
    audio = tts.synthesize(TEXT, voice=prompt, max_tokens=30)
    samples, rate = soundfile.read("one.wav", dtype="float32")
    assert rate == audio.sample_rate
    np.testing.assert_allclose(samples, audio.samples, atol=2 / 32768)
    for suffix in ("wav", "flac"):
        audio.save(f"two.{suffix}")
        assert read_provenance(f"two.{suffix}") == read_provenance("one.wav")
    with soundfile.SoundFile("one.wav") as file:
        assert file.software.startswith(f"spear_spec {__version__}") and file.frames == len(samples)
    tts.synthesize(TEXT, max_tokens=5).save("plain.wav")
    assert read_provenance("plain.wav") is None
    tts.synthesize(TEXT, max_tokens=5, provenance=True, voice="am_michael").save("told.wav")
    told = read_provenance("told.wav")
    assert told is not None and (told["speaker"], told["sound"]) == ("af_heart", "am_michael")
    assert "prompt-sha256" not in told


def test_on_without_a_prompt(voice: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(TEXT, "--voice", voice, "--provenance", "on", "-o", "one.wav", capsys=capsys)
    told = read_provenance("one.wav")
    assert told is not None and set(told) == {"software", "voice", "speaker"}
    say(TEXT, "--voice", voice, "-o", "two.wav", capsys=capsys)
    assert read_provenance("two.wav") is None
    assert Path("two.wav").read_bytes()[36:40] == b"data"


def test_a_wav_header_with_tags() -> None:
    """Chunk by chunk."""
    tags = provenance("v;x", "a=b\n", Heard(0, KIND, "ab" * 32))
    assert tags["comment"].endswith(f"; voice=v_x; speaker=a_b_; prompt-sha256={'ab' * 32}")
    assert wav_info({}) == b""
    data = wav_header(8000, 4, wav_info(tags)) + b"\1\0\2\0"
    kind, size, form = struct.unpack("<4sI4s", data[:12])
    assert (kind, size, form) == (b"RIFF", len(data) - 8, b"WAVE")
    chunks, at = [], 12
    while at < len(data):
        name, length = struct.unpack("<4sI", data[at : at + 8])
        chunks.append(name)
        at += 8 + length
        assert length % 2 == 0
    assert at == len(data) and chunks == [b"fmt ", b"LIST", b"data"]
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        assert file.comment == tags["comment"] and file.read(dtype="int16").tolist() == [1, 2]


def test_lines_and_books(voice: str, prompt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("book.txt").write_text("Yes.\n\nNo.\n")
    asked = ("--file", "book.txt", "--voice", voice, "--voice-prompt", str(prompt))
    result = say(*asked, "--out-dir", "lines", capsys=capsys)
    for item in result["items"]:
        told = read_provenance(item["file"])
        assert told is not None and told["prompt-sha256"] == digest(prompt)
    heard = TTS.load(voice, "cpu").synthesize("No.", voice=prompt, max_tokens=30)
    samples, _ = soundfile.read("lines/002.wav", dtype="float32")
    np.testing.assert_allclose(samples, heard.samples, atol=2 / 32768)
    for suffix in FORMATS:
        result = say(*asked, "-o", f"book{suffix}", "--best-of", "2", "--judge", "likelihood", capsys=capsys)
        check(result, "book/1")
        assert result["prompt"]["sha256"] == digest(prompt)
        told = read_provenance(f"book{suffix}")
        assert told is not None and told["prompt-sha256"] == digest(prompt)


def test_pieces_of_another_voice_are_not_taken(voice: str, prompt: Path) -> None:
    """A book goes on with the prompt, the judge and the takes that it began with, and with no others."""
    from spear_spec.books import Book, Chapter, speak_book
    from spear_spec.books.pieces import Pieces

    tts, book = TTS.load(voice, "cpu"), Book("B", "A", (Chapter("One", "Yes.\n\nNo."),))
    other = Heard(77.0, KIND, "00" * 32)
    options: list[dict[str, Any]] = [
        {}, {"voice": prompt}, {"voice": other}, {"voice": "am_michael"}, {"best_of": 2, "judge": "likelihood"},
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pieces, "clear", lambda self: None)
        for given in options:
            assert speak_book(tts, book, "b.flac", max_tokens=5, **given).spoken == 1
        for given in options:
            assert speak_book(tts, book, "b.flac", max_tokens=5, **given).spoken == 0


def test_best_of(voice: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = say(TEXT, "--voice", voice, "--best-of", "3", "--judge", "likelihood", "-o", "best.wav", capsys=capsys)
    check(result, "say/1")
    told = result["items"][0]["best_of"]
    assert told["takes"] == 3 and len(told["sentences"]) == 2


def test_mistakes(voice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soundfile.write("music.wav", chords(), RATE)
    for asked, what in (
        (("--voice-prompt", "none.wav"), "cannot read the prompt none.wav: No such file"),
        (("--voice-prompt", str(tmp_path)), "it is a folder"),
        (("--voice-prompt", "music.wav"), "music.wav holds music"),
        (("--judge", "mos"), "--judge goes with --best-of"),
        (("--best-of", "0"), "0 does not lie in 1 to 64"),
        (("--best-of", "2", "--judge", "mother"), "there is no judge 'mother'"),
    ):
        assert main(["say", TEXT, "--voice", voice, *COMMON, *asked]) == 2
        assert what in capsys.readouterr().err
        assert not Path("out.wav").exists()


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    Path("text.wav").write_text("no sound")
    for name in ("none.wav", "text.wav"):
        with pytest.raises(AudioError, match="cannot read audio"):
            read_provenance(name)
    Audio(speech()[:100], RATE, tags={"comment": "made by hand"}).save("hand.flac")
    assert read_provenance("hand.flac") is None
