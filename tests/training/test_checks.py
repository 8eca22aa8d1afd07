"""What makes a clip unfit: each fault alone, in a file of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from spear_spec.training.data.checks import Limits, clipped_share, examine, measure, missing_bytes
from spear_spec.training.data.corpus import Clip

RATE = 16000


def speech(seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(np.arange(int(seconds * RATE)) / 20)).astype(np.float32)


def clip(path: Path, phonemes: str | None = "hɛlˈO wˈɜɹld.") -> Clip:
    return Clip(path.name, "a", "Hello world.", str(path), phonemes)


def write(path: Path, samples: np.ndarray, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, RATE, subtype=subtype)
    return path


def reason(path: Path, phonemes: str | None = "hɛlˈO wˈɜɹld.", **limits: object) -> str | None:
    return examine(clip(path, phonemes), Limits(**limits))[1]


def test_a_sound_clip_and_one_of_each_fault(tmp_path: Path) -> None:
    good = write(tmp_path / "good.wav", speech())
    assert examine(clip(good), Limits()) == (1.0, None)
    (tmp_path / "junk.wav").write_bytes(b"junk" * 99)
    loud = speech()
    loud[100:400] = 1.0
    bad = {
        "junk.wav": "audio: unreadable",
        write(tmp_path / "short.wav", speech(0.2)).name: "0.20 s long",
        write(tmp_path / "long.wav", speech(2.0)).name: "2.00 s long",
        write(tmp_path / "loud.wav", loud).name: "clipped: 1.88 % of the samples",
        write(tmp_path / "silent.wav", speech() / 1000).name: "silent",
        write(tmp_path / "nan.wav", np.where(np.arange(RATE) == 9, np.nan, speech()), "FLOAT").name: "not finite",
    }
    limits = Limits(shortest=0.3, longest=1.5)
    kept, dropped = measure([clip(tmp_path / name) for name in ("good.wav", *bad, "none.wav")], limits, progress=False)
    assert [(each.id, each.seconds) for each in kept] == [("good.wav", 1.0)]
    told = dict(dropped)
    assert told.keys() == {*bad, "none.wav"}
    for name, words in bad.items():
        assert words in told[name], name


@pytest.mark.parametrize("lost", [1, 1000, 31_000])
def test_a_truncated_wav_is_told_by_its_header(lost: int, tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", speech())
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    assert missing_bytes(path) == lost
    assert reason(path, shortest=0.01) == f"truncated: {lost} bytes of audio are missing"
    at = whole.index(b"data") + 4
    for size in (b"\xff\xff\xff\xff", b"\0\0\0\0"):  # written to a pipe
        path.write_bytes(whole[:at] + size + whole[at + 4 :])
        assert missing_bytes(path) == 0
    extra = whole[:12] + b"LIST\x03\0\0\0abc\0" + whole[12:-lost]  # a chunk of odd length in front
    path.write_bytes(extra)
    assert missing_bytes(path) == lost


def test_a_truncated_flac(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, RATE)
    path = write(tmp_path / "a.flac", samples)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert missing_bytes(path) == 0
    assert (reason(path) or "").startswith(("truncated", "audio: unreadable"))


def test_clipping_is_at_full_scale_and_flat() -> None:
    samples = np.zeros((1000, 2), np.float32)
    samples[::2, 0] = 1.0  # peaks, each alone
    assert clipped_share(samples) == 0
    samples[500:504, 1] = -1.0
    assert clipped_share(samples) == pytest.approx(0.004)


def test_pace_tells_another_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", speech())
    assert reason(path, "hɛlˈO wˈɜɹld.", pace=(4, 9)) is None
    assert reason(path, "hɛlˈO wˈɜɹld.", pace=(4, 7)) == "mistranscribed: 9.0 phones a second"
    assert reason(path, "hˈI.", pace=(4, 9)) == "mistranscribed: 2.0 phones a second"
    assert reason(path, None, pace=(4, 9)) is None
