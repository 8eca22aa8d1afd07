"""A server that speaks through another acoustic stage than the voice's own, one that waits for whole sentences."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from spear_spec import TTS
from spear_spec.audio import to_int16
from spear_spec.cli import serve
from spear_spec.cli.options import build_parser
from spear_spec.errors import BundleError
from spear_spec.serving.scheduler import Scheduler
from spear_spec.serving.warm_up import warm_up
from spear_spec.text import Reading
from tests.serving.live import Live, live
from tests.stubs.audiolm import RATE, make_stage

TEXTS = ("Yes, I do. Not now.", "It rained.", "One. Two.")


@pytest.fixture(scope="module")
def stage(tts: TTS, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_stage(tmp_path_factory.mktemp("stages") / "toy", tts.bundle)


@pytest.fixture(scope="module")
def server(tts: TTS, stage: Path) -> Iterator[Live]:
    with Scheduler(TTS.load(tts.bundle.path, "cpu", drafter="none", acoustic=stage)) as scheduler:
        warm_up(scheduler, Reading())  # every encoder takes its rate
        with live(scheduler) as one:
            yield one


def test_listeners_hear_what_each_hears_alone(server: Live, tts: TTS, stage: Path) -> None:
    alone = TTS.load(tts.bundle.path, "cpu", drafter="none", acoustic=stage)

    def ask(seed: int) -> Any:
        body = {"input": TEXTS[seed], "seed": seed, "response_format": "wav", "voice": "am_michael"}
        return server.http.post("/v1/audio/speech", json=body, timeout=60)

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(ask, range(3)))
    for seed, answer in enumerate(answers):
        assert answer.status_code == 200 and answer.headers["x-spear-spec-sample-rate"] == str(RATE)
        heard, rate = soundfile.read(io.BytesIO(answer.content), dtype="int16")
        assert rate == RATE
        wanted = alone.synthesize(TEXTS[seed], seed=seed, speaker="am_michael").samples
        np.testing.assert_array_equal(heard, to_int16(wanted))


def test_the_command(tts: TTS, stage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[TTS] = []

    class Enough(Exception):
        pass

    def scheduler(tts: TTS, *_: Any, **__: Any) -> None:
        made.append(tts)
        raise Enough

    monkeypatch.setattr("spear_spec.serving.scheduler.Scheduler", scheduler)
    monkeypatch.setattr("spear_spec.cli.serve._log", lambda text: None)
    asked = ["serve", "--voice", str(tts.bundle.path), "--device", "cpu", "--port", "0", "--acoustic"]
    with pytest.raises(Enough):
        serve.run(build_parser().parse_args([*asked, str(stage)]))
    assert made[0].sample_rate == RATE and made[0].acoustic == stage
    with pytest.raises(BundleError, match="has no acoustic stage 'none'"):
        serve.run(build_parser().parse_args([*asked, "none"]))
