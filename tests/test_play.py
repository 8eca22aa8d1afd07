"""`say --play` on a device that only takes notes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile

from spear_spec import TTS
from spear_spec.cli import main
from tests.stubs.schemas import check
from tests.stubs.voice import make_voice

TEXT = "Yes. No, not at all."


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path)


class Device(ModuleType):
    """In place of sounddevice. events: what was done, in order; rates: what the device can."""

    def __init__(
        self, rates: tuple[int, ...] = (24000, 48000), present: bool = True, breaks_after: int = 10**6
    ) -> None:
        super().__init__("sounddevice")
        self.events: list[str] = []
        self.heard: list[np.ndarray] = []
        self.rate = 0
        device = self

        class PortAudioError(Exception):
            pass

        class OutputStream:
            def __init__(self, samplerate: int, channels: int, dtype: str) -> None:
                assert (channels, dtype) == (1, "float32")
                if samplerate not in rates:
                    raise PortAudioError("Invalid sample rate")
                device.rate = samplerate

            def write(self, samples: np.ndarray) -> None:
                assert samples.dtype == np.float32 and samples.ndim == 2 and abs(samples).max() <= 1
                if len(device.heard) == breaks_after:
                    raise PortAudioError("Device unavailable")
                device.heard.append(samples[:, 0].copy())

            def __getattr__(self, name: str) -> Any:
                return lambda: device.events.append(name)

        def query_devices(kind: str) -> dict[str, Any]:
            if not present:
                raise PortAudioError("Error querying device -1")
            return {"default_samplerate": float(rates[-1])}

        self.PortAudioError, self.OutputStream, self.query_devices = PortAudioError, OutputStream, query_devices


def run(voice: str, device: ModuleType | None, monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setitem(sys.modules, "sounddevice", device)  # type: ignore[arg-type]
    return main(["say", TEXT, "--voice", voice, "--device", "cpu", "--max-tokens", "20", "--play", *args])


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_all_of_it_is_heard(
    voice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    device = Device()
    assert run(voice, device, monkeypatch, "--json") == 0
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    check(result, "say/1")
    assert result["items"][0]["file"] is None and "played: " in printed.err
    expected = TTS.load(voice, "cpu").synthesize(TEXT, max_tokens=20).samples
    assert device.rate == 24000 and np.array_equal(np.concatenate(device.heard), np.clip(expected, -1, 1))
    assert len(device.heard) > 2  # while it is spoken
    assert device.events == ["start", "stop", "close"]  # stop waits until everything has been heard
    assert list(tmp_path.iterdir()) == []


def test_a_device_with_a_rate_of_its_own(voice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(rates=(48000,))
    assert run(voice, device, monkeypatch) == 0
    expected = TTS.load(voice, "cpu").synthesize(TEXT, max_tokens=20).samples
    heard = np.concatenate(device.heard)
    assert device.rate == 48000 and abs(len(heard) - 2 * len(expected)) <= 2
    both = min(len(heard) // 2, len(expected))
    assert np.corrcoef(heard[: 2 * both : 2], expected[:both])[0, 1] > 0.95


@pytest.mark.parametrize(
    ("device", "message"),
    [
        (Device(present=False), "no sound device"),
        (Device(rates=()), ""),
        (Device(breaks_after=1), "the sound device fails (Device unavailable): write a file instead"),
        (None, "pip install 'spear_spec[play]'"),
    ],
)
def test_no_sound_is_one_clear_line(
    device: Device | None, message: str, voice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if message == "":
        device = Device(rates=(1,))
        message = "the sound device fails"
        device.OutputStream = _refusing(device)
    assert run(voice, device, monkeypatch) == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if "cut off" not in line]
    assert message in line
    if device is not None and device.heard:
        assert device.events == ["start", "abort", "close"]


def _refusing(device: Device) -> Any:
    def stream(**kwargs: Any) -> None:
        raise device.PortAudioError("no")

    return stream


def test_portaudio_is_missing(
    voice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Python part then raises OSError when it is imported."""
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    assert main(["say", TEXT, "--voice", voice, "--play"]) == 2
    assert "libportaudio2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["x", "--play", "-o", "x.wav"], "--play goes without -o"),
        (["--file", "f", "--out-dir", "d", "--play"], "one text"),
    ],
)
def test_play_goes_with_a_text_alone(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["say", *args]) == 2
    assert message in capsys.readouterr().err


def test_reading_options_change_what_is_said(
    voice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--pause, --ssml and --lexicon by the command are those of the library."""
    tts = TTS.load(voice, "cpu")
    Path("own.tsv").write_text("no\t/jɛs/\n")
    usual = ["--voice", voice, "--device", "cpu", "--max-tokens", "20"]
    document = "<speak>Yes.<break time='1s'/> <phoneme ph='jɛs'>No</phoneme>.</speak>"
    for args, text, options in [
        ([TEXT], TEXT, {}),
        ([TEXT, "--pause", ".5"], TEXT, {"pause": 0.5}),
        ([TEXT, "--pause", ".5,1"], TEXT, {"pause": (0.5, 1)}),
        ([TEXT, "--lexicon", "own.tsv"], TEXT, {"lexicon": "own.tsv"}),
        ([document, "--ssml"], document, {"ssml": True}),
    ]:
        assert main(["say", *args, *usual, "-o", "x.wav"]) == 0
        expected = tts.synthesize(text, max_tokens=20, **options).samples  # type: ignore[arg-type]
        found = soundfile.read("x.wav", dtype="float32")[0]
        assert len(found) == len(expected) and np.abs(found - np.clip(expected, -1, 1)).max() < 1e-4
    plain, long = (tts.synthesize(TEXT, max_tokens=20, pause=pause).samples for pause in (None, 0.5))
    assert len(long) - len(plain) == round(0.4 * tts.sample_rate)
    slow = tts.synthesize(f"<speak><prosody rate='50%'>{TEXT}</prosody></speak>", max_tokens=20, ssml=True).samples
    pause = int(0.1 * tts.sample_rate)
    assert len(slow) - pause == pytest.approx(2 * (len(plain) - pause), abs=tts.sample_rate // 25)
    capsys.readouterr()
    for wrong, message in [
        (["<speak><x/></speak>", "--ssml"], "SSML, line 1, column 8: <x>"), ([TEXT, "--pause", "-1"], "pause"),
        ([TEXT, "--pause", "1,2,3"], "pause"), ([TEXT, "--pause", "soon"], "soon"), ([TEXT, "--lexicon", "no"], "no"),
    ]:  # fmt: skip
        assert main(["say", *wrong, *usual, "-o", "y.wav"]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1] and not Path("y.wav").exists()


def test_the_process_ahead_reads_alike(voice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The front end in a process of its own, on a cold start."""
    from spear_spec.cli.front_end import FrontEndProcess
    from spear_spec.text import PhonemeFrontEnd, Reading, read
    from spear_spec.voice.bundle import open_voice

    config = open_voice(voice).config.text
    reading = Reading.of(pause=1, lexicon={"yes": "/nəʊ/"})
    ahead = FrontEndProcess([TEXT], "af_heart", config, reading)
    own = PhonemeFrontEnd.from_dict(config)
    monkeypatch.setattr(ahead._own, "read", None)  # what is not the child's would fail
    found = list(read(ahead, TEXT, "af_heart", reading))
    ahead.close()
    assert found == list(read(own, TEXT, "af_heart", reading))
    assert [segment.pause_s for segment in found] == [0.0, 1.0]
