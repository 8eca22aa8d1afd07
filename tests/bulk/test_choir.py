"""Many lines together sound as each of them alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from spear_spec.bulk.choir import Choir, Spoken
from spear_spec.bulk.lines import Line
from spear_spec.bulk.settings import Settings, steady
from spear_spec.bulk.worker import Worker
from spear_spec.config import SpecConfig
from spear_spec.engine import Engine
from spear_spec.errors import NumericsError, TextError


@pytest.mark.parametrize("batch", [1, 3, 16])
def test_as_alone(worker: Worker, settings: Settings, lines: list[Line], batch: int) -> None:
    lines = [
        *lines,
        Line(9, "x", "Rain fell. All day. It did.", "am_michael", 5, None, 30, {"temperature": 0.6, "top_k": 4}),
    ]
    tts = worker.choir.tts
    results = list(Choir(tts, replace(settings, batch=batch)).speak(lines))
    assert sorted(line.number for line, _ in results) == list(range(1, 10)), "each line once"
    for line, result in results:
        options: dict[str, Any] = {
            "seed": 3 if line.seed is None else line.seed,
            "speaker": line.speaker,
            "max_tokens": line.max_tokens or 40,
            **line.sampling,
        }
        if line.text == "...":
            assert isinstance(result, TextError) and "nothing to speak" in str(result)
            continue
        assert isinstance(result, Spoken)
        alone = tts.synthesize(line.text, **options)
        assert result.audio.samples.tobytes() == alone.samples.tobytes()
        assert (result.stats.tokens, result.ended) == (alone.stats["tokens"], alone.stats["ended"])


def test_a_line_that_breaks_the_engine_goes_alone(
    worker: Worker, settings: Settings, lines: list[Line], monkeypatch: pytest.MonkeyPatch
) -> None:
    step, poison = Engine.step, worker.choir.tts.texts(["We go north."])[0]

    def broken(engine: Engine) -> Any:
        if any(list(utterance.request.ids) == poison for utterance in engine._running.values()):
            raise NumericsError
        return step(engine)

    monkeypatch.setattr(Engine, "step", broken)
    results = list(Choir(worker.choir.tts, settings).speak(lines))
    found = {line.text: result for line, result in results}
    assert len(results) == len(found) == 8
    assert isinstance(found.pop("We go north."), NumericsError)
    assert isinstance(found.pop("..."), TextError)
    assert len(found) == 6 and all(isinstance(result, Spoken) for result in found.values())


def test_warnings_are_kept_with_the_line(worker: Worker, settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    line = Line(1, "a", "Hello \u4f60\u597d.")
    [(_, result)] = Choir(worker.choir.tts, settings).speak([line])
    assert isinstance(result, Spoken) and result.warnings
    assert not caplog.records


def test_one_draft_length_whatever_the_batch() -> None:
    spec = SpecConfig(gamma=8, gammas={"4": 5, "16": 2})
    assert (steady(spec, 1).gamma, steady(spec, 8).gamma, steady(spec, 64).gamma) == (8, 5, 2)
    assert {steady(spec, 8).gamma_at(rows) for rows in (1, 4, 64)} == {5}
