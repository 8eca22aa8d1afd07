"""Sentences that leave out words are drawn again for listeners of a server, too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from spear_spec import TTS
from spear_spec.serving.limits import Limits
from spear_spec.serving.scheduler import Scheduler
from spear_spec.serving.speech import Ask, Done, Sound
from tests.stubs.voice import make_voice

TEXTS = ["It rained. Nobody minded.", "One.", "A letter came; nobody read it."]


@pytest.mark.parametrize("how", [True, "stream"])
def test_listeners_hear_what_each_hears_alone(how: bool | str, tmp_path: Path) -> None:
    tts = TTS.load(make_voice(tmp_path / "tiny", depth=3).path, device="cpu")
    with Scheduler(tts, Limits(rows=2), complete=how) as scheduler:
        answers = [scheduler.speak(Ask(text, seed=seed)) for seed, text in enumerate(TEXTS)]
        heard = [list(answer) for answer in answers]
        assert scheduler.drain(20)
        told = scheduler.state().totals.sentences
    redrawn = 0
    for seed, (text, events) in enumerate(zip(TEXTS, heard)):
        alone = tts.synthesize(text, seed=seed, complete=how)
        redrawn += alone.stats["redrawn"]
        assert isinstance(events[-1], Done)
        np.testing.assert_array_equal(
            np.concatenate([e.samples for e in events if isinstance(e, Sound)]), alone.samples
        )
    assert redrawn > 0
    assert told == sum(len(tts.texts([text])) for text in TEXTS)  # a try that is drawn again is no sentence more
