"""Audio on disk and off, resampling, log-mel against a direct computation."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spear_spec.audio import Audio, load_audio, mel_filterbank, replacing, resample, to_int16, write_atomically
from spear_spec.cli.output import _write_wav
from spear_spec.errors import AudioError, SpearSpecError
from spear_spec.saying import AudioChunk
from spear_spec.serving.encode import ENCODERS


def tone(hertz: float, seconds: float = 0.5, rate: int = 24000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".WAV"])
def test_round_trip(tmp_path: Path, suffix: str) -> None:
    audio = Audio(tone(440), 24000)
    path = audio.save(tmp_path / f"a{suffix}")
    back = load_audio(path)
    assert back.sample_rate == 24000 and back.samples.dtype == np.float32
    assert np.abs(back.samples - audio.samples).max() <= 1.0 / 32767
    assert back.seconds == pytest.approx(0.5)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


def test_sixteen_bits_are_the_same_everywhere() -> None:
    """Files, `say -o -`, a server's pcm and wav, a book's pieces: the nearest 32,768th, and what is read is what was
    rounded.
    """
    rng = np.random.default_rng(0)
    edges = np.array([2, 1, 32767.4, 32767.6, 0.5, 1.5, 0.6, 0.4, 0, -0.4, -0.6, -1.5, -32768, -32769]) / 32768
    samples = np.concatenate([edges, rng.uniform(-1, 1, 5000)]).astype(np.float32)
    wanted = np.array([min(max(round(float(x) * 32768), -32768), 32767) for x in samples])  # to even, as IEEE has it
    assert wanted[:9].tolist() == [2, 1, 32767, 32767, 0, 2, 1, 0, 0]
    assert to_int16(samples).dtype == np.dtype("<i2")
    chunks = [AudioChunk(samples[:999], 24000, 0, ""), AudioChunk(samples[999:], 24000, 0, "")]
    spoken = io.BytesIO()
    _write_wav(spoken, chunks)
    for told in (
        to_int16(samples),
        soundfile.read(io.BytesIO(Audio(samples, 24000).encode(".wav")), dtype="int16")[0],
        soundfile.read(io.BytesIO(Audio(samples, 24000).encode(".flac")), dtype="int16")[0],
        np.frombuffer(spoken.getvalue()[44:], "<i2"),
        np.frombuffer(ENCODERS["pcm"](24000).feed(samples), "<i2"),
        np.frombuffer(ENCODERS["wav"](24000).feed(samples)[44:], "<i2"),
    ):
        np.testing.assert_array_equal(told, wanted)
    back = soundfile.read(io.BytesIO(spoken.getvalue()), dtype="float32")[0]
    np.testing.assert_array_equal(back, wanted.astype(np.float32) / 32768)
    with pytest.raises(AudioError, match="NaN"):
        to_int16(np.array([0, np.nan], np.float32))


def test_stereo_is_mixed_and_the_rate_converted(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "s.wav", np.stack([tone(300), np.zeros(12000, np.float32)], axis=1), 24000)
    audio = load_audio(tmp_path / "s.wav", 16000)
    assert audio.sample_rate == 16000 and len(audio.samples) == 8000
    assert np.abs(audio.samples[500:-500]).max() == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(("source", "target"), [(24000, 16000), (16000, 24000), (24000, 24000)])
def test_resampling_keeps_a_tone(source: int, target: int) -> None:
    out = resample(tone(1000, rate=source), source, target)
    expected = tone(1000, rate=target)
    assert abs(len(out) - len(expected)) <= 1
    middle = slice(400, min(len(out), len(expected)) - 400)
    assert np.abs(out[middle] - expected[middle]).max() < 2e-3


def test_resampling_down_removes_what_does_not_fit() -> None:
    assert np.abs(resample(tone(10000), 24000, 16000)[500:-500]).max() < 1e-3


def test_filters_have_unit_area_and_slaney_spacing() -> None:
    filters = mel_filterbank(24000, 4096, 40)
    area = filters.sum(axis=1) * 24000 / 4096
    assert np.allclose(area, 1.0, atol=0.02)
    peaks = filters.argmax(axis=1) * 24000 / 4096
    low = np.diff(peaks[peaks < 900])
    assert np.allclose(low, low[0], atol=8)
    high = peaks[peaks > 1500]
    assert np.allclose(high[1:] / high[:-1], high[-1] / high[-2], atol=0.01)


def test_bad_paths(tmp_path: Path) -> None:
    audio = Audio(tone(440), 24000)
    for path in (tmp_path / "a.mp3", tmp_path / "missing" / "a.wav", tmp_path):
        with pytest.raises(AudioError):
            audio.save(path)
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(AudioError):
            load_audio(path)
    (tmp_path / "text.wav").write_text("this is no audio")
    with pytest.raises(AudioError):
        load_audio(tmp_path / "text.wav")
    assert issubclass(AudioError, SpearSpecError)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.wav"
    Audio(tone(440), 24000).save(target)
    before = target.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(AudioError, match="No space left"):
        Audio(tone(220), 24000).save(target)
    assert target.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


def test_a_full_device_is_reported() -> None:
    if not Path("/dev/full").exists():
        pytest.fail("this test wants Linux's /dev/full")
    with pytest.raises(AudioError, match="/dev/full"):
        write_atomically(Path("/dev/full"), b"x" * 100_000)


def test_written_files_have_ordinary_permissions(tmp_path: Path) -> None:
    path = Audio(tone(440), 24000).save(tmp_path / "a.wav")
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_permissions_follow_the_umask_which_is_never_changed(tmp_path: Path, umask: str) -> None:
    code = (
        "import os, threading; from pathlib import Path; from spear_spec.audio import write_atomically\n"
        "def refuse(_): raise AssertionError('the umask belongs to the process')\n"
        f"os.umask(0o{umask}); os.umask = refuse; write_atomically(Path({str(tmp_path / 'a')!r}), b'x')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666 & ~int(umask, 8)


def test_what_is_raised_while_writing_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def stopped() -> None:
        with replacing(tmp_path / "a") as file:
            file.write(b"half")
            assert len(list(tmp_path.iterdir())) == 2
            raise SystemExit

    with pytest.raises(SystemExit):
        stopped()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"old")]


def test_bad_samples() -> None:
    with pytest.raises(AudioError):
        Audio(np.zeros((2, 2), np.float32), 24000)
    with pytest.raises(AudioError):
        Audio(np.zeros(2, np.float32), 0)
    with pytest.raises(AudioError):
        Audio(np.array([0.0, np.nan], np.float32), 24000).encode()
