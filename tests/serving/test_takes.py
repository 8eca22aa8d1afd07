"""Several takes of each sentence for listeners of a server: what each hears is `synthesize` with best_of, alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from spear_spec.audio import FloatArray
from spear_spec.errors import ConfigError
from spear_spec.pipeline import TTS
from spear_spec.serving.limits import Limits
from spear_spec.serving.scheduler import Scheduler
from spear_spec.serving.speech import Ask
from tests.serving.driven import prepared, sound, there, usage

TEXTS = ["It rained all day. Nobody minded. The river rose.", "One.", "A letter came; nobody read it."]


class Loudest:
    """A judge that hears."""

    name = "loudest"

    def score(self, samples: FloatArray, sample_rate: int) -> float:
        return float(np.abs(samples).mean())


@pytest.mark.parametrize("judge", [Loudest(), "likelihood"])
@pytest.mark.parametrize("beside", [True, False])
def test_listeners_hear_the_best_take_of_each_sentence(tts: TTS, judge: Any, beside: bool) -> None:
    with Scheduler(tts, Limits(rows=4), judge=judge, beside=beside) as scheduler:
        answers = [
            scheduler.speak(Ask(text, seed=seed, best_of=best_of))
            for seed, text in enumerate(TEXTS)
            for best_of in (3, None)
        ]
        heard = [list(answer) for answer in answers]
        assert scheduler.drain(20)
        state = scheduler.state()
    chosen = set()
    for n, events in enumerate(heard):
        seed, best_of = n // 2, 1 if n % 2 else 3
        alone = tts.synthesize(TEXTS[seed], seed=seed, best_of=best_of, judge=judge)
        assert np.array_equal(sound(events), alone.samples), n
        told: Any = usage(events)
        assert told.get("best_of", []) == alone.stats["best_of"]["sentences"] if best_of > 1 else "best_of" not in told
        assert told["tokens"] == alone.stats["tokens"]
        chosen |= {one["chosen"] for one in told.get("best_of", ())}
    assert len(chosen) > 1  # else the first take would always do
    assert state.totals.sentences == 2 * sum(len(tts.texts([text])) for text in TEXTS) and state.rows == 0


def test_a_server_may_take_several_of_every_text(tts: TTS) -> None:
    with Scheduler(tts, best_of=2, judge="likelihood") as scheduler:
        plain = list(scheduler.speak(Ask("One.", seed=1)))
        greedy = list(scheduler.speak(Ask("One.", seed=1, sampling={"temperature": 0})))
        once = list(scheduler.speak(Ask("One.", seed=1, best_of=1)))
        written = list(scheduler.speak(Ask("One.", seed=1, tokens=True)))
    assert len(usage(plain)["best_of"]) == 1  # type: ignore[arg-type]
    assert all("best_of" not in usage(events) for events in (greedy, once, written))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"best_of": 9}, "at most 8"),
        ({"best_of": 2, "tokens": True}, "leave best_of out"),
        ({"best_of": 2, "sampling": {"temperature": 0}}, "temperature above 0"),
    ],
)
def test_takes_that_cannot_be(tts: TTS, options: dict[str, Any], message: str) -> None:
    with Scheduler(tts, start=False) as scheduler, pytest.raises(ConfigError, match=message):
        scheduler.speak(Ask("One.", **options))


def test_rows_count_takes_and_are_free_when_the_listener_leaves(driven: Callable[..., Scheduler]) -> None:
    scheduler = driven(rows=4)
    first, second = (scheduler.speak(Ask("A letter came and went.", seed=seed, best_of=3)) for seed in (1, 2))
    prepared(scheduler)
    scheduler.work_step()
    assert scheduler.state().rows == 6  # each has heard nothing: his first sentence waits for nobody
    first.cancel()
    scheduler.work_step()
    assert scheduler.state().rows == 3
    second.cancel()
    scheduler.work_step()
    assert scheduler.state().rows == 0
    assert there(first)
