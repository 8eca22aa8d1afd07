"""/v1/audio/speech/stream: text in pieces, sound back; every error told once, then closed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from spear_spec.audio import to_int16
from spear_spec.serving.speech import Busy
from tests.serving.live import Live, live, until
from tests.serving.stub_scheduler import StubScheduler, sine

START = {"type": "session.start", "seed": 5}
WANTED = to_int16(sine("One two.", 5, 4)).tobytes()


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with live(StubScheduler(), characters=50, body_bytes=2000, idle_s=0.5) as one:
        yield one


def open_socket(server: Live, **options: Any) -> ClientConnection:
    return connect(server.url.replace("http", "ws") + "/v1/audio/speech/stream", **options)


def say(socket: ClientConnection, *messages: dict[str, Any]) -> None:
    for message in messages:
        socket.send(json.dumps(message))


def heard(socket: ClientConnection) -> tuple[list[dict[str, Any]], bytes, int]:
    """(events, binary frames joined, code of closing)."""
    events, sound = [], b""
    try:
        while True:
            message = socket.recv(timeout=10)
            if isinstance(message, bytes):
                sound += message
            else:
                events.append(json.loads(message))
    except ConnectionClosed as closed:
        return events, sound, closed.rcvd.code if closed.rcvd is not None else 0


def test_a_session(server: Live) -> None:
    with open_socket(server) as socket:
        say(socket, {**START, "voice": "alloy", "instructions": "x"}, {"type": "text", "text": "One "})
        say(socket, {"type": "text", "text": "two."}, {"type": "end"})
        events, sound, code = heard(socket)
    assert sound == WANTED and code == 1000
    started, sentence, done = events
    assert started.pop("id").startswith("req_")
    assert started == {
        "type": "session.started", "model": "tiny", "voice": "anna", "seed": 5, "response_format": "pcm",
        "sample_rate": 24000, "ignored": ["instructions"],
    }  # fmt: skip
    assert sentence == {"type": "speech.sentence", "sentence": 0, "text": "One two."}
    assert done["type"] == "speech.audio.done" and done["usage"]["characters"] == 8


def test_base64_and_tokens(server: Live) -> None:
    with open_socket(server) as socket:
        say(socket, {**START, "audio": "base64", "tokens": True}, {"type": "text", "text": "One two."}, {"type": "end"})
        events, sound, _ = heard(socket)
    assert sound == b""
    pieces = [base64.b64decode(one["audio"]) for one in events if one["type"] == "speech.audio.delta"]
    assert b"".join(pieces) == WANTED
    tokens = [one for one in events if one["type"] == "speech.tokens"]
    assert tokens[0] == {"type": "speech.tokens", "sentence": 0, "tokens": [0, 1], "kinds": ["accepted", "bonus"]}
    assert len(tokens) == 4


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([{"type": "text", "text": "a"}], "invalid_value"),
        ([{**START, "model": "none"}], "model_not_found"),
        ([{**START, "voice": "nobody"}], "invalid_value"),
        ([{**START, "sped": 1}], "unknown_parameter"),
        ([{**START, "response_format": "ogg"}], "invalid_value"),
        ([START, {"type": "text"}], "missing_required_parameter"),
        ([START, {"type": "text", "text": "a\x00"}], "invalid_value"),
        ([START, {"type": "text", "text": "a" * 30}, {"type": "text", "text": "a" * 30}], "string_above_max_length"),
        ([START, {"type": "song"}], "invalid_value"),
        ([START, {}], "invalid_value"),
        ([START], "session_idle"),
        ([], "session_idle"),
    ],
)
def test_what_is_wrong(messages: list[dict[str, Any]], code: str, server: Live) -> None:
    with open_socket(server) as socket:
        say(socket, *messages)
        events, _, closed = heard(socket)
    error = events[-1]
    assert error["type"] == "error" and set(error["error"]) == {"message", "type", "param", "code"}
    assert error["error"]["code"] == code and closed == 1008
    until(lambda: not server.scheduler.rows)


@pytest.mark.parametrize("frame", ["{", "[]", "NaN", '{"type": "a", "type": "b"}', b"\x00", "[" * 1900])
def test_frames_that_are_no_messages(frame: str | bytes, server: Live) -> None:
    with open_socket(server) as socket:
        socket.send(frame)
        events, _, closed = heard(socket)
    assert events[-1]["error"]["code"] == "invalid_json" and closed == 1008


def test_a_frame_that_is_too_long(server: Live) -> None:
    with open_socket(server) as socket:
        socket.send("x" * 5000)
        assert heard(socket)[2] == 1009


def test_a_client_that_leaves(server: Live) -> None:
    with open_socket(server) as socket:
        say(socket, START, {"type": "text", "text": "a"})
        until(lambda: server.scheduler.rows)
    until(lambda: not server.scheduler.rows)


def test_the_scheduler_says_no() -> None:
    with live(StubScheduler(busy=Busy("all streams are taken", 2.5))) as server, open_socket(server) as socket:
        say(socket, START)
        events, _, code = heard(socket)
    assert (events[0]["error"]["code"], events[0]["retry_after_s"], code) == ("server_busy", 3, 1013)
    broken = StubScheduler(fails=(2, RuntimeError("secret")))
    with live(broken) as server, open_socket(server) as socket:
        say(socket, START, {"type": "text", "text": "One two."}, {"type": "end"})
        events, sound, code = heard(socket)
    assert sound == WANTED[: len(WANTED) // 2]
    assert (events[-1]["error"]["code"], code) == ("internal_error", 1011)
    assert "secret" not in json.dumps(events)


def test_keys_and_the_end() -> None:
    with live(StubScheduler(), keys=("one",)) as server:
        with pytest.raises(InvalidStatus) as refused:
            open_socket(server)
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body)["error"]["code"] == "invalid_api_key"
        server.server.service.draining = True
        with open_socket(server, additional_headers={"Authorization": "Bearer one"}) as socket:
            events, _, code = heard(socket)
        assert (events[0]["error"]["code"], code) == ("shutting_down", 1013)
