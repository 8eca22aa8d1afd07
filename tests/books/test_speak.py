"""A book into a file: chapters, tags and samples read back; stopped at any moment, it goes on to the same samples."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from spear_spec import TTS
from spear_spec.audio import Audio, to_int16
from spear_spec.books import FORMATS, Book, Chapter, Cover, open_book, speak_book
from spear_spec.books.pieces import Pieces, length, load
from spear_spec.books.speak import CHAPTER_PAUSE_S
from spear_spec.cli import main
from spear_spec.decoding.chance import derive
from spear_spec.errors import AudioError
from spear_spec.text import Pauses
from spear_spec.voice.bundle import open_voice
from tests.books.epubs import picture, write
from tests.stubs.audiolm import RATE, make_stage
from tests.stubs.schemas import check
from tests.stubs.voice import make_voice

LONG = "One word.\n\nTwo.\n\nThree words. More."  # three blocks
BOOK = Book(
    "Tïtle", "Ann One", (Chapter("One", "Yes."), Chapter("Twö", LONG), Chapter("***", "***"), Chapter("End", "No."))
)
OPTIONS: dict[str, Any] = {"max_tokens": 4, "seed": 5}
PIECES = 5


@pytest.fixture(scope="module", autouse=True)
def _small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spear_spec.books.book.BLOCK", 9)
        yield


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path)


@pytest.fixture(scope="module")
def tts(voice: str) -> TTS:
    return TTS.load(voice, "cpu")


@pytest.fixture(scope="module")
def expected(tts: TTS) -> list[np.ndarray]:
    """The samples of each chapter, put together by hand."""

    def said(text: str) -> np.ndarray:
        own = derive(5, int.from_bytes(sha256(text.encode()).digest()[:8]), 5)
        samples = tts.synthesize(text, seed=own, max_tokens=4).samples
        return np.clip(np.rint(samples.astype(np.float64) * 32768), -32768, 32767).astype(np.int16)

    rate = tts.sample_rate
    between, after = (np.zeros(int(s * rate), np.int16) for s in (Pauses().paragraph, CHAPTER_PAUSE_S))
    blocks = list(BOOK.chapters[1].blocks())
    assert len(blocks) == 3
    second = np.concatenate([said(blocks[0]), between, said(blocks[1]), between, said(blocks[2])])
    return [np.concatenate([said("Yes."), after]), np.concatenate([second, after]), said("No.")]


def samples(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="int16")[0]


def test_flac_has_the_samples_of_its_pieces(tts: TTS, expected: list[np.ndarray], tmp_path: Path) -> None:
    spoken = speak_book(tts, BOOK, tmp_path / "b.flac", **OPTIONS)
    found = samples(tmp_path / "b.flac")
    whole = np.concatenate(expected)
    assert len(found) == len(whole)
    assert np.abs(found.astype(int) - whole).max() <= 1  # whoever rounds a half
    assert [(m.title, m.end - m.start) for m in spoken.marks] == list(zip(["One", "Twö", "End"], map(len, expected)))
    assert (spoken.spoken, spoken.found, spoken.seconds) == (PIECES, 0, len(whole) / tts.sample_rate)
    assert [path.name for path in tmp_path.iterdir()] == ["b.flac"]
    head = (tmp_path / "b.flac").read_bytes()[:4000]
    start = len(expected[0]) / tts.sample_rate
    for comment in ("TITLE=Tïtle", "ARTIST=Ann One", "CHAPTER000=00:00:00.000", "CHAPTER001NAME=Twö"):
        assert comment.lower() in head.decode("utf-8", "replace").lower()
    [clock] = re.findall(rb"CHAPTER001=00:00:(\d\d\.\d{3})", head)
    assert float(clock) == pytest.approx(start, abs=0.001)


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_a_file_says_its_chapters(suffix: str, tts: TTS, expected: list[np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / f"b{suffix}"
    book = Book(BOOK.title, BOOK.author, BOOK.chapters, Cover(picture()), "en")
    speak_book(tts, book, path, **OPTIONS)
    starts = [0, *np.cumsum(list(map(len, expected)))]
    with av.open(str(path)) as file:
        chapters = file.chapters()
        kinds = [stream.type for stream in file.streams]
        tags = {**file.metadata, **file.streams.audio[0].metadata}
        frames = list(file.decode(audio=0))
        rate = frames[0].sample_rate
        count = sum(frame.samples for frame in frames)
    assert [chapter["metadata"]["title"] for chapter in chapters] == ["One", "Twö", "End"]
    for chapter, start, end in zip(chapters, starts, starts[1:]):
        base = chapter["time_base"]
        assert float(chapter["start"] * base) == pytest.approx(start / tts.sample_rate, abs=0.002)
        assert float(chapter["end"] * base) == pytest.approx(end / tts.sample_rate, abs=0.05)
    assert count / rate == pytest.approx(starts[-1] / tts.sample_rate, abs=0.06)  # a codec's frame
    assert (tags["title"], tags["artist"]) == ("Tïtle", "Ann One")
    assert ("video" in kinds) == FORMATS[suffix].cover
    if suffix == ".m4b":
        assert tags["major_brand"] == "M4B "


def test_it_sounds_like_what_was_spoken(tts: TTS, expected: list[np.ndarray], tmp_path: Path) -> None:
    """AAC of the samples, at their place: it correlates with them."""
    speak_book(tts, BOOK, tmp_path / "b.m4b", **OPTIONS)
    with av.open(str(tmp_path / "b.m4b")) as file:
        heard = np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])
    whole = np.concatenate(expected).astype(np.float64)
    length = min(len(heard), len(whole))
    assert np.corrcoef(heard[:length], whole[:length])[0, 1] > 0.8


class Stop(BaseException):
    pass


def stopping(after: int) -> Callable[[int], None]:
    told: list[int] = []

    def progress(characters: int) -> None:
        told.append(characters)
        if len(told) == after:
            raise Stop

    return progress


@pytest.mark.parametrize("after", range(1, PIECES + 1))
def test_a_run_that_was_stopped_goes_on(after: int, tts: TTS, tmp_path: Path) -> None:
    path = tmp_path / "b.flac"
    with pytest.raises(Stop):
        speak_book(tts, BOOK, path, progress=stopping(after), **OPTIONS)
    assert not path.exists() and len(list((tmp_path / "b.flac.part").iterdir())) == after
    again = speak_book(tts, BOOK, path, **OPTIONS)
    assert (again.spoken, again.found) == (PIECES - after, after)
    other = tmp_path / "other.flac"
    speak_book(tts, BOOK, other, **OPTIONS)
    assert path.read_bytes() == other.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.flac", "other.flac"]


def killed(run: Callable[[], Any]) -> int:
    """The signal that ended a child in which it was run."""
    pid = os.fork()
    if pid == 0:
        try:
            run()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize(
    "moment", ["before a piece is renamed", "after it", "in the last file", "before it is renamed"]
)
def test_kill_9(moment: str, tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the moments that matter: what is left is whole, and the next run makes the samples of one without a stop."""
    path, clean = tmp_path / "b.flac", tmp_path / "clean.flac"
    speak_book(tts, BOOK, clean, **OPTIONS)
    rename, count = os.replace, 0

    def dying(source: Any, target: Any) -> None:
        nonlocal count
        count += 1
        if (moment, count) in (("before a piece is renamed", 3), ("before it is renamed", PIECES + 1)):
            os.kill(os.getpid(), signal.SIGKILL)
        rename(source, target)
        if (moment, count) == ("after it", 3):
            os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        if moment == "in the last file":
            monkeypatch.setattr("spear_spec.books.speak.load", lambda path: os.kill(os.getpid(), signal.SIGKILL))
        monkeypatch.setattr(os, "replace", dying)
        speak_book(tts, BOOK, path, **OPTIONS)

    assert killed(run) == -signal.SIGKILL
    assert not path.exists()
    again = speak_book(tts, BOOK, path, **OPTIONS)
    assert again.found == {"before a piece is renamed": 2, "after it": 3}.get(moment, PIECES)
    assert path.read_bytes() == clean.read_bytes()
    assert not (tmp_path / "b.flac.part").exists()


def stopped(tts: TTS, path: Path) -> Path:
    """The folder of a run that was stopped after its last piece."""
    with pytest.raises(Stop):
        speak_book(tts, BOOK, path, progress=stopping(PIECES), **OPTIONS)
    return path.with_name(path.name + ".part")


def test_a_piece_without_sound_is_a_piece(tts: TTS, tmp_path: Path) -> None:
    pieces = Pieces(tmp_path / "p", {})
    path = pieces.keep(pieces.key("x"), Audio(np.zeros(0, np.float32), 24000))
    assert pieces.find(pieces.key("x")) == path and length(path) == 0 and load(path).shape == (0,)


def test_damaged_pieces_are_spoken_again(tts: TTS, tmp_path: Path) -> None:
    path = tmp_path / "b.flac"
    folder = stopped(tts, path)
    one, two, three, *_ = sorted(folder.iterdir())
    data = bytearray(one.read_bytes())
    data[-40] ^= 1
    one.write_bytes(data)
    two.write_bytes(two.read_bytes()[:-1])
    three.unlink()
    (folder / "notes.txt").write_text("somebody else's")
    again = speak_book(tts, BOOK, path, **OPTIONS)
    assert (again.spoken, again.found) == (3, 2)
    assert [p.name for p in folder.iterdir()] == ["notes.txt"]
    speak_book(tts, BOOK, tmp_path / "other.flac", **OPTIONS)
    assert path.read_bytes() == (tmp_path / "other.flac").read_bytes()


@pytest.mark.parametrize(
    "change",
    [{"seed": 6}, {"temperature": 0.5}, {"speaker": "am_michael"}, {"pause": 0.5}, {"lexicon": {"yes": "no"}},
     {"max_tokens": 5}, {"batch": 2}],
)  # fmt: skip
def test_pieces_of_other_settings_are_not_used(change: dict[str, Any], tts: TTS, tmp_path: Path) -> None:
    path = tmp_path / "b.flac"
    stopped(tts, path)
    again = speak_book(tts, BOOK, path, **{**OPTIONS, **change})
    assert (again.spoken, again.found) == (PIECES, 0)
    assert not (tmp_path / "b.flac.part").exists()


def test_another_acoustic_stage(tts: TTS, voice: str, tmp_path: Path) -> None:
    """Its rate is the book's, and pieces of the voice's own are not taken for its."""
    stage = make_stage(tmp_path / "stage", open_voice(voice))
    target = tmp_path / "book.flac"
    stopped(tts, target)
    other = TTS.load(voice, "cpu", acoustic=stage)
    spoken = speak_book(other, BOOK, target, **OPTIONS)
    assert (spoken.found, spoken.spoken) == (0, PIECES)
    heard, rate = soundfile.read(target, dtype="int16")
    assert rate == other.sample_rate == RATE
    own = derive(5, int.from_bytes(sha256(b"Yes.").digest()[:8]), 5)
    first = to_int16(other.synthesize("Yes.", seed=own, max_tokens=4).samples)
    np.testing.assert_array_equal(heard[: len(first)], first)


def test_a_changed_paragraph_is_all_that_is_spoken_again(tts: TTS, tmp_path: Path) -> None:
    path = tmp_path / "b.flac"
    stopped(tts, path)
    changed = (Chapter("One", "Maybe."), *BOOK.chapters[1:])
    again = speak_book(tts, Book("T", "", changed), path, **OPTIONS)
    assert (again.spoken, again.found) == (1, PIECES - 1)


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], None]]:
    """No file may grow beyond so many bytes: what a full disk does, one error of the system later."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("suffix", [".flac", ".m4b"])
def test_a_full_disk_loses_nothing(suffix: str, tts: TTS, small_disk: Callable[[int], None], tmp_path: Path) -> None:
    path, folder = tmp_path / f"b{suffix}", tmp_path / f"b{suffix}.part"
    small_disk(1000)
    with pytest.raises(AudioError, match=r"File too large; what was spoken is kept"):
        speak_book(tts, BOOK, path, **OPTIONS)
    assert list(folder.iterdir()) == [] and not path.exists()
    small_disk(resource.RLIM_INFINITY)
    stopped(tts, path)
    pieces = sorted(folder.iterdir())
    small_disk(max(piece.stat().st_size for piece in pieces))
    with pytest.raises(AudioError, match=r"cannot write .*what was spoken is kept"):
        speak_book(tts, BOOK, path, **OPTIONS)
    assert sorted(folder.iterdir()) == pieces and sorted(p.name for p in tmp_path.iterdir()) == [folder.name]
    small_disk(resource.RLIM_INFINITY)
    assert speak_book(tts, BOOK, path, **OPTIONS).found == PIECES


def test_the_command(
    voice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "b.epub")
    usual = ["--voice", voice, "--device", "cpu", "--max-tokens", "4", "--json"]
    assert main(["say", "--file", "b.epub", "-o", "b.m4b", *usual]) == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    check(result, "book/1")
    assert [c["title"] for c in result["chapters"]] == [c.title for c in open_book("b.epub").chapters]
    assert "b.m4b: 3 chapters, 0:00:" in printed.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.epub", "b.m4b"]
    Path("b.txt").write_text("Chapter 1\n\nYes.\n\nChapter 2\n\nNo.")
    assert main(["say", "--file", "b.txt", "-o", "b.flac", *usual, "--pause", ".2,.5"]) == 0
    assert (
        result["audio_s"]
        > json.loads(capsys.readouterr().out)["audio_s"]
        == pytest.approx(soundfile.info("b.flac").duration, abs=1e-3)
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--file", "b.txt", "-o", "b.wav"], "must end in .m4b, .m4a, .flac, .mp3, .opus"),
        (["--file", "b.txt", "-o", "no/b.m4b"], "there is no folder no"),
        (["--file", "b.pdf", "-o", "b.m4b"], "must be one of .txt"),
        (["--file", "-", "-o", "b.m4b"], "say -"),
        (["--file", "b.txt", "-o", "b.m4b", "--ssml"], "SSML, line 1, column 1"),
        (["--file", "b.txt", "-o", "b.m4b", "--play"], "--play"),
        (["Yes.", "--file", "b.txt", "-o", "b.m4b"], "leave out the text"),
        (["--file", "b.txt", "-o", "b.m4b", "--out-dir", "d"], "give either"),
        (["--file", "b.txt", "-o", "b.m4b", "--lexicon", "no.tsv"], "cannot read the lexicon no.tsv"),
    ],
)
def test_bad_input(
    args: list[str], message: str, voice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("b.txt").write_text("Yes.")
    assert main(["say", *args, "--voice", voice, "--device", "cpu"]) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line]
    assert message in line
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]
