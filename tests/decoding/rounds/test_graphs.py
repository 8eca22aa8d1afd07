"""The order of things around a capture, with a CUDA that is none: functions run where they would be captured, what they
changed is put back, and a replay calls them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spear_spec.config import SamplingConfig
from spear_spec.decoding import Request, make_drafter, make_verifier
from spear_spec.decoding.rounds.board import Board
from spear_spec.engine import Engine
from spear_spec.exactness.oracles import tiny_draft, tiny_model
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.runtime import graphs


@pytest.fixture(scope="module")
def model() -> TextToSemantic:
    return tiny_model(semantic=20, seed=4)


class Cuda:
    """Stands in for what `runtime/graphs.py` asks of `torch.cuda`; done: what happened, in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.streams = 0  # that were made
        self.board: Board
        self.function: Callable[[], None]
        fakes = {
            "device": lambda device: self.context("device"), "Stream": self.stream, "current_stream": lambda: self,
            "stream": lambda stream: self.context("aside"), "graph_pool_handle": lambda: (0, 1),
            "CUDAGraph": lambda: Graph(self), "graph": self.capture, "synchronize": lambda device: self.note("wait"),
        }  # fmt: skip
        for name, fake in fakes.items():
            patch.setattr(torch.cuda, name, fake)
        patch.setattr(graphs.Graphs, "captures", True)
        right = graphs.Graphs._capture

        def remember(mine: graphs.Graphs, function: Callable[[], None]) -> Any:
            self.function = function
            return right(mine, function)

        patch.setattr(graphs.Graphs, "_capture", remember)

    def stream(self) -> Cuda:
        self.streams += 1
        return self

    def note(self, what: str) -> None:
        self.done.append(what)

    def wait_stream(self, other: Any) -> None:
        self.note("after")

    @contextmanager
    def context(self, name: str) -> Iterator[None]:
        self.note(name)
        yield

    @contextmanager
    def capture(self, graph: Graph, *, pool: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        """Nothing that is captured happens. On the stream of the warm-up, the collector at rest."""
        assert pool == (0, 1) and stream is self and capture_error_mode == "thread_local" and not gc.isenabled()
        self.note("capture")
        rows, caches = self.board.rows.tensors, (self.board.runtime._k, self.board.runtime._v)
        before = [x.clone() for x in (*rows, *caches)]
        graph.function = self.function
        yield
        for x, was in zip((*rows, *caches), before):
            x.copy_(was)


class Graph:
    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.function: Callable[[], None]

    def replay(self) -> None:
        self.cuda.note("replay")
        self.function()


@pytest.mark.parametrize("rule", [None, "block"])
def test_it_captures_once_and_replays(model: TextToSemantic, rule: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made: tuple[Any, ...] = (None, None, 4)
    if rule is not None:
        made = (make_drafter("eagle", tiny_draft(model)), make_verifier(rule), 4)
    law = SamplingConfig(temperature=1.2, top_p=0.9)
    wanted = [Request([n + 1, 2], seed=n, sampling=law, cap=20) for n in range(5)]
    right = [u.tokens for u in Engine(model, *made).run(wanted)]
    cuda = Cuda(monkeypatch)
    cuda.board = board = Board(model, *made)
    busy = Engine(model, *made, board)
    busy.session.ahead = 2  # type: ignore[attr-defined]
    said = busy.admit(wanted[:2])
    busy.step()
    order = [what for what in cuda.done if what != "device"]
    assert order[:6] == ["after", "aside", "after", "capture", "replay", "after"]
    assert cuda.done.count("capture") == 2  # uniforms and the round
    for _ in range(2):
        busy.step() if busy.running else None
    assert cuda.done.count("capture") == 2
    said += busy.admit(wanted[2:])  # more rows than there was room for
    assert cuda.done[-1] == "wait" and not board.graphs._graphs
    while busy.running:
        busy.step()
    assert cuda.done.count("capture") == 2 + 1 + len(board.made) and cuda.streams == 1 and gc.isenabled()
    assert [u.tokens for u in said] == right


def test_who_goes_to_another_stream_waits_for_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[tuple[str, str]] = []

    class Stream(str):
        def wait_stream(self, other: str) -> None:
            waits.append((self, other))

    here = Stream("a")
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: here)
    made = graphs.Graphs(torch.device("cuda"), nullcontext)
    made._graphs["key"] = SimpleNamespace(replay=lambda: None)  # type: ignore[assignment]
    for name in "aabba":
        here = Stream(name)
        made.run("key", lambda: None)
    assert waits == [("b", "a"), ("a", "b")]


@pytest.mark.parametrize("what", ["clear", "room", "begin", "close"])
def test_who_writes_between_rounds_waits_too(what: str, model: TextToSemantic, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stream that is not the last one's the rows may still be in a round."""
    board = Board(model, None, None, 4)
    engine = Engine(model, None, None, 4, board)
    engine.admit([Request([1, 2], seed=1, sampling=SamplingConfig(), cap=9)])
    seen: list[bool] = []
    before = [x.clone() for x in board.rows.tensors]

    def follow(mine: graphs.Graphs) -> None:  # nothing has been written yet
        seen.append(all(torch.equal(x, was) for x, was in zip(board.rows.tensors, before)))

    monkeypatch.setattr(graphs.Graphs, "follow", follow)
    board.runtime.slots = []  # as if he had left
    with torch.inference_mode():
        memory = model.encode(torch.tensor([model.text([1, 2])]))
        sampling = [SamplingConfig()]
        calls: dict[str, Callable[[], None]] = {
            "clear": board.clear, "room": lambda: board.room(memory, sampling, [9]),
            "begin": lambda: board.begin([[3, 4]], sampling, [2], [9]), "close": lambda: board.close([0]),
        }  # fmt: skip
        calls[what]()
    assert seen and seen[0]


def test_a_message_of_another_device_than_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its copy and its event belong to the device of the values."""
    done: list[str] = []

    class Values:
        device, shape, dtype = torch.device("cuda", 1), (1,), torch.int64

    class Host:
        def copy_(self, values: Any, non_blocking: bool) -> None:
            done.append(f"copy {non_blocking}")

    @contextmanager
    def on(device: torch.device) -> Iterator[None]:
        done.append(str(device))
        yield
        done.append("back")

    monkeypatch.setattr(torch, "empty", lambda *shape, dtype, pin_memory: Host() if pin_memory else None)
    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch.cuda, "Event", lambda: SimpleNamespace(record=lambda: done.append("event")))
    graphs.send(Values())  # type: ignore[arg-type]
    assert done == ["cuda:1", "copy True", "event", "back"]


def test_a_message_is_what_it_was_when_it_was_sent() -> None:
    values = torch.tensor([[1, 2]])
    message = graphs.send(values)
    values.zero_()
    assert message.there and message.read() == [[1, 2]]
