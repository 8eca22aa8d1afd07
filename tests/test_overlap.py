"""Sound made in a thread beside the decoding: the same audio, in order, and nothing of it lingers."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from spear_spec import meter as meters
from spear_spec import saying
from spear_spec.acoustic.behind import MOST_WAITING, Behind
from spear_spec.acoustic.unit.native import NativeStream
from spear_spec.acoustic.unit.stage import UnitStage
from spear_spec.engine import Engine
from spear_spec.errors import NumericsError
from spear_spec.kernels import native
from spear_spec.meter import Meter
from spear_spec.pipeline import TTS, AudioChunk
from tests.stubs.voice import make_voice

TEXT = "It rained all day. Nobody minded. The river rose."
HERE = threading.get_ident


@pytest.fixture(scope="module")
def tts(tmp_path_factory: pytest.TempPathFactory) -> TTS:
    return TTS.load(make_voice(tmp_path_factory.mktemp("voices") / "tiny").path, device="cpu")


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with --threads 2; torch itself keeps the threads it has, or its sums might differ."""
    monkeypatch.delenv(native.SWITCH, raising=False)
    monkeypatch.setattr(saying.torch, "get_num_threads", lambda: 2)


def sound_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("spear_spec-sound")]


def pieces(tts: TTS, **options: int) -> list[tuple[bytes, int, str, str | None]]:
    return [(c.samples.tobytes(), c.sentence, c.text, c.ended) for c in tts.stream(TEXT, seed=4, **options)]


def listen(tts: TTS, heard: list[AudioChunk]) -> None:
    for chunk in tts.stream(TEXT, seed=4):
        heard.append(chunk)


@pytest.mark.parametrize("batch", [1, 3])
def test_the_same_pieces_in_the_same_order(tts: TTS, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)
    where: set[int] = set()
    push = NativeStream.push

    def watched(self: NativeStream, tokens: torch.Tensor) -> torch.Tensor:
        where.add(HERE())
        return push(self, tokens)

    monkeypatch.setattr(NativeStream, "push", watched)
    monkeypatch.setattr(saying.torch, "get_num_threads", lambda: 1)
    alone = pieces(tts, batch=batch)
    assert where == {HERE()}
    where.clear()
    monkeypatch.setattr(saying.torch, "get_num_threads", lambda: 2)
    assert pieces(tts, batch=batch) == alone
    assert len(where) == 1 and HERE() not in where
    assert sound_threads() == []


def test_the_next_sentence_is_decoded_meanwhile(tts: TTS, two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the first sentence's sound waits for a step of the second, which comes only if both are under way."""
    second, finish, admitted, missed = threading.Event(), NativeStream.finish, [], []
    admit, step = Engine.admit, Engine.step

    def watched_admit(self: Engine, requests: list[object]) -> object:
        admitted.extend(requests)
        return admit(self, requests)  # type: ignore[arg-type]

    def watched_step(self: Engine) -> object:
        if len(admitted) == 2:
            second.set()
        return step(self)

    def late(self: NativeStream) -> torch.Tensor:
        if len(admitted) <= 2 and not second.wait(20):
            missed.append(1)
        return finish(self)

    monkeypatch.setattr(Engine, "admit", watched_admit)
    monkeypatch.setattr(Engine, "step", watched_step)
    monkeypatch.setattr(NativeStream, "finish", late)
    monkeypatch.setattr(meters, "AUDIBLE", 0)  # until something has been heard, every piece is waited for
    chunks = list(tts.stream(TEXT, seed=4))
    assert [c.sentence for c in chunks if c.ended] == [0, 1, 2] and chunks[0].ended is None
    assert not missed


def test_the_meter_counts_what_was_waited_for(tts: TTS, two: None) -> None:
    meter = Meter(tts.sample_rate)
    audio = tts.synthesize(TEXT, meter=meter)
    assert meter.acoustic_s == 0 and meter.behind_s > 0 and meter.wait_s > 0
    assert audio.stats["acoustic_s"] == pytest.approx(meter.behind_s, abs=1e-4)
    assert meter.compute_s == pytest.approx(meter.front_s + meter.t2s_s + meter.wait_s)


@pytest.mark.parametrize("error", [NumericsError("damaged"), KeyboardInterrupt()])
def test_an_error_of_the_stage_comes_through(
    tts: TTS, two: None, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, calls = NativeStream.finish, []

    def broken(self: NativeStream) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:
            raise error
        return finish(self)

    monkeypatch.setattr(NativeStream, "finish", broken)
    heard: list[AudioChunk] = []
    with pytest.raises(type(error)):
        listen(tts, heard)
    assert [c.sentence for c in heard if c.ended] == [0]
    assert sound_threads() == []


def test_what_was_decoded_before_an_error_is_heard(tts: TTS, two: None, monkeypatch: pytest.MonkeyPatch) -> None:
    admit, calls = Engine.admit, []

    def broken(self: Engine, requests: list[object]) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise NumericsError("the target")
        return admit(self, requests)  # type: ignore[arg-type]

    monkeypatch.setattr(Engine, "admit", broken)
    heard: list[AudioChunk] = []
    with pytest.raises(NumericsError, match="the target"):
        listen(tts, heard)
    assert heard[-1].ended is not None and {c.sentence for c in heard} == {0}
    assert sound_threads() == []


def test_a_listener_who_leaves_takes_the_thread_along(tts: TTS, two: None) -> None:
    stream = tts.stream(TEXT)
    next(stream)
    assert len(sound_threads()) == 1
    stream.close()  # type: ignore[attr-defined]
    assert sound_threads() == []


def test_who_overlaps(tts: TTS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)
    monkeypatch.setattr(saying.torch, "get_num_threads", lambda: 2)
    assert saying.beside(tts.stage)
    monkeypatch.setenv(native.SWITCH, "0")  # torch would want both threads
    assert not saying.beside(tts.stage)
    monkeypatch.delenv(native.SWITCH)
    monkeypatch.setattr(saying.torch, "get_num_threads", lambda: 1)
    assert not saying.beside(tts.stage)
    monkeypatch.setattr(saying.torch, "get_num_threads", lambda: 2)
    monkeypatch.delattr(UnitStage, "overlaps")  # as of a stage that does not know of it
    assert not saying.beside(tts.stage)


def test_jobs_are_bounded_and_dropped_when_left() -> None:
    begun, go = [], threading.Event()

    def job(name: int) -> int:
        begun.append(name)
        assert go.wait(20)
        return name

    def jobs() -> Iterator[int]:
        with Behind[int](threaded=True) as behind:
            for name in range(9):
                assert behind.waiting <= MOST_WAITING
                while behind.full:
                    go.set()
                    yield behind.take()
                behind.submit(lambda name=name: job(name))  # type: ignore[misc]

    given = jobs()
    assert next(given) == 0 and next(given) == 1
    go.clear()
    threading.Timer(0.2, go.set).start()
    given.close()  # type: ignore[attr-defined]
    assert begun[:2] == [0, 1] and len(begun) <= 2 + MOST_WAITING and sound_threads() == []
    with Behind[int](threaded=False) as behind:
        behind.submit(lambda: HERE())
        assert behind.full and behind.ready and behind.take() == HERE() and not behind.waiting
    assert np.isfinite(begun).all()
