"""`say -o x.mp3`, `.opus`, `.m4a`: the sound of the wav file, in a file that appears whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from spear_spec.audio import resample
from spear_spec.cli import main, output
from tests.stubs.voice import make_voice


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path)


TEXT = "Yes. No, not at all. It is so. It is not so. Good."


def say(voice: str, name: str) -> int:
    return main(["say", TEXT, "--voice", voice, "--device", "cpu", "--max-tokens", "25", "-o", name])


@pytest.mark.parametrize("suffix", output.ENCODED)
def test_the_same_sound(suffix: str, voice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert say(voice, "x.wav") == say(voice, f"x{suffix}") == 0
    expected, rate = soundfile.read("x.wav", dtype="float32")
    with av.open(f"x{suffix}") as file:
        frames = list(file.decode(audio=0))
    heard = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    heard = resample(heard / (32768 if heard.dtype == np.int16 else 1), frames[0].sample_rate, rate)
    assert abs(len(heard) - len(expected)) <= 0.06 * rate
    size = len(expected) - 3000
    assert size > 20000
    assert max(np.corrcoef(heard[lag : lag + size], expected[:size])[0, 1] for lag in range(1500)) > 0.8
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["x.wav", f"x{suffix}"])


def test_what_cannot_be_written(
    voice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert say(voice, "x.ogg") == 2
    assert ".mp3, .opus, .m4a" in capsys.readouterr().err

    def failing(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spear_spec.books.write._encoded", failing)
    assert say(voice, "x.mp3") == 2
    assert "cannot write x.mp3: No space left on device" in capsys.readouterr().err
    monkeypatch.setattr(output, "find_spec", lambda name: None)
    assert say(voice, "x.mp3") == 2
    assert "spear_spec[books]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
