"""The page's files and what it asks the server for: events equal to the scheduler's, refusals, races that give way."""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.testclient import TestClient

import spear_spec
from spear_spec.audio import to_int16
from spear_spec.decoding import Request
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.errors import NumericsError
from spear_spec.serving import events as events_module
from spear_spec.serving import race as race_module
from spear_spec.serving.app import create_app
from spear_spec.serving.playground import RACE_CHARACTERS, Playground
from spear_spec.serving.settings import ServerSettings
from spear_spec.serving.speech import Ask, Busy, Done, Sound, Written
from tests.serving.live import Live, live, until
from tests.serving.stub_scheduler import StubScheduler
from tests.stubs.voice import make_voice

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "spear_spec" / "serving" / "page"
FILES = sorted(path.name for path in PAGE.iterdir())
TEXT = "One is here. Two is there!"


class Scheduler(StubScheduler):
    """The stub, idle when nobody is spoken to; `listeners` are others."""

    listeners = 0

    def state(self) -> dict[str, float]:
        return {"queued": 0, "waiting": 0, "rows": len(self.rows) + self.listeners}


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> spear_spec.TTS:
    return spear_spec.TTS.load(str(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path), "cpu")


@pytest.fixture
def scheduler(tts: spear_spec.TTS) -> Scheduler:
    return Scheduler(tts=tts)


@pytest.fixture
def client(scheduler: Scheduler) -> Iterator[TestClient]:
    with TestClient(create_app(scheduler, ServerSettings()), raise_server_exceptions=False) as client:
        yield client


def parsed(text: str) -> list[tuple[str, Any]]:
    """(name, data) of each event."""
    found = []
    for block in text.split("\n\n"):
        if block and not block.startswith(":"):
            name, data = block.split("\n")
            found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


def asked(client: TestClient, what: str, body: dict[str, Any]) -> list[tuple[str, Any]]:
    answer = client.post(f"/playground/{what}", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    return parsed(answer.text)


# --- files ----------------------------------------------------------------------------------------------------------


def test_the_page_is_served_with_a_strict_policy(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.text == (PAGE / "index.html").read_text(encoding="utf-8")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "object-src": "'none'",
    }


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_and_kept_by_its_tag(name: str, client: TestClient) -> None:
    kinds = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
    answer = client.get(f"/playground/{name}")
    assert answer.status_code == 200
    assert answer.content == (PAGE / name).read_bytes()
    assert answer.headers["content-type"] == f"{kinds[name.split('.')[-1]]}; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    tag = answer.headers["etag"]
    again = client.get(f"/playground/{name}", headers={"If-None-Match": f'"other", W/{tag}'})
    assert again.status_code == 304
    assert not again.content
    assert client.get(f"/playground/{name}", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fplayground.py", "%2e%2e", "page/index.html", ""])
def test_nothing_else_is(name: str, client: TestClient) -> None:
    answer = client.get(f"/playground/{name}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


def test_the_files_name_each_other_and_nobody_else() -> None:
    named = {"index.html"}
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        outside = re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"']*", text)
        assert [address for address in outside if address != "http://www.w3.org/2000/svg"] == [], path.name
        named |= set(re.findall(r"(?:src|href)=\"playground/([\w.]+)\"", text))
        named |= set(re.findall(r"from \"\./([\w.]+)\"", text))
    assert named == set(FILES)


def test_texts_are_never_read_as_markup() -> None:
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert word not in text, (path.name, word)
        if path.suffix == ".html":  # the policy would refuse them
            assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text)


def test_the_files_are_part_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "serving/page/*" in project["tool"]["setuptools"]["package-data"]["spear_spec"]


def test_they_are_no_part_of_the_api(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert paths
    assert not [path for path in paths if path == "/" or "playground" in path]


# --- the voice ------------------------------------------------------------------------------------------------------


def test_the_voice_is_told_as_it_is(client: TestClient, tts: spear_spec.TTS) -> None:
    voice = client.get("/playground/voice").json()
    assert voice["name"] == "tiny"
    assert voice["speakers"] == list(tts.speakers)
    assert (voice["sample_rate"], voice["token_rate"]) == (tts.sample_rate, tts.decoder.frame_rate)
    assert voice["characters"] == 4096
    assert voice["settings"]["drafter"] == tts.spec.drafter
    names = [racer["name"] for racer in voice["race"]["drafters"]]
    assert {"none", "small", "eagle", "medusa", "ngram"} <= set(names)
    assert "kpath" in names
    for name in names:
        tts.using(drafter=name)  # none is offered that the voice cannot use
    assert voice["race"]["usual"] == [name for name in names if name in ("none", "small", "medusa", tts.spec.drafter)]


# --- speaking -------------------------------------------------------------------------------------------------------


def test_events_are_the_scheduler_s(client: TestClient, scheduler: Scheduler) -> None:
    seed = 2**64 - 1
    body = {"input": "Hello.", "voice": "am_michael", "speed": 1.5, "seed": str(seed)}
    events = asked(client, "speak", body)
    [ask] = scheduler.asked
    assert ask == Ask("Hello.", speaker="am_michael", seed=seed, speed=1.5, tokens=True)
    assert events[0] == ("start", {"seed": str(seed), "sample_rate": scheduler.tts.sample_rate})
    theirs = list(StubScheduler().speak(ask))
    assert [name for name, _ in events[1:]] == [
        {Sound: "sound", Written: "tokens", Done: "done"}[type(event)] for event in theirs
    ]
    for (_, data), event in zip(events[1:], theirs):
        if isinstance(event, Sound):
            pcm = np.frombuffer(base64.b64decode(data.pop("pcm")), "<i2")
            np.testing.assert_array_equal(pcm, to_int16(event.samples))
            assert data == {"sentence": event.sentence, "text": event.text, "ended": event.ended}
        elif isinstance(event, Written):
            assert data == {"sentence": event.sentence, "ids": event.tokens, "kinds": event.kinds}
        else:
            assert data["usage"] == {**event.usage, "seed": str(seed)}


def test_without_a_seed_the_scheduler_s_is_told(client: TestClient, scheduler: Scheduler) -> None:
    events = asked(client, "speak", {"input": "Hello."})
    assert scheduler.asked[0].seed is None
    assert events[0][1]["seed"] == "7"
    assert scheduler.asked[0].speaker == "af_heart"


def test_what_breaks_in_the_middle_is_the_last_event(client: TestClient, scheduler: Scheduler) -> None:
    scheduler.fails = (1, NumericsError())
    events = asked(client, "speak", {"input": "Secret words."})
    assert [name for name, _ in events] == ["start", "tokens", "sound", "error"]
    assert events[-1][1]["error"]["type"] == "server_error"
    assert "NaN" not in json.dumps(events[-1])


def test_an_answer_that_the_server_gives_up_is_no_end(client: TestClient, scheduler: Scheduler) -> None:
    scheduler.held, scheduler.pieces = True, 3
    answers: list[Any] = []

    with (
        live(scheduler) as server,
        httpx.stream("POST", f"{server.url}/playground/speak", json={"input": "Hi."}) as answer,
    ):
        for line in answer.iter_lines():
            if line == "event: sound":
                scheduler.cancel(next(iter(scheduler.rows)))
            answers.append(line)
        scheduler.ready_to_go_on.set()
    assert "event: done" not in answers
    assert "event: error" in answers


def test_a_listener_who_leaves_frees_his_rows(scheduler: Scheduler) -> None:
    scheduler.held = True
    with live(scheduler) as server:
        with httpx.stream("POST", f"{server.url}/playground/speak", json={"input": "Hi."}) as answer:
            lines = answer.iter_lines()  # held: a loop that is dropped closes the answer
            assert next(lines) == "event: start"
            assert scheduler.rows
        until(lambda: not scheduler.rows)
        assert not server.server.service.speaking
        scheduler.ready_to_go_on.set()


def test_a_listener_who_takes_nothing_is_cut_off(scheduler: Scheduler) -> None:
    scheduler.pieces = 1500  # more than the buffers between here and there hold
    body = b'{"input": "Hi."}'
    head = b"POST /playground/speak HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    with live(scheduler, stall_s=0.2) as server:
        raw = server.connect(head % len(body) + body, receive_buffer=4096)
        until(lambda: server.server.service.speaking)
        until(lambda: not server.server.service.speaking)
        pieces = iter(lambda: raw.recv(65536), b"")
        with pytest.raises(ConnectionResetError):
            list(pieces)  # what had been sent, and no end
        raw.close()


def test_busy_says_when_to_come_again(client: TestClient, scheduler: Scheduler) -> None:
    scheduler.busy = Busy("full", 2.4)
    answer = client.post("/playground/speak", json={"input": "Hi."})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")


REFUSED: dict[str, tuple[str, Any, int, str | None]] = {
    "no text": ("speak", {}, 400, "input"),
    "an empty text": ("speak", {"input": ""}, 400, "input"),
    "too long": ("speak", {"input": "a" * 4097}, 400, "input"),
    "too fast": ("speak", {"input": "a", "speed": 9}, 400, "speed"),
    "a seed of 65 bits": ("speak", {"input": "a", "seed": str(2**64)}, 400, "seed"),
    "a seed of other digits": ("speak", {"input": "a", "seed": "²"}, 400, "seed"),
    "nobody": ("speak", {"input": "a", "voice": "nobody"}, 400, "voice"),
    "more": ("speak", {"input": "a", "more": 1}, 400, "more"),
    "a list": ("speak", ["a"], 400, None),
    "nobody races": ("race", {"input": "a", "drafters": []}, 400, "drafters"),
    "too many race": ("race", {"input": "a", "drafters": ["none"] * 13}, 400, "drafters"),
    "a racer that is none": ("race", {"input": "a", "drafters": ["nobody"]}, 400, None),
    "a race too long": ("race", {"input": "a" * (RACE_CHARACTERS + 1), "drafters": ["none"]}, 400, "input"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_asked_for(case: str, client: TestClient, scheduler: Scheduler) -> None:
    what, body, status, param = REFUSED[case]
    answer = client.post(f"/playground/{what}", json=body)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert error["message"]
    assert error["param"] == param
    assert not scheduler.asked


def test_only_json_is_read(client: TestClient) -> None:
    answer = client.post("/playground/speak", content="input=a", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415  # no form of another site reaches it without being asked about


def test_keys(scheduler: Scheduler) -> None:
    with TestClient(create_app(scheduler, ServerSettings(keys=("right",)))) as client:
        assert client.get("/").status_code == 200
        assert client.get("/playground/main.js").status_code == 200
        bodies = {"speak": {"input": "a"}, "race": {"input": "a", "drafters": ["none"]}}
        for headers, status in (
            ({}, 401),
            ({"Authorization": "Bearer wrong"}, 401),
            ({"Authorization": "Bearer right"}, 200),
        ):
            assert client.get("/playground/voice", headers=headers).status_code == status
            for what, body in bodies.items():
                assert client.post(f"/playground/{what}", json=body, headers=headers).status_code == status
        assert len(scheduler.asked) == 1


# --- the race -------------------------------------------------------------------------------------------------------


def alone(tts: spear_spec.TTS, drafter: str, seed: int) -> tuple[int, int]:
    """Tokens and target calls of the text in an engine of the test's own."""
    runner = tts.using(drafter=drafter)
    engine = runner.decoder.engine()
    stats = [
        engine.run([Request(ids, seed=derive(seed, index, SENTENCE), sampling=runner.sampling)])[0].stats
        for index, ids in enumerate(runner.texts([TEXT]))
    ]
    return sum(s.tokens for s in stats), sum(s.target_calls for s in stats)


def test_a_race_tells_what_each_drafter_does(
    client: TestClient, tts: spear_spec.TTS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race_module, "TELL_S", 0.0)
    drafters = ["none", "eagle", "medusa", "ngram"]
    events = asked(client, "race", {"input": TEXT, "drafters": [*drafters, "eagle"], "seed": 11})
    assert events[0] == ("start", {"seed": "11", "drafters": drafters})
    assert events[-1] == ("done", {})
    laps = [data for name, data in events if name == "lap"]
    assert [name for name, _ in events[1:-1]] == ["lap"] * len(laps)
    assert list(dict.fromkeys(lap["drafter"] for lap in laps)) == drafters
    for drafter in drafters:
        mine = [lap for lap in laps if lap["drafter"] == drafter]
        assert len(mine) > 2
        assert [lap["ended"] for lap in mine] == [False] * (len(mine) - 1) + [True]
        calls = [call for lap in mine for call in lap["calls"]]
        last = mine[-1]
        assert (last["tokens"], last["target_calls"]) == alone(tts, drafter, 11)
        assert len(calls) == last["target_calls"]
        assert sum(accepted + bool(kind) for accepted, kind in calls) == last["tokens"]
        first = calls[0][0] + bool(calls[0][1])
        assert last["tokens_timed"] == last["tokens"] - first  # the step that warms up does not count
        assert last["seconds"] > 0
        assert {kind for _, kind in calls} <= (
            {"sampled"} if drafter == "none" else {"recovered", "bonus", "sampled", ""}
        )
    assert any(accepted for lap in laps for accepted, _ in lap["calls"])


def test_a_race_gives_way_and_is_alone(scheduler: Scheduler) -> None:
    scheduler.listeners = 1
    body = {"input": TEXT, "drafters": ["none"], "seed": 1}
    with live(scheduler) as server:
        address = f"{server.url}/playground/race"
        with httpx.stream("POST", address, json=body, timeout=20) as answer:
            lines = answer.iter_lines()
            assert [line for line in (next(lines) for _ in range(6)) if line.startswith("event")] == [
                "event: start",
                "event: waiting",
            ]
            second = httpx.post(address, json=body)
            assert (second.status_code, second.headers["retry-after"]) == (429, "5")
            scheduler.listeners = 0
            told = [line.removeprefix("event: ") for line in lines if line.startswith("event")]
            assert told[-1] == "done"
            assert set(told[:-1]) == {"lap"}
        assert parsed(httpx.post(address, json=body).text)[-1][0] == "done"


def raced(server: Live) -> bool:
    """Whether a race can begin."""
    body = {"input": TEXT, "drafters": ["none"]}
    return httpx.post(f"{server.url}/playground/race", json=body).status_code == 200


def test_a_race_ends_when_its_reader_leaves(scheduler: Scheduler) -> None:
    scheduler.listeners = 1  # else it would soon be over by itself
    with live(scheduler) as server:
        body = {"input": TEXT, "drafters": ["none"]}
        with httpx.stream("POST", f"{server.url}/playground/race", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: start"
        place = _playground(server)
        until(lambda: not place._racing.locked())
        scheduler.listeners = 0
        assert raced(server)


def test_a_race_ends_with_the_server(scheduler: Scheduler) -> None:
    scheduler.listeners = 1
    with live(scheduler) as server:
        body = {"input": TEXT, "drafters": ["none"]}
        with httpx.stream("POST", f"{server.url}/playground/race", json=body) as answer:
            lines = answer.iter_lines()
            assert next(lines) == "event: start"
            server.server.service.draining = True
            assert [line for line in lines if line.startswith("event")][-1] == "event: error"
        assert not _playground(server)._racing.locked()
        assert httpx.post(f"{server.url}/playground/race", json=body).status_code == 503


def test_a_wait_keeps_the_connection_awake(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "AWAKE_S", 0.02)
    scheduler.listeners = 1
    with live(scheduler) as server:
        body = {"input": TEXT, "drafters": ["none"]}
        with httpx.stream("POST", f"{server.url}/playground/race", json=body) as answer:
            lines = answer.iter_lines()
            until(lambda: next(lines) == ": still there")


def test_a_race_that_never_comes_about(
    client: TestClient, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(race_module, "PATIENCE_S", 0.05)
    scheduler.listeners = 1
    events = asked(client, "race", {"input": TEXT, "drafters": ["none"]})
    assert [name for name, _ in events] == ["start", "waiting", "error"]
    assert events[-1][1]["error"]["code"] == "server_busy"


def _playground(server: Live) -> Playground:
    [route] = [route for route in server.server.config.app.router.routes if getattr(route, "path", "") == "/"]
    found: Playground = route.endpoint.__self__
    return found
