"""The shipped voice behind the scheduler, asked by the `openai` package as its users do."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator

import numpy as np
import openai
import pytest
import soundfile
from openai import OpenAI

from spear_spec.audio import to_int16
from spear_spec.pipeline import TTS
from spear_spec.serving.scheduler import Scheduler, for_serving
from tests.serving.live import Live, live, until
from tests.serving.test_http_formats import decoded

TEXT = "Yes, I do. Not now."


@pytest.fixture(scope="module")
def tts() -> TTS:
    return for_serving(TTS.load(device="cpu"))


@pytest.fixture(scope="module")
def server(tts: TTS) -> Iterator[Live]:
    with Scheduler(tts) as scheduler, live(scheduler, keys=("sk-one",)) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.url + "/v1", api_key="sk-one", max_retries=0) as one:
        yield one


@pytest.fixture(scope="module")
def wanted(server: Live, client: OpenAI) -> np.ndarray:
    """int16 [T] of the text with seed 5, alone, by the TTS itself; asked for first, as a TTS is not shared."""
    return to_int16(for_serving(TTS.load(device="cpu")).synthesize(TEXT, seed=5, speaker="am_michael").samples)


def test_as_a_client_would(client: OpenAI, wanted: np.ndarray) -> None:
    extra = {"seed": 5}
    speech = client.audio.speech.create(
        model="tts-1", voice="am_michael", input=TEXT, response_format="pcm", extra_body=extra
    )
    np.testing.assert_array_equal(np.frombuffer(speech.content, "<i2"), wanted)
    assert speech.response.headers["x-spear-spec-voice"] == "am_michael"

    with client.audio.speech.with_streaming_response.create(
        model="kokoro-duo", voice="am_michael", input=TEXT, response_format="wav", extra_body=extra
    ) as streamed:
        pieces = list(streamed.iter_bytes())
    assert len(pieces) > 1
    np.testing.assert_array_equal(soundfile.read(io.BytesIO(b"".join(pieces)), dtype="int16")[0], wanted)

    with client.audio.speech.with_streaming_response.create(
        model="gpt-4o-mini-tts",
        voice="am_michael",
        input=TEXT,
        response_format="flac",
        instructions="Whisper.",
        stream_format="sse",
        extra_body=extra,
    ) as streamed:
        events = [json.loads(line.removeprefix("data: ")) for line in streamed.iter_lines() if line]
    assert streamed.headers["x-spear-spec-ignored"] == "instructions"
    flac = b"".join(base64.b64decode(one["audio"]) for one in events[:-1])
    np.testing.assert_array_equal(np.rint(decoded(flac) * 32768), wanted)
    usage = events[-1]["usage"]
    assert usage["input_tokens"] == len(TEXT) and usage["output_tokens"] > 10 and usage["seed"] == 5
    assert usage["audio_s"] == pytest.approx(len(wanted) / 24000, abs=1e-3)

    mp3 = client.audio.speech.create(model="tts-1-hd", voice="alloy", input="Yes.")
    assert mp3.response.headers["content-type"] == "audio/mpeg"
    assert len(decoded(mp3.content)) > 4000

    fast = client.audio.speech.create(
        model="tts-1", voice="am_michael", input=TEXT, response_format="pcm", speed=1.5, extra_body=extra
    )
    assert len(fast.content) == pytest.approx(2 * len(wanted) / 1.5, rel=0.1)
    assert next(model.id for model in client.models.list()) == "kokoro-duo"
    assert client.models.retrieve("tts-1").id == "tts-1"


def test_errors_as_a_client_sees_them(server: Live, client: OpenAI) -> None:
    def create(**changed: object) -> None:
        given = {"model": "tts-1", "voice": "alloy", "input": "Yes.", **changed}
        client.audio.speech.create(**given)  # type: ignore[arg-type]

    with pytest.raises(openai.NotFoundError) as missing:
        create(model="whisper-1")
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as silent:
        create(input="\u200b...")
    assert silent.value.code == "invalid_text"
    with pytest.raises(openai.BadRequestError, match="4096"):
        create(input="a" * 4097)
    with pytest.raises(openai.AuthenticationError), OpenAI(base_url=server.url + "/v1", api_key="sk-two") as other:
        other.models.list()


def test_a_client_that_leaves_frees_its_rows(server: Live, client: OpenAI) -> None:
    long = "This goes on for a good while, and then for another one. " * 30
    with client.audio.speech.with_streaming_response.create(
        model="tts-1", voice="alloy", input=long, response_format="pcm"
    ) as streamed:
        pieces = streamed.iter_bytes(1024)
        next(pieces)
        assert server.scheduler.state().streams == 1
    until(lambda: server.scheduler.state().rows == 0 and server.scheduler.state().streams == 0)
