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
from spear_spec.errors import ConfigError
from spear_spec.serving.draft_lengths import for_serving
from spear_spec.serving.ray import Replica
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
