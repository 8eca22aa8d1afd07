"""A replica of a Ray deployment, without Ray: the settings that it is told reach what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from spear_spec import TTS
from spear_spec.audio import to_int16
from spear_spec.cli import main
from spear_spec.errors import ConfigError
from spear_spec.serving.draft_lengths import for_serving
from spear_spec.serving.ray import Replica, Replicas
from tests.stubs.audiolm import RATE, make_stage
from tests.stubs.prompting import prompting_voice
from tests.stubs.speech import RATE as PROMPT_RATE
from tests.stubs.speech import speech

TEXT = "Mr. Nguyen came. He left."


@pytest.fixture(scope="module")
def told(tts: TTS, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A replica's settings."""
    folder = tmp_path_factory.mktemp("replica")
    (folder / "prompts").mkdir()
    soundfile.write(folder / "prompts/anna.wav", speech()[: 3 * PROMPT_RATE], PROMPT_RATE)
    (folder / "own.tsv").write_text("nguyen\t/nwɪn/\n")
    voice = prompting_voice(tts.bundle, folder / "voice")
    return {
        "voice": str(voice), "prompts": str(folder / "prompts"), "lexicon": str(folder / "own.tsv"), "pause": [0.3],
    }  # fmt: skip


@pytest.fixture(scope="module")
def client(told: dict[str, Any]) -> Iterator[TestClient]:
    replica = Replica(told)
    with TestClient(replica.application) as client:
        yield client
    replica.scheduler.close()


def test_prompts_lexicon_and_pauses(client: TestClient, told: dict[str, Any]) -> None:
    alone = for_serving(TTS.load(told["voice"], "cpu"))
    reading = {"seed": 5, "pause": 0.3, "lexicon": told["lexicon"]}
    for voice, sound in (("anna", Path(told["prompts"]) / "anna.wav"), ("am_michael", "am_michael")):
        body = {"input": TEXT, "voice": voice, "seed": 5, "response_format": "pcm"}
        answer = client.post("/v1/audio/speech", json=body)
        assert answer.status_code == 200, answer.text
        whose = {"voice": sound} if voice == "anna" else {"speaker": sound}
        wanted = alone.synthesize(TEXT, **reading, **whose).samples
        np.testing.assert_array_equal(np.frombuffer(answer.content, "<i2"), to_int16(wanted))
    assert "anna" in {one["id"] for one in client.get("/v1/audio/voices").json()["voices"]}


def test_another_stage(told: dict[str, Any], tts: TTS, tmp_path: Path) -> None:
    stage = make_stage(tmp_path / "stage", tts.bundle)
    replica = Replica({"voice": str(tts.bundle.path), "acoustic": str(stage)})
    try:
        assert replica.scheduler.sample_rate == RATE
    finally:
        replica.scheduler.close()
    with pytest.raises(ConfigError, match="this voice takes no prompts"):
        Replica({"voice": str(tts.bundle.path), "prompts": told["prompts"]})


def test_takes_names_and_origins(tts: TTS) -> None:
    told = {"best_of": 2, "judge": "likelihood", "voice_names": {"anna": "am_michael"}, "origins": ["https://a.org"]}
    replica = Replica(Replicas(voice=str(tts.bundle.path), **told).to_dict())  # type: ignore[arg-type]
    alone = for_serving(TTS.load(str(tts.bundle.path), "cpu"))
    body = {"input": TEXT, "voice": "anna", "seed": 5, "response_format": "pcm"}
    try:
        with TestClient(replica.application) as client:
            for given, best_of in ({}, 2), ({"best_of": 3.0}, 3), ({"best_of": 1}, 1), ({"temperature": 0}, 1):
                answer = client.post("/v1/audio/speech", json={**body, **given}, headers={"Origin": "https://a.org"})
                assert answer.status_code == 200, answer.text
                assert answer.headers["access-control-allow-origin"] == "https://a.org"
                law = {name: value for name, value in given.items() if name == "temperature"}
                judge = {"best_of": best_of, "judge": "likelihood"}
                wanted = alone.synthesize(TEXT, seed=5, speaker="am_michael", **judge, **law).samples
                np.testing.assert_array_equal(np.frombuffer(answer.content, "<i2"), to_int16(wanted))
            for bad in ({"best_of": 9}, {"best_of": 0}, {"best_of": 2, "temperature": 0}):
                answer = client.post("/v1/audio/speech", json={**body, **bad})
                assert answer.status_code == 400 and "best_of" in answer.json()["error"]["message"]
    finally:
        replica.scheduler.close()


def test_the_command(
    told: dict[str, Any], tts: TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `serve --ray` tells the replicas: paths are found from any folder."""
    made: list[Replicas] = []

    def read(values: dict[str, Any]) -> Replicas:
        made.append(Replicas(**values))
        raise ConfigError("far enough")

    stage = make_stage(tmp_path / "stage", tts.bundle)
    monkeypatch.setattr(Replicas, "from_dict", read)
    monkeypatch.chdir(Path(told["voice"]).parent)
    asked = ["serve", "--ray", "--voice", told["voice"], "--prompts", "prompts", "--lexicon", "own.tsv"]
    asked += ["--complete", "on", "--best-of", "9", "--voice-name", "x=am_michael", "--cors-origin", "https://a.org"]
    assert main([*asked, "--pause", ".2,.5", "--acoustic", str(stage), "--replicas", "1:3"]) == 2
    assert "far enough" in capsys.readouterr().err
    [given] = made
    assert (given.prompts, given.lexicon) == (told["prompts"], told["lexicon"])
    assert list(given.pause or ()) == [0.2, 0.5] and given.acoustic == str(stage)  # type: ignore[arg-type]
    assert (given.min_replicas, given.max_replicas) == (1, 3)
    assert (given.complete, given.best_of, given.limits.takes) == ("on", 9, 9)
    assert (given.voice_names, list(given.origins)) == ({"x": "am_michael"}, ["https://a.org"])
