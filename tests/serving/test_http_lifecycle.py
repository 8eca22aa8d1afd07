"""Keys, clients that leave or take nothing, answers that break, and the server's end."""

from __future__ import annotations

import base64
import json
import logging
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from spear_spec.audio import to_int16
from spear_spec.errors import ConfigError
from spear_spec.serving.auth import Keys, read_keys
from spear_spec.serving.errors import ApiError
from spear_spec.serving.settings import ServerSettings
from tests.serving.live import Live, live, until
from tests.serving.stub_scheduler import PIECE, StubScheduler, sine

SPEECH = "/v1/audio/speech"
PCM = {"input": "Say it.", "response_format": "pcm", "seed": 5}


def raw_request(body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {SPEECH} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n"
    return head.encode() + b"\r\n" + data


# --- keys ---------------------------------------------------------------------------------------------------------


def test_keys() -> None:
    with live(StubScheduler(), keys=("one", "two")) as server:
        for value in (None, "Bearer", "Bearer three", "Basic one", "one", "Bearer one two", "Bearer On\u00e9"):
            headers = [] if value is None else [(b"Authorization", value.encode("latin-1"))]
            for method, path in (("POST", SPEECH), ("GET", "/v1/models"), ("GET", "/v1/nothing")):
                answer = server.http.request(method, path, headers=headers)
                assert answer.status_code == 401
                assert answer.json()["error"]["code"] == "invalid_api_key"
                assert answer.headers["www-authenticate"] == "Bearer"
        for key in ("one", "two"):
            headers = {"Authorization": f"Bearer {key}"}
            assert server.http.post(SPEECH, json=PCM, headers=headers).status_code == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert server.http.get(path).status_code == 200


def test_all_keys_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time does not say which key was right: all of them are compared, as hashes, by hmac.compare_digest."""
    import hmac

    compared: list[bytes] = []

    def watched(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", watched)
    keys = Keys(["one", "two", "three"])
    keys.check(b"Bearer one")
    assert len(compared) == 3 and all(len(one) == 32 for one in compared)
    with pytest.raises(ApiError):
        keys.check(b"Bearer four")
    assert len(compared) == 6


def test_where_keys_are_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\n one \n\ntwo\n")
    assert read_keys(str(path), "three, two,") == ("three", "two", "one")
    assert read_keys(None, None) == ()
    path.write_text("# none\n")
    with pytest.raises(ConfigError, match="no API key"):
        read_keys(str(path), None)
    with pytest.raises(ConfigError, match="No such file"):
        read_keys(str(tmp_path / "missing"), None)
    assert "one" not in repr(ServerSettings(keys=("one",)))


# --- names and headers --------------------------------------------------------------------------------------------


def test_voices_and_models() -> None:
    scheduler = StubScheduler()
    with live(scheduler, voice_names={"onyx": "ben"}) as server:
        client = server.http
        for voice, speaker, asked in (
            ("anna", "anna", None),
            ("ben", "ben", None),
            ({"id": "ben"}, "ben", None),
            ("alloy", "anna", "alloy"),
            ("onyx", "ben", "onyx"),
            (None, "anna", None),
        ):
            answer = client.post(SPEECH, json={**PCM, "voice": voice, "instructions": "Cheerfully."})
            assert answer.status_code == 200
            assert scheduler.asked[-1].speaker == answer.headers["x-spear-spec-voice"] == speaker
            assert answer.headers.get("x-spear-spec-voice-asked") == asked
            assert answer.headers["x-spear-spec-ignored"] == "instructions"
            assert answer.headers["x-spear-spec-seed"] == "5"
        listed = {one["id"]: one for one in client.get("/v1/audio/voices").json()["voices"]}
        assert listed["anna"]["default"] and not listed["ben"]["default"]
        assert (listed["alloy"]["stands_for"], listed["onyx"]["stands_for"]) == ("anna", "ben")
        for name in ("tiny", "tts-1", "tts-1-hd", "gpt-4o-mini-tts"):
            answer = client.post(SPEECH, json={**PCM, "model": name})
            assert answer.headers["x-spear-spec-model"] == "tiny"
            assert client.get(f"/v1/models/{name}").json()["id"] == name
        assert "x-spear-spec-ignored" not in answer.headers
        wanted = {"temperature": 0.5, "top_k": 3, "top_p": 0.9}
        client.post(SPEECH, json={**PCM, **wanted, "speed": 1.5})
        assert (scheduler.asked[-1].sampling, scheduler.asked[-1].speed) == (wanted, 1.5)
    with pytest.raises(ConfigError, match="anna, ben"), live(scheduler, voice_names={"onyx": "carl"}):
        pass


def test_pages_of_other_sites() -> None:
    asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
    with live(StubScheduler()) as server:
        assert "access-control-allow-origin" not in server.http.post(SPEECH, json=PCM, headers=asked).headers
        assert "access-control-allow-origin" not in server.http.options(SPEECH, headers=asked).headers
    with live(StubScheduler(), origins=("https://a.example",), keys=("one",)) as server:
        before = server.http.options(SPEECH, headers=asked)
        assert (before.status_code, before.headers["access-control-allow-origin"]) == (200, "https://a.example")
        refused = server.http.post(SPEECH, json=PCM, headers=asked)
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://a.example")
        other = server.http.options(SPEECH, headers={**asked, "Origin": "https://b.example"})
        assert "access-control-allow-origin" not in other.headers


# --- server-sent events -------------------------------------------------------------------------------------------


def events(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n\n")
    return [json.loads(block.removeprefix("data: ")) for block in text.split("\n\n")[:-1]]


def test_events() -> None:
    with live(StubScheduler()) as server:
        answer = server.http.post(SPEECH, json={**PCM, "stream_format": "sse"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    *pieces, done = events(answer.text)
    assert {one["type"] for one in pieces} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(one["audio"]) for one in pieces) == to_int16(sine("Say it.", 5, 4)).tobytes()
    assert done["type"] == "speech.audio.done"
    assert {k: done["usage"][k] for k in ("input_tokens", "output_tokens", "total_tokens")} == {
        "input_tokens": 7,
        "output_tokens": 32,
        "total_tokens": 39,
    }


def test_a_late_error(caplog: pytest.LogCaptureFixture) -> None:
    """Behind the first sound: an event; without events the connection breaks, so that nobody takes it for the whole."""
    scheduler = StubScheduler(fails=(2, RuntimeError("secret")))
    with live(scheduler) as server, caplog.at_level(logging.INFO):
        answer = server.http.post(SPEECH, json={**PCM, "stream_format": "sse"})
        *pieces, last = events(answer.text)
        assert len(pieces) == 2 and last["type"] == "speech.audio.error"
        assert last["error"]["code"] == "internal_error"
        assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
        caplog.clear()
        got: list[bytes] = []
        with server.http.stream("POST", SPEECH, json=PCM) as answer, pytest.raises(httpx.RemoteProtocolError):
            got.extend(answer.iter_raw())
        assert b"".join(got) == to_int16(sine("Say it.", 5, 4)[: 2 * PIECE]).tobytes(), "what came before it is heard"
        until(lambda: "ended=failed" in caplog.text)
        assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
        assert "secret" not in caplog.text
        assert "spear_spec_broken_total 2.0" in server.http.get("/metrics").text
    assert not scheduler.rows


# --- clients that go, or take nothing -----------------------------------------------------------------------------


def test_a_client_that_leaves_while_it_waits() -> None:
    scheduler = StubScheduler(wait_s=60)
    with live(scheduler) as server:
        with server.connect(raw_request(PCM)):
            until(lambda: scheduler.rows)
        until(lambda: not scheduler.rows)
        until(lambda: "spear_spec_clients_left_total 1.0" in server.http.get("/metrics").text)


def test_a_client_that_leaves_while_it_listens() -> None:
    scheduler = StubScheduler(held=True)
    with live(scheduler) as server:
        with server.connect(raw_request(PCM)) as raw:
            assert raw.recv(4096)
            assert scheduler.rows
        until(lambda: not scheduler.rows)


def drop_all(raw: socket.socket) -> None:
    while raw.recv(1 << 16):
        pass


def test_a_client_that_takes_nothing() -> None:
    """It is cut off, and nobody else is held up; the buffers in between are bounded."""
    scheduler = StubScheduler(pieces=200)  # 3 MB
    with live(scheduler, stall_s=0.3) as server, server.connect(raw_request(PCM), receive_buffer=4096) as raw:
        until(lambda: scheduler.asked)
        assert server.http.post(SPEECH, json={**PCM, "input": "Other."}).status_code == 200
        until(lambda: "spear_spec_broken_total 1.0" in server.http.get("/metrics").text)
        assert not scheduler.rows
        with pytest.raises(ConnectionResetError):
            drop_all(raw)


def test_requests_one_after_another_on_one_connection() -> None:
    with live(StubScheduler()) as server:
        client = server.http
        wanted = to_int16(sine("Say it.", 5, 4)).tobytes()
        assert all(client.post(SPEECH, json=PCM).content == wanted for _ in range(3))
        assert client.post(SPEECH, content=b"{").status_code == 415
        assert client.post(SPEECH, json=PCM).content == wanted


# --- the end ------------------------------------------------------------------------------------------------------


@pytest.fixture
def held() -> Iterator[Live]:
    with live(StubScheduler(held=True), drain_s=5) as server:
        yield server


def test_the_end_waits_for_what_is_spoken(held: Live) -> None:
    with held.http.stream("POST", SPEECH, json=PCM) as answer:
        pieces = answer.iter_raw()
        got = next(pieces)
        held.server.handle_exit(signal.SIGTERM, None)
        until(lambda: held.http.get("/readyz").status_code == 503)
        assert held.http.get("/healthz").status_code == 200
        refused = held.http.post(SPEECH, json=PCM)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["code"] == "shutting_down"
        assert held.thread.is_alive()
        held.scheduler.ready_to_go_on.set()
        got += b"".join(pieces)
    assert got == to_int16(sine("Say it.", 5, 4)).tobytes()
    held.thread.join(10)
    assert not held.thread.is_alive()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", held.port), 1)


def test_the_end_does_not_wait_for_ever() -> None:
    scheduler = StubScheduler(held=True)
    with live(scheduler, drain_s=0.2) as server:
        with server.http.stream("POST", SPEECH, json=PCM) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            server.call(server.server.end)
            with pytest.raises(httpx.RemoteProtocolError):
                next(pieces)
        server.thread.join(10)
        assert not server.thread.is_alive() and not scheduler.rows


def test_a_second_signal_ends_at_once(held: Live) -> None:
    with held.http.stream("POST", SPEECH, json=PCM) as answer:
        next(answer.iter_raw())
        held.call(held.server.end)
        held.call(held.server.end)
        held.thread.join(4)  # of the 5 s that it would wait for the answer
        assert not held.thread.is_alive()


def test_a_scheduler_that_has_stopped() -> None:
    class Dead(StubScheduler):
        def state(self) -> dict[str, float]:
            return {"alive": False}

    with live(Dead()) as server:
        for path in ("/healthz", "/readyz"):
            answer = server.http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_alive")


# --- metrics ------------------------------------------------------------------------------------------------------


def test_metrics() -> None:
    with live(StubScheduler()) as server:
        client = server.http
        client.post(SPEECH, json=PCM)
        client.post(SPEECH, json={"input": "a", "model": "none"})
        page = client.get("/metrics")
        assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
        lines = dict(line.rsplit(" ", 1) for line in page.text.splitlines() if not line.startswith("#"))
    for name, value in {
        'spear_spec_http_answers_total{route="/v1/audio/speech",status="200"}': 1,
        'spear_spec_http_answers_total{route="/v1/audio/speech",status="404"}': 1,
        'spear_spec_refused_total{reason="model_not_found"}': 1,
        "spear_spec_ttfa_seconds_count": 1,
        "spear_spec_rtf_count": 1,
        "spear_spec_characters_total": 7,
        "spear_spec_audio_seconds_total": 1.28,
        "spear_spec_queued": 1,
        "spear_spec_rows": 0,
        "spear_spec_tokens_total": 60,
        "spear_spec_tokens_per_call": 6,
        "spear_spec_acceptance": 0.5,
    }.items():
        assert float(lines[name]) == pytest.approx(value), name


def test_settings() -> None:
    for wrong in (
        {"characters": 0},
        {"body_bytes": 10},
        {"stall_s": 0},
        {"drain_s": -1},
        {"keys": ("é",)},
        {"keys": ("",)},
    ):
        with pytest.raises(ConfigError):
            ServerSettings(**wrong)  # type: ignore[arg-type]
    assert np.isfinite(ServerSettings().stall_s)
