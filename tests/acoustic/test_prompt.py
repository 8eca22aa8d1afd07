"""Prompts: what is read, what is refused, what a stage gets."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from spear_spec.acoustic.prompt import LEAST_S, MOST_S, SLOWEST_RATE, open_prompt, warn
from spear_spec.acoustic.speech import HOP_S, listen, spread
from spear_spec.audio import Audio, FloatArray, resample
from spear_spec.errors import AudioError
from tests.stubs.speech import RATE, chords, speech


def noise(seconds: float = 3.0, colour: float = 0.0, seed: int = 0) -> FloatArray:
    """Power falls with frequency^colour above 20 Hz."""
    count = int(seconds * RATE)
    bins = np.fft.rfft(np.random.default_rng(seed).standard_normal(count))
    shape = (np.maximum(np.fft.rfftfreq(count, 1 / RATE), 20) / 20) ** (-colour / 2)
    wave = np.fft.irfft(bins * shape, count)
    return (0.1 * wave / wave.std()).astype(np.float32)


def tone(hertz: float = 220.0) -> FloatArray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(3 * RATE) / RATE)).astype(np.float32)


def scale() -> FloatArray:
    """A melody: one note after the other."""
    time = np.arange(RATE // 4) / RATE
    notes = [262, 294, 330, 349, 392, 440, 494, 523] * 2
    return np.concatenate([np.sin(2 * np.pi * note * time) * np.exp(-2 * time) for note in notes]).astype(np.float32)


def rms(samples: FloatArray) -> float:
    return float(np.sqrt(np.square(samples, dtype=np.float64).mean()))


@pytest.mark.parametrize(
    ("samples", "what"),
    [
        (lambda: np.zeros(3 * RATE), "it is silent"),
        (lambda: noise() * 1e-3, "it is silent"),
        (lambda: np.ones(3 * RATE), "it is silent"),  # an offset is no sound
        (noise, "holds noise, not speech"),
        (lambda: noise(colour=1), "holds noise, not speech"),
        (lambda: noise(colour=2), "holds noise, not speech"),
        (tone, "music or a tone"),
        (scale, "music or a tone"),
        (chords, "holds music"),
        (lambda: chords() + 0.3 * noise(4.0) * (np.arange(4 * RATE) % 6000 < 1500), "holds music"),
        (lambda: speech()[RATE : RATE + int(0.4 * RATE)], "s of speech: a prompt needs 1 s or more"),
        (lambda: np.concatenate([np.zeros(RATE), speech()[RATE : RATE + 12_000], np.zeros(RATE)]), "of speech: a"),
        (lambda: speech()[:500], "shorter than a tenth of a second"),
        (lambda: np.where(np.arange(RATE) == 500, np.nan, speech()[:RATE]), "NaN"),
        (lambda: np.zeros(0), "are \\[T\\]"),
        (lambda: np.zeros((4, 3, 2)), "are \\[T\\]"),
    ],
)  # fmt: skip
def test_what_is_no_prompt_is_refused(samples: Any, what: str) -> None:
    with pytest.raises(AudioError, match=what):
        open_prompt((samples(), RATE))


def test_clean_speech_is_taken_as_it_is() -> None:
    prompt = open_prompt((speech(), RATE))
    assert not prompt.warnings
    assert prompt.sample_rate == RATE and prompt.samples.dtype == np.float32
    assert LEAST_S < prompt.speech_s < len(speech()) / RATE
    # the same wave, louder or quieter, without its ends
    ours = prompt.samples[RATE : RATE + 4800]
    at = int(np.correlate(speech(), ours, "valid").argmax())
    theirs = speech()[at : at + 4800] - speech().mean()
    np.testing.assert_allclose(ours / rms(ours), theirs / rms(theirs), atol=1e-3)


def test_silence_at_the_ends_goes_and_pauses_are_short() -> None:
    silence = np.zeros(2 * RATE, dtype=np.float32)
    bare = open_prompt((speech(), RATE)).samples
    padded = open_prompt((np.concatenate([silence, speech(), silence]), RATE)).samples
    assert abs(len(padded) - len(bare)) <= 0.02 * RATE
    broken = open_prompt((np.concatenate([speech(), silence, speech()]), RATE)).samples
    assert len(broken) < 2 * len(bare) + 0.6 * RATE


@pytest.mark.parametrize("gain", [0.01, 0.3, 8.0])
def test_the_level_does_not_matter(gain: float) -> None:
    ours = open_prompt((speech(), RATE)).samples
    theirs = open_prompt((speech() * np.float32(gain), RATE)).samples
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert 0.05 < rms(ours) < 0.1 and np.abs(ours).max() < 1


def test_an_offset_does_not_matter() -> None:
    ours, theirs = (open_prompt((speech() + offset, RATE)).samples for offset in (0.0, 0.2))
    assert abs(float(theirs.mean())) < 1e-3
    np.testing.assert_allclose(theirs, ours, atol=1e-3)


@pytest.mark.parametrize("channels", ["both", "left", "right", "opposite"])
def test_two_channels(channels: str) -> None:
    left, right = {"both": (1, 1), "left": (1, 0), "right": (0, 1), "opposite": (1, -1)}[channels]
    stereo = np.stack([left * speech(), right * speech()], axis=1)
    ours, theirs = open_prompt((speech(), RATE)), open_prompt((stereo, RATE))
    np.testing.assert_allclose(theirs.samples, ours.samples, atol=1e-4)


def test_telephone_speech_is_taken() -> None:
    prompt = open_prompt((resample(speech(), RATE, 8000), 8000))
    assert not prompt.warnings and prompt.sample_rate == 8000
    with pytest.raises(AudioError, match=f"needs {SLOWEST_RATE} or more"):
        open_prompt((resample(speech(), RATE, 6000), 6000))


def test_noise_and_clipping_are_told() -> None:
    power = rms(speech())
    noisy = speech() + noise(len(speech()) / RATE)[: len(speech())] * np.float32(10 * power * 10**-0.5)  # 10 dB below
    assert ["noise" in warning for warning in open_prompt((noisy, RATE)).warnings] == [True]
    clipped = open_prompt((np.clip(speech() * 20, -0.5, 0.5), RATE))
    assert any("clipped" in warning for warning in clipped.warnings)


def test_warnings_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    prompt = open_prompt((np.clip(speech() * 20, -0.5, 0.5), RATE))
    assert prompt.sample_rate == RATE and len(prompt.samples) > RATE
    warn(prompt)
    assert "prompt: the prompt is clipped" in caplog.text


def test_a_long_recording_gives_its_beginning() -> None:
    """Ten minutes: the rest is not looked at."""
    count = int(600 * RATE / len(speech())) + 1
    long = np.tile(speech(), count)
    prompt = open_prompt((long, RATE))
    assert MOST_S - 0.5 < listen(prompt.samples, RATE).speech_s <= MOST_S + 0.5
    long[70 * RATE :] = np.inf  # of the rest nothing is heard, nor seen, but for what is not finite
    with pytest.raises(AudioError, match="NaN or infinite"):
        open_prompt((long, RATE))
    three = open_prompt((speech(), RATE), most_s=3.0)
    assert 2.5 < listen(three.samples, RATE).speech_s <= 3.3


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_files_of_any_kind(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"prompt.{suffix}"
    soundfile.write(path, np.stack([speech(), speech()], axis=1), RATE)
    ours, theirs = open_prompt((speech(), RATE)), open_prompt(path)
    assert theirs.sample_rate == RATE and abs(theirs.speech_s - ours.speech_s) < 0.1
    data = path.read_bytes()
    for source in (str(path), data, io.BytesIO(data)):
        again = open_prompt(source)
        assert again.sha256 == hashlib.sha256(data).hexdigest()
        assert np.array_equal(again.samples, theirs.samples)


def test_samples_have_a_digest_too() -> None:
    digests = [open_prompt(source).sha256 for source in (
        (speech(), RATE), Audio(speech(), RATE), (speech(), RATE - 1), (speech() * 0.5, RATE),
    )]  # fmt: skip
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_what_is_no_file_of_sound(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.wav").write_text("This is no sound.\n" * 100)
    for name, what in (
        ("empty.wav", "cannot read audio"),
        ("text.wav", "cannot read audio"),
        ("none.wav", "No such file"),
    ):
        with pytest.raises(AudioError, match=what):
            open_prompt(tmp_path / name)
    with pytest.raises(AudioError, match="it is a folder"):
        open_prompt(tmp_path)
    for source in (7, None, b"RIFF", ("a", "b"), (speech(),), (speech(), "fast")):
        with pytest.raises(AudioError):
            open_prompt(source)


def test_header_without_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    with pytest.raises(AudioError, match="holds no samples"):
        open_prompt(tmp_path / "none.wav")


def test_pitch_and_period() -> None:
    """Against what a wave was made with."""
    time = np.arange(2 * RATE) / RATE
    for hertz in (80.0, 133.3, 246.9, 390.0):
        voice = sum(np.sin(2 * np.pi * hertz * part * time) / part for part in range(1, 8)).astype(np.float32)  # type: ignore[union-attr]
        heard = listen(0.1 * voice, RATE)
        assert len(heard.level) == pytest.approx(2 / HOP_S, abs=5)
        assert np.median(heard.pitch) == pytest.approx(hertz, rel=0.02)
        assert heard.periodic.min() > 0.95 and heard.flatness < 0.05
    assert listen(noise(), RATE).flatness == pytest.approx(np.exp(-0.5772), abs=0.02)  # of exponential bins: e^-gamma


def test_spread() -> None:
    flags = np.zeros(10, dtype=bool)
    flags[4] = True
    assert np.flatnonzero(spread(flags, 2)).tolist() == [2, 3, 4, 5, 6]
