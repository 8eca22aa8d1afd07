"""Whatever is wrong: OpenAI's error object, the right status, nothing of the text in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from spear_spec.errors import ConfigError, NumericsError, TextError
from spear_spec.serving.speech import Busy
from tests.serving.live import Live, live
from tests.serving.stub_scheduler import StubScheduler

SPEECH = "/v1/audio/speech"
JSON = {"Content-Type": "application/json"}
HEAD = b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with live(StubScheduler(), body_bytes=20_000, characters=50) as one:
        yield one


def told(answer: httpx.Response) -> dict[str, Any]:
    """The error object, whose form is checked."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    assert error["message"] and isinstance(error["message"], str) and "\n" not in error["message"]
    assert error["type"] in ("invalid_request_error", "server_error", "rate_limit_error")
    return error


FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({}, "input", "missing_required_parameter"),
    ({"input": None}, "input", "invalid_value"),
    ({"input": 3}, "input", "invalid_value"),
    ({"input": ["a"]}, "input", "invalid_value"),
    ({"input": ""}, "input", "invalid_value"),
    ({"input": "a\x00b"}, "input", "invalid_value"),
    ({"input": "a" * 51}, "input", "string_above_max_length"),
    ({"input": "a", "voice": "nobody"}, "voice", "invalid_value"),
    ({"input": "a", "voice": {"id": "nobody"}}, "voice", "invalid_value"),
    ({"input": "a", "voice": {"name": "anna"}}, "voice", "invalid_value"),
    ({"input": "a", "voice": 3}, "voice", "invalid_value"),
    ({"input": "a", "response_format": "ogg"}, "response_format", "invalid_value"),
    ({"input": "a", "stream_format": "json"}, "stream_format", "invalid_value"),
    ({"input": "a", "speed": 0.2}, "speed", "invalid_value"),
    ({"input": "a", "speed": 4.1}, "speed", "invalid_value"),
    ({"input": "a", "speed": "1"}, "speed", "invalid_value"),
    ({"input": "a", "speed": True}, "speed", "invalid_value"),
    ({"input": "a", "seed": -1}, "seed", "invalid_value"),
    ({"input": "a", "seed": 2**64}, "seed", "invalid_value"),
    ({"input": "a", "seed": 1.5}, "seed", "invalid_value"),
    ({"input": "a", "top_p": 0}, "top_p", "invalid_value"),
    ({"input": "a", "top_k": -1}, "top_k", "invalid_value"),
    ({"input": "a", "temperature": 11}, "temperature", "invalid_value"),
    ({"input": "a", "instructions": 3}, "instructions", "invalid_value"),
    ({"input": "a", "volume": 3}, "volume", "unknown_parameter"),
    ({"input": "a", "model": 1}, "model", "invalid_value"),
]


@pytest.mark.parametrize(("body", "param", "code"), FIELDS)
def test_fields(body: dict[str, Any], param: str, code: str, server: Live) -> None:
    answer = server.http.post(SPEECH, json=body)
    assert answer.status_code == 400
    error = told(answer)
    assert (error["param"], error["code"]) == (param, code)
    assert not server.scheduler.rows


def test_a_model_that_is_not_there(server: Live) -> None:
    for answer in (
        server.http.post(SPEECH, json={"input": "a", "model": "whisper-1"}),
        server.http.get("/v1/models/whisper-1"),
    ):
        assert answer.status_code == 404
        assert told(answer)["code"] == "model_not_found"


BODIES: list[tuple[bytes, str]] = [
    (b"", "invalid_json"),
    (b"{", "invalid_json"),
    (b"[]", "invalid_json"),
    (b'"a"', "invalid_json"),
    (b"null", "invalid_json"),
    (b'{"input": "a", "input": "b"}', "invalid_json"),
    (b'{"input": "a", "speed": NaN}', "invalid_json"),
    (b'{"input": "a", "speed": -Infinity}', "invalid_json"),
    (b'{"input": "a", "speed": 1e999}', "invalid_value"),
    (b'{"input": "\\ud800"}', "invalid_json"),
    (b'{"input": "a", "\\udfff": 1}', "invalid_json"),
    (b'{"input": "\xff"}', "invalid_json"),
    ('{"input": "a"}'.encode("utf-16"), "invalid_json"),
    (b'\xef\xbb\xbf{"input": "a"}', "invalid_json"),
    (b'{"input": "a", "seed": ' + b"9" * 5000 + b"}", "invalid_json"),
    (b"[" * 19_000, "invalid_json"),
    (b'{"a":' * 3_900, "invalid_json"),
    (b'{"input": "a\nb"}', "invalid_json"),
    (b'{"input": "a",}', "invalid_json"),
]


@pytest.mark.parametrize(("body", "code"), BODIES)
def test_bodies(body: bytes, code: str, server: Live) -> None:
    answer = server.http.post(SPEECH, content=body, headers=JSON)
    assert answer.status_code == 400
    assert told(answer)["code"] == code


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/json; charset=utf-16"},
        {**JSON, "Content-Encoding": "gzip"},
    ],
)
def test_media_types(headers: dict[str, str], server: Live) -> None:
    answer = server.http.post(SPEECH, content=b'{"input": "a"}', headers=headers)
    assert answer.status_code == 415
    told(answer)
    good = server.http.post(
        server.url + SPEECH, content=b'{"input": "a"}', headers={"Content-Type": 'application/JSON; charset="UTF-8"'}
    )
    assert good.status_code == 200


def test_addresses_and_methods(server: Live) -> None:
    for path in ("/v1/nothing", "/v1/models/", "/docs", "/v1/audio/speech/"):
        answer = server.http.get(path)
        assert answer.status_code == 404
        told(answer)
    answer = server.http.get(SPEECH)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST, OPTIONS")
    told(answer)
    answer = server.http.delete("/v1/models")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    assert server.http.options("/v1/models").status_code == 204
    assert server.http.options("/v1/models").headers["allow"] == "GET, HEAD, OPTIONS"
    answer = server.http.head("/v1/models")
    assert (answer.status_code, answer.content) == (200, b"")
    assert server.http.head(SPEECH).status_code == 405


def test_a_body_that_is_too_long(server: Live) -> None:
    body = json.dumps({"input": "a", "instructions": "b" * 30_000}).encode()
    answer = server.http.post(SPEECH, content=body, headers=JSON)
    assert answer.status_code == 413
    assert told(answer)["code"] == "request_too_large"

    def chunks() -> Iterator[bytes]:
        for at in range(0, len(body), 999):
            yield body[at : at + 999]

    answer = server.http.post(SPEECH, content=chunks(), headers=JSON)
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert answer.status_code == 413
    told(answer)
    with server.connect(
        b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 99999999999999999999999999\r\nExpect: 100-continue\r\n\r\n"
    ) as raw:
        assert raw.recv(1000).split(b"\r\n")[0] in (
            b"HTTP/1.1 413 Request Entity Too Large",
            b"HTTP/1.1 413 Content Too Large",
            b"HTTP/1.1 400 Bad Request",
        )


def test_a_body_that_does_not_come() -> None:
    with live(StubScheduler(), body_s=0.2) as server:
        head = (
            b"POST /v1/audio/speech HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        with server.connect(head) as raw:
            answer = b"".join(iter(lambda: raw.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "request_timeout"


@pytest.mark.parametrize(
    "noise",
    [
        b"\x00\x01\x02\r\n\r\n",
        b"GET / HTPP/1.1\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01" * 9 + b"\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\nhello",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        HEAD.replace(b"json", b"xml") + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",  # refused without its body
    ],
)
def test_what_is_no_http(noise: bytes, server: Live, caplog: pytest.LogCaptureFixture) -> None:
    with server.connect(noise) as raw:
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert set(json.loads(answer.split(b"\r\n\r\n")[1])["error"]) == {"message", "type", "param", "code"}
    server.http.get("/healthz")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Busy("48 requests wait: try again in 3.2 s", 3.2), 429, "server_busy"),
        (TextError("there is nothing to say"), 400, "invalid_text"),
        (ConfigError("speed must be 1"), 400, "invalid_value"),
        (RuntimeError("secret of the house"), 500, "internal_error"),
        (NumericsError(), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("stream_format", ["audio", "sse"])
def test_errors_of_the_scheduler(
    error: Exception, status: int, code: str, late: bool, stream_format: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Raised by `speak`, or by the answer before its first sound: the same answer."""
    scheduler = StubScheduler(fails=(0, error)) if late else StubScheduler(busy=error)
    with live(scheduler) as server, caplog.at_level(logging.INFO):
        answer = server.http.post(SPEECH, json={"input": "a", "stream_format": stream_format})
    assert answer.status_code == status
    said = told(answer)
    assert said["code"] == code and "secret" not in said["message"]
    assert answer.headers.get("retry-after") == ("4" if status == 429 else None)
    assert said["type"] == {429: "rate_limit_error", 500: "server_error"}.get(status, "invalid_request_error")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == (status == 500), "logged once, and only what is our own fault"
    assert "secret" not in caplog.text
    assert not scheduler.rows


@pytest.mark.parametrize("log_text", [False, True])
def test_the_text_in_the_log(log_text: bool, caplog: pytest.LogCaptureFixture) -> None:
    with live(StubScheduler(), log_text=log_text) as server, caplog.at_level(logging.DEBUG, "spear_spec"):
        server.http.post(SPEECH, json={"input": "a rare zymurgist"})
        server.http.post(SPEECH, json={"input": "a rare zymurgist", "voice": "zymurgist", "zymurgist": 1})
        server.http.post(SPEECH, content=b'{"input": "zymurgist', headers=JSON)
    assert ("zymurgist" in caplog.text) == log_text
    assert "ended=done" in caplog.text


def test_request_ids(server: Live) -> None:
    given = server.http.get("/healthz", headers={"X-Request-Id": "mine-1"})
    assert given.headers["x-request-id"] == "mine-1"
    for bad in ("a b", "x" * 129, "é"):
        answer = server.http.get("/healthz", headers=[(b"X-Request-Id", bad.encode())])
        assert answer.headers["x-request-id"].startswith("req_")
    one, two = (server.http.get("/healthz").headers["x-request-id"] for _ in range(2))
    assert one != two
