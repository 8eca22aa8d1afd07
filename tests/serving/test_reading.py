"""Pauses, a lexicon and SSML for listeners of a server: what each hears is what `synthesize` makes of the same."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

import spear_spec.serving.app
from spear_spec import TTS
from spear_spec.audio import FloatArray, to_int16
from spear_spec.cli import main
from spear_spec.errors import ConfigError
from spear_spec.serving.ray import Replicas
from spear_spec.serving.scheduler import Scheduler
from spear_spec.serving.settings import ServerSettings
from spear_spec.serving.speech import Ask
from spear_spec.text import Reading
from tests.serving.live import Live, live

TEXT = "Mr. Nguyen came. He left.\n\nIt rained."
LEXICON = {"nguyen": "/nwɪn/"}
DOCUMENT = (
    '<speak>Nguyen <break time="300ms"/> <sub alias="two">2</sub> '
    '<prosody rate="fast">ran</prosody>. It rained.</speak>'
)
HOUSE = (0.2, 0.5)


@pytest.fixture(scope="module")
def server(tts: TTS) -> Iterator[Live]:
    with Scheduler(tts) as scheduler, live(scheduler, reading=Reading.of(HOUSE, LEXICON)) as one:
        yield one


@pytest.fixture(scope="module")
def alone(tts: TTS) -> TTS:
    return TTS.load(tts.bundle.path, "cpu", drafter="none")


def same(heard: bytes, samples: FloatArray) -> None:
    np.testing.assert_array_equal(np.frombuffer(heard, "<i2"), to_int16(samples))


@pytest.mark.parametrize(
    ("text", "asked", "wanted"),
    [
        (TEXT, {}, {"pause": HOUSE}),
        (TEXT, {"pause": 0.4}, {"pause": 0.4}),
        (TEXT, {"pause": [0, 1]}, {"pause": (0, 1)}),
        (TEXT, {"ssml": False, "speed": 1.25}, {"pause": HOUSE, "speed": 1.25}),
        (DOCUMENT, {"ssml": True}, {"pause": HOUSE, "ssml": True}),
        (DOCUMENT, {"ssml": True, "pause": 0.7, "speed": 0.8}, {"pause": 0.7, "ssml": True, "speed": 0.8}),
    ],
)
def test_a_request(server: Live, alone: TTS, text: str, asked: dict[str, Any], wanted: dict[str, Any]) -> None:
    body = {"input": text, "seed": 5, "response_format": "pcm", **asked}
    answer = server.http.post("/v1/audio/speech", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    same(answer.content, alone.synthesize(text, seed=5, lexicon=LEXICON, **wanted).samples)


def talk(server: Live, pieces: Sequence[str], **start: Any) -> tuple[bytes, list[dict[str, Any]]]:
    """The sound of a session, and its events."""
    sound, events = b"", []
    with connect(f"ws://127.0.0.1:{server.port}/v1/audio/speech/stream") as socket:
        socket.send(json.dumps({"type": "session.start", "seed": 5, **start}))
        for piece in pieces:
            socket.send(json.dumps({"type": "text", "text": piece}))
        socket.send(json.dumps({"type": "end"}))
        with suppress(ConnectionClosedError):  # of a session that is refused
            for message in socket:
                if isinstance(message, bytes):
                    sound += message
                else:
                    events.append(json.loads(message))
    return sound, events


@pytest.mark.parametrize(
    ("text", "asked", "wanted"),
    [
        (TEXT, {}, {"pause": HOUSE}),
        (TEXT, {"pause": [0.1, 0.9]}, {"pause": (0.1, 0.9)}),
        (DOCUMENT, {"ssml": True}, {"pause": HOUSE, "ssml": True}),
    ],
)
def test_a_session(server: Live, alone: TTS, text: str, asked: dict[str, Any], wanted: dict[str, Any]) -> None:
    pieces = [text[at : at + 7] for at in range(0, len(text), 7)]
    sound, events = talk(server, pieces, **asked)
    assert events[-1]["type"] == "speech.audio.done"
    same(sound, alone.synthesize(text, seed=5, lexicon=LEXICON, **wanted).samples)


def test_the_page(server: Live, alone: TTS) -> None:
    """It reads as the server does."""
    answer = server.http.post("/playground/speak", json={"input": TEXT, "seed": "5"}, timeout=60)
    told = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]
    sound = b"".join(base64.b64decode(event["pcm"]) for event in told if "pcm" in event)
    same(sound, alone.synthesize(TEXT, seed=5, pause=HOUSE, lexicon=LEXICON).samples)


def test_what_cannot_be_read(server: Live) -> None:
    for body, param, said in (
        ({"ssml": True}, "input", "SSML, line 1"),
        ({"input": "<speak><voice>", "ssml": True}, "input", "SSML, line 1"),
        ({"input": "<speak/>", "ssml": True}, "input", "nothing to speak"),
        ({"ssml": "yes"}, "ssml", "ssml: "),
        ({"pause": -1}, "pause", "pause: sentence must be a number of seconds from 0 to 60, not -1"),
        ({"pause": [0.1, 61]}, "pause", "pause: paragraph must be a number of seconds from 0 to 60, not 61"),
        ({"pause": [1, 1, 1]}, "pause", "pause must be seconds between sentences, or (sentences, paragraphs)"),
        ({"pause": "long"}, "pause", "pause must be seconds between sentences, or (sentences, paragraphs)"),
        ({"pause": True}, "pause", "pause: sentence must be a number of seconds"),
    ):
        answer = server.http.post("/v1/audio/speech", json={"input": "Yes & no.", **body}, timeout=60)
        assert answer.status_code == 400, (body, answer.text)
        told = answer.json()["error"]
        assert told["param"] == param and said in told["message"], (body, told)
    _, events = talk(server, ["Yes & ", "no."], ssml=True)
    assert events[-1]["type"] == "error" and "SSML, line 1" in events[-1]["error"]["message"]
    _, events = talk(server, ["Yes."], pause=[])
    assert events[-1]["type"] == "error" and "pause must be seconds" in events[-1]["error"]["message"]


def test_a_front_end_that_reads_plain_text_alone(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain:
        segments, phonemes = tts.front_end.segments, tts.front_end.phonemes
        speakers, num_token_ids = tts.front_end.speakers, tts.front_end.num_token_ids

    monkeypatch.setattr(tts, "front_end", Plain())
    with Scheduler(tts, start=False) as scheduler:
        scheduler.speak(Ask("Yes."))
        with pytest.raises(ConfigError, match="takes no pauses, no lexicon and no SSML"):
            scheduler.speak(Ask("Yes.", reading=Reading(ssml=True)))
    with pytest.raises(ConfigError, match="reading must be a Reading, not float"):
        Ask("Yes.", reading=0.5)  # type: ignore[arg-type]


def test_the_command(
    tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `serve --pause --lexicon` makes the application of."""
    made: list[ServerSettings] = []
    warmed: list[Reading] = []

    def create_app(scheduler: Any, settings: ServerSettings) -> Any:
        made.append(settings)
        raise ConfigError("far enough")

    monkeypatch.setattr(spear_spec.serving.app, "create_app", create_app)
    monkeypatch.setattr("spear_spec.cli.serve._log", lambda text: None)
    monkeypatch.setattr("spear_spec.serving.warm_up.warm_up", lambda scheduler, reading: warmed.append(reading))
    (tmp_path / "own.tsv").write_text("nguyen\t/nwɪn/\n")
    asked = ["serve", "--voice", str(tts.bundle.path), "--device", "cpu", "--port", "0"]
    assert main([*asked, "--pause", ".2,.5", "--lexicon", str(tmp_path / "own.tsv")]) == 2
    [settings] = made
    lexicon = settings.reading.lexicon
    assert settings.reading.pauses == Reading.of(HOUSE).pauses and not settings.reading.ssml
    assert lexicon is not None and list(lexicon.entries) == ["nguyen"]
    assert warmed == [settings.reading]
    capsys.readouterr()
    assert main([*asked, "--pause", "99"]) == 2
    assert "seconds from 0 to 60, not 99" in capsys.readouterr().err
    assert main([*asked, "--lexicon", str(tmp_path / "none")]) == 2
    assert "cannot read the lexicon" in capsys.readouterr().err


def test_replicas() -> None:
    """The same of a deployment, as `serve run` gives it."""
    given = Replicas.read({"lexicon": "own.tsv", "pause": "[0.2, 0.5]"})
    assert given.lexicon == "own.tsv" and given.pause == HOUSE and Replicas.from_dict(given.to_dict()) == given
    assert Replicas.read({"pause": "0.3"}).pause == 0.3
    with pytest.raises(ConfigError, match="from 0 to 60, not 99"):
        Replicas.read({"pause": "99"})
    with pytest.raises(ConfigError, match="lexicon must be a text"):
        Replicas.from_dict({"lexicon": 5})
