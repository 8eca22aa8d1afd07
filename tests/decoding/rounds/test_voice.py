"""The shipped voice by whole rounds: what it says, and that `verify` finds nothing."""

from __future__ import annotations

import numpy as np
import pytest

from spear_spec import TTS
from spear_spec.errors import ConfigError
from spear_spec.exactness.verify import verify_drafter


@pytest.fixture(scope="module")
def eager() -> TTS:
    return TTS.load(dtype="float64", threads=1)


def test_it_says_the_same(eager: TTS) -> None:
    """Two sentences together, streamed; in float64 no draw is moved by rounding."""
    graphs = TTS.load(dtype="float64", threads=1, runtime="graphs")
    assert graphs.describe()["runtime"] == "graphs"
    audio = [tts.synthesize("It rains. It pours.", batch=2, seed=3) for tts in (eager, graphs)]
    assert audio[0].stats["tokens"] == audio[1].stats["tokens"] > 20
    np.testing.assert_array_equal(audio[0].samples, audio[1].samples)


def test_verify_finds_nothing() -> None:
    result = verify_drafter(
        TTS.load(threads=1, runtime="graphs"), texts=["It rains.", "Good morning!"], samples=120, batch=4
    )
    assert result["pass"], result


def test_a_runtime_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match="eager, graphs, auto"):
        TTS.load(runtime="fast")
