"""/openapi.json is true: schemathesis asks what it allows and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from tests.serving.live import Live, live
from tests.serving.stub_scheduler import StubScheduler

EXAMPLES = {"/v1/audio/speech": 40, "/v1/models/{model}": 10}  # the others take nothing
MODES = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with live(StubScheduler(pieces=1), characters=200) as one:
        yield one


@pytest.fixture(scope="module")
def document(server: Live) -> dict[str, Any]:
    answer: dict[str, Any] = server.http.get("/openapi.json").json()
    return answer


def test_what_stands_in_it(document: dict[str, Any]) -> None:
    assert set(document["paths"]) >= {
        "/v1/audio/speech", "/v1/audio/voices", "/v1/models", "/v1/models/{model}", "/healthz", "/readyz", "/metrics",
    }  # fmt: skip
    speech = document["paths"]["/v1/audio/speech"]["post"]
    assert set(speech["responses"]) == {"200", "400", "401", "404", "408", "413", "415", "429", "500", "503"}
    assert set(speech["responses"]["200"]["content"]) == {
        "audio/mpeg", "audio/ogg", "audio/aac", "audio/flac", "audio/wav", "audio/pcm", "text/event-stream",
    }  # fmt: skip
    fields = document["components"]["schemas"]["SpeechRequest"]
    assert fields["properties"]["input"]["maxLength"] == 200 and fields["required"] == ["input"]
    assert fields["additionalProperties"] is False


@pytest.mark.parametrize("mode", MODES)
def test_schemathesis(mode: schemathesis.GenerationMode, server: Live, document: dict[str, Any]) -> None:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server.url)
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        most = EXAMPLES.get(operation.path, 1)
        if mode is schemathesis.GenerationMode.NEGATIVE and operation.path != "/v1/audio/speech":
            continue  # nothing that could be asked for is wrong

        @given(case=operation.as_strategy(generation_mode=mode))
        @settings(
            max_examples=most, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        def ask(case: schemathesis.Case) -> None:
            nonlocal asked
            asked += 1
            case.call_and_validate(session=None, timeout=20)

        ask()
    assert asked >= 40
