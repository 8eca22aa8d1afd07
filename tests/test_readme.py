"""The README's Python is run as it stands, with the voice that ships; what it leaves open is filled in here.

The example of the section on exactness has a test of its own (`decoding/test_verify_drafter.py`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import spear_spec
from spear_spec.serving.scheduler import Scheduler, for_serving
from tests.serving.live import live
from tests.stubs.hearing import hearing_voice
from tests.stubs.speech import RATE, speech
from tests.stubs.voice import make_voice

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = [block.split("```")[0] for block in README.split("```python\n")[1:]]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(code: str, **given: Any) -> dict[str, Any]:
    exec(compile(code, "README.md", "exec"), given)
    return given


def test_every_block_is_run() -> None:
    """Another block needs another test."""
    told = ("for chunk in tts.stream", "anna.wav", "from openai", "verify_drafter", 'drafter="medusa"', "engine.admit")
    assert [[words in block for words in told] for block in BLOCKS] == np.eye(len(told), dtype=bool).tolist()


def test_first_steps() -> None:
    heard: list[Any] = []
    after = run(BLOCKS[0], long_text="One more. And another.", play=heard.append)
    samples, rate = soundfile.read("fox.wav", dtype="float32")
    assert rate == after["audio"].sample_rate
    np.testing.assert_allclose(samples, after["audio"].samples, atol=1e-4)
    whole = after["tts"].synthesize("One more. And another.").samples
    assert len(heard) > 2
    np.testing.assert_array_equal(np.concatenate(heard), whole)
    assert after["plain"].describe()["drafter"] == "none"


def test_a_prompt(tmp_path: Path) -> None:
    voice = str(hearing_voice(make_voice(tmp_path / "tiny").path, tmp_path / "hearing"))
    soundfile.write("anna.wav", speech(), RATE)
    after = run(BLOCKS[1], spear_spec=spear_spec, VOICE=voice)
    heard = after["tts"].hear("anna.wav")
    assert np.array_equal(after["audio"].samples, after["tts"].synthesize("Hello there.", voice=heard).samples)
    assert heard.sha256 in after["audio"].tags["comment"]


def test_a_server_that_is_asked() -> None:
    tts = for_serving(spear_spec.TTS.load(device="cpu"))
    with Scheduler(tts) as scheduler, live(scheduler) as server:
        run(BLOCKS[2].replace("http://127.0.0.1:8880", server.url))
    samples, rate = soundfile.read("hello.mp3", dtype="float32")
    assert rate == tts.sample_rate
    assert 0.3 < len(samples) / rate < 4 and np.abs(samples).max() > 0.1


def test_other_ways_to_draft() -> None:
    given = run(BLOCKS[3].split("\nresult = ")[0])  # the class
    names: list[str] = []
    for line in BLOCKS[4].strip().splitlines():
        given = run(line, **given)
        names.append(given["tts"].describe()["drafter"])
    assert names == ["eagle", "medusa", "repeat"]
    assert given["tts"].synthesize("Yes.", max_tokens=30).stats["drafted"] > 0


def test_requests_that_come_and_go() -> None:
    given = run(BLOCKS[5], spear_spec=spear_spec)
    first, second, third = given["first"], given["second"], given["third"]
    assert (first.ended, second.ended) == ("eos", "cancelled")
    assert third.ended in ("eos", "cap") and 0 < len(third.tokens) <= 60
    assert not given["engine"].running
    decoder = given["tts"]._steady().decoder  # of one draft length: only then is a take what it is alone
    (alone,) = decoder.engine().run([third.request])
    beside = decoder.engine().run([first.request, third.request])[1]
    assert beside.tokens == alone.tokens, "the row beside it has no say"
