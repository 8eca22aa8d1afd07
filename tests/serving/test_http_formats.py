"""Every format, decoded by somebody else's decoder, says what was spoken; one header a stream."""

from __future__ import annotations

import io
import struct

import av
import numpy as np
import pytest
import soundfile

from spear_spec.audio import Audio, to_int16
from spear_spec.serving.encode import ENCODERS, MEDIA_TYPES
from tests.serving.live import live
from tests.serving.stub_scheduler import PIECE, RATE, StubScheduler, sine

LOSSY = ("mp3", "opus", "aac")


def speech() -> np.ndarray:
    """float32 [T] like speech: noise and tones that come and go."""
    chance, at = np.random.default_rng(3), np.arange(3 * RATE) / RATE
    tone = sum(np.sin(2 * np.pi * f * at + f) / k for k, f in enumerate((130, 260, 520, 1100, 2300), 1))
    loud = np.clip(np.sin(2 * np.pi * 1.7 * at), 0, 1) ** 2
    return (0.25 * loud * tone + 0.01 * chance.standard_normal(len(at))).astype(np.float32)


def in_pieces(name: str, samples: np.ndarray, lengths: tuple[int, ...] = (7680,)) -> list[bytes]:
    encoder, out, at, turn = ENCODERS[name](RATE), [], 0, 0
    while at < len(samples):
        step = lengths[turn % len(lengths)]
        out.append(encoder.feed(samples[at : at + step]))
        at, turn = at + step, turn + 1
    return [*out, encoder.finish()]


def decoded(data: bytes) -> np.ndarray:
    """float32 [T] at 24 kHz, by FFmpeg."""
    with av.open(io.BytesIO(data)) as container:
        to = av.AudioResampler(format="flt", layout="mono", rate=RATE)
        frames = [out for frame in container.decode(audio=0) for out in to.resample(frame)]
        frames += to.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def check_flac(data: bytes, wanted: np.ndarray) -> None:
    """By FFmpeg: libsndfile wants a header that says how long it is, which no stream can."""
    np.testing.assert_array_equal(np.rint(decoded(data) * 32768), wanted)


@pytest.mark.parametrize("lengths", [(7680,), (1, 4097, 24000)])
def test_without_loss_to_the_bit(lengths: tuple[int, ...]) -> None:
    samples = speech()
    wanted = soundfile.read(io.BytesIO(Audio(samples, RATE).encode(".wav")), dtype="int16")[0]
    flac = b"".join(in_pieces("flac", samples, lengths))
    wav = b"".join(in_pieces("wav", samples, lengths))
    pcm = b"".join(in_pieces("pcm", samples, lengths))
    check_flac(flac, wanted)
    np.testing.assert_array_equal(np.frombuffer(pcm, "<i2"), wanted)
    assert wav[44:] == pcm
    read, rate = soundfile.read(io.BytesIO(wav), dtype="int16")
    np.testing.assert_array_equal(read, wanted)
    np.testing.assert_array_equal(np.rint(decoded(wav) * 32768), wanted)


@pytest.mark.parametrize("name", LOSSY)
def test_with_loss_nearly(name: str) -> None:
    samples = speech()
    heard = decoded(b"".join(in_pieces(name, samples)))
    assert abs(len(heard) - len(samples)) <= 2600, "the encoder's own delay and the last frame"
    # correlation at every delay of at most a frame or four, by FFT
    cut, size = samples[: len(samples) - 2600], 1 << 18
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(cut, size)), size)[:2600]
    energy = np.concatenate([[0.0], np.cumsum(np.pad(heard, (0, 6000)).astype(np.float64) ** 2)])
    best = np.max(product / np.sqrt((energy[len(cut) : len(cut) + 2600] - energy[:2600]) * np.sum(cut**2)))
    assert best > 0.98


def test_one_header() -> None:
    wav = b"".join(in_pieces("wav", speech()))
    assert wav.count(b"RIFF") == wav.count(b"WAVE") == 1
    riff, size, wave, fmt, length, kind, channels, rate, second, block, bits, data, count = struct.unpack(
        "<4sI4s4sIHHIIHH4sI", wav[:44]
    )
    assert (riff, wave, fmt, data) == (b"RIFF", b"WAVE", b"fmt ", b"data")
    assert (length, kind, channels, rate, second, block, bits) == (16, 1, 1, 24000, 48000, 2, 16)
    assert size == count == 0xFFFFFFFF
    for name, mark in (("flac", b"fLaC"), ("opus", b"OpusHead")):
        assert b"".join(in_pieces(name, speech())).count(mark) == 1
    mp3 = b"".join(in_pieces("mp3", speech()))
    assert b"ID3" not in mp3 and b"Xing" not in mp3 and b"Info" not in mp3
    assert mp3[0] == 0xFF and mp3[1] >> 4 == 0xF


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_the_first_piece_leaves_at_once(name: str) -> None:
    """Of the .32 s that come first, most can be heard before more comes."""
    first = in_pieces(name, speech()[:PIECE])[0]
    assert first
    heard = np.frombuffer(first, "<i2") if name == "pcm" else decoded(first)
    assert len(heard) >= 0.6 * PIECE


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_nothing_to_encode(name: str) -> None:
    encoder = ENCODERS[name](RATE)
    encoder.feed(np.zeros(0, np.float32))
    encoder.finish()


def test_over_http() -> None:
    scheduler = StubScheduler(pieces=3)
    wanted = to_int16(sine("Say it.", 5, 3))
    with live(scheduler) as server:
        client = server.http
        for name in ENCODERS:
            body = {"input": "Say it.", "response_format": name, "seed": 5}
            answer = client.post("/v1/audio/speech", json=body)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == MEDIA_TYPES[name]
            assert answer.headers["transfer-encoding"] == "chunked"
            if name in LOSSY:
                heard = decoded(answer.content)
                assert abs(len(heard) - len(wanted)) <= 2600
            elif name == "flac":
                check_flac(answer.content, wanted)
            elif name == "pcm":
                np.testing.assert_array_equal(np.frombuffer(answer.content, "<i2"), wanted)
            else:
                np.testing.assert_array_equal(soundfile.read(io.BytesIO(answer.content), dtype="int16")[0], wanted)
        assert client.post("/v1/audio/speech", json={"input": "x"}).headers["content-type"] == "audio/mpeg"


def test_it_is_not_held_back() -> None:
    """The first piece is heard while the second one is not there yet."""
    scheduler = StubScheduler(pieces=3, held=True)
    body = {"input": "Say it.", "response_format": "pcm", "seed": 5}
    with live(scheduler) as server, server.http.stream("POST", "/v1/audio/speech", json=body) as answer:
        pieces = answer.iter_raw()
        first = next(pieces)
        assert not scheduler.ready_to_go_on.is_set()
        scheduler.ready_to_go_on.set()
        assert first + b"".join(pieces) == to_int16(sine("Say it.", 5, 3)).tobytes()
        assert len(first) == 2 * PIECE
