"""Voices of a server that are prompts."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from websockets.sync.client import connect

import spear_spec.serving.app
from spear_spec import TTS
from spear_spec.acoustic.contract import Heard
from spear_spec.audio import to_int16
from spear_spec.cli import main
from spear_spec.errors import AudioError, ConfigError
from spear_spec.serving.prompts import hear_prompts, prompt_files
from spear_spec.serving.scheduler import Scheduler
from spear_spec.serving.settings import ServerSettings
from spear_spec.serving.speech import Ask
from tests.serving.live import Live, live
from tests.stubs.hearing import KIND, HearingStage, hearing_voice
from tests.stubs.speech import RATE, chords, speech

TEXT = "Yes, I do. Not now."


@pytest.fixture(scope="module")
def voice(tts: TTS, tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(hearing_voice(tts.bundle.path, tmp_path_factory.mktemp("voices") / "hearing"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts")
    soundfile.write(path / "anna.wav", speech()[: 3 * RATE], RATE)
    soundfile.write(path / "ben.flac", speech()[2 * RATE :], RATE)
    (path / "notes.txt").touch()
    (path / ".hidden.wav").touch()
    return path


@pytest.fixture(scope="module")
def hearing(voice: str) -> TTS:
    return TTS.load(voice, "cpu", drafter="none")


@pytest.fixture(scope="module")
def server(hearing: TTS, folder: Path) -> Iterator[Live]:
    prompts = hear_prompts(hearing, prompt_files(folder, hearing.speakers))
    with Scheduler(hearing) as scheduler, live(scheduler, prompts=prompts, voice_names={"alloy": "ben"}) as one:
        yield one


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ask(server: Live, voice: str | None, form: str = "pcm", **more: Any) -> Any:
    body = {"input": TEXT, "seed": 5, "response_format": form, **({} if voice is None else {"voice": voice}), **more}
    answer = server.http.post("/v1/audio/speech", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def test_a_prompt_is_a_voice(server: Live, voice: str, folder: Path) -> None:
    alone = TTS.load(voice, "cpu", drafter="none")
    for name, prompt in (("anna", "anna.wav"), ("ben", "ben.flac"), ("alloy", "ben.flac")):
        answer = ask(server, name)
        wanted = to_int16(alone.synthesize(TEXT, seed=5, voice=folder / prompt).samples)
        np.testing.assert_array_equal(np.frombuffer(answer.content, "<i2"), wanted)
        assert answer.headers["x-spear-spec-voice"] == Path(prompt).stem
        told = answer.headers["x-spear-spec-provenance"]
        assert told.startswith("synthetic speech; ") and f"prompt-sha256={digest(folder / prompt)}" in told
    plain = ask(server, None)
    assert "x-spear-spec-provenance" not in plain.headers
    np.testing.assert_array_equal(np.frombuffer(plain.content, "<i2"), to_int16(alone.synthesize(TEXT, seed=5).samples))


def test_at_another_speed(server: Live, voice: str, folder: Path) -> None:
    wanted = TTS.load(voice, "cpu", drafter="none").synthesize(TEXT, seed=5, voice=folder / "anna.wav", speed=1.5)
    np.testing.assert_array_equal(
        np.frombuffer(ask(server, "anna", speed=1.5).content, "<i2"), to_int16(wanted.samples)
    )


@pytest.mark.parametrize("form", ["wav", "flac", "opus", "mp3", "aac"])
def test_what_the_answer_says_of_itself(server: Live, folder: Path, form: str) -> None:
    data, plain = ask(server, "anna", form).content, ask(server, "af_heart", form).content
    assert (digest(folder / "anna.wav") in comment(data)) == (form != "aac")  # which has no place for it
    assert comment(plain) == ""
    if form == "wav":
        assert soundfile.read(io.BytesIO(data))[1] == 24_000
        assert plain[36:40] == b"data"


def comment(data: bytes) -> str:
    with av.open(io.BytesIO(data)) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) > 20_000
        tags = {**container.metadata, **container.streams.audio[0].metadata}
    return next((value for name, value in tags.items() if name.lower() == "comment"), "")


def test_lists(server: Live, folder: Path) -> None:
    listed = {one["id"]: one for one in server.http.get("/v1/audio/voices").json()["voices"]}
    assert list(listed)[:4] == ["af_heart", "am_michael", "anna", "ben"]
    assert listed["anna"]["prompt_sha256"] == digest(folder / "anna.wav") and not listed["anna"]["default"]
    assert listed["alloy"]["stands_for"] == "ben" and "prompt_sha256" not in listed["af_heart"]
    schemas = server.http.get("/openapi.json").json()["components"]["schemas"]
    assert {"anna", "ben"} <= set(schemas["VoiceId"]["properties"]["id"]["enum"])
    answer = server.http.post("/v1/audio/speech", json={"input": TEXT, "voice": "carl"})
    assert answer.status_code == 400 and "af_heart, am_michael, anna, ben" in answer.json()["error"]["message"]


def test_a_socket(server: Live, folder: Path) -> None:
    with connect(f"ws://127.0.0.1:{server.port}/v1/audio/speech/stream") as socket:
        socket.send(json.dumps({"type": "session.start", "voice": "anna", "seed": 5}))
        started = json.loads(socket.recv())
        assert started["voice"] == "anna" and digest(folder / "anna.wav") in started["provenance"]
        socket.send(json.dumps({"type": "end"}))


def test_a_voice_that_takes_none(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HearingStage, "prompt", None)
    with pytest.raises(ConfigError, match="takes no prompts"):
        server.scheduler.speak(Ask("Yes.", voice=Heard(1.0, KIND)))
    with pytest.raises(ConfigError, match="one that was heard"):
        Ask("Yes.", voice="anna.wav")  # type: ignore[arg-type]


def test_folders(hearing: TTS, folder: Path, tmp_path: Path) -> None:
    speakers = hearing.speakers
    assert prompt_files(folder, speakers) == {"anna": folder / "anna.wav", "ben": folder / "ben.flac"}
    for place, what in ((tmp_path / "none", "No such file"), (tmp_path, "there are no prompts in")):
        with pytest.raises(ConfigError, match=what):
            prompt_files(place, speakers)
    (tmp_path / "af_heart.wav").touch()
    with pytest.raises(ConfigError, match="called as a speaker of the voice is"):
        prompt_files(tmp_path, speakers)
    (tmp_path / "af_heart.wav").rename(tmp_path / "x.wav")
    (tmp_path / "x.flac").touch()
    with pytest.raises(ConfigError, match="have one name"):
        prompt_files(tmp_path, speakers)
    (tmp_path / "x.flac").unlink()
    soundfile.write(tmp_path / "x.wav", chords(), RATE)
    with pytest.raises(AudioError, match=r"prompt x: .*holds music"):
        hear_prompts(hearing, prompt_files(tmp_path, speakers))


def test_the_command(
    voice: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `serve --prompts` makes the application of."""
    made: list[ServerSettings] = []

    def create_app(scheduler: Any, settings: ServerSettings) -> Any:
        made.append(settings)
        raise ConfigError("far enough")

    monkeypatch.setattr(spear_spec.serving.app, "create_app", create_app)
    monkeypatch.setattr("spear_spec.cli.serve._log", lambda text: None)
    monkeypatch.setattr("spear_spec.serving.warm_up.warm_up", lambda scheduler, reading: None)
    asked = ["serve", "--voice", voice, "--device", "cpu", "--port", "0", "--prompts"]
    assert main([*asked, str(folder), "--voice-name", "nova=anna"]) == 2
    [settings] = made
    assert {name: heard.sha256 for name, heard in settings.prompts.items()} == {
        "anna": digest(folder / "anna.wav"), "ben": digest(folder / "ben.flac"),
    }  # fmt: skip
    assert settings.voice_names == {"nova": "anna"}
    assert main([*asked, str(tmp_path)]) == 2
    assert "there are no prompts in" in capsys.readouterr().err
    assert main([*asked, str(folder), "--voice-name", "nova=carl"]) == 2
    assert "nova=carl: the voice's speakers are af_heart, am_michael, anna, ben" in capsys.readouterr().err
