"""The same function of tensors again and again: captured once as a CUDA graph and replayed, or elsewhere called. And
what it says, on its way to the host.

A function that is captured reads and writes memory that stays where it is, whoever holds it must not let it go, and
nothing in it is decided on the host.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor

_WARM = 2  # calls before a capture: libraries choose their kernels and take their workspace, Triton compiles
_ONE_AT_A_TIME = threading.Lock()  # a capture has the allocator and the collector to itself


class Graphs:
    """Captured functions by key, all in one pool of memory: they never run at the same time.

    quiet: a context in which a call changes nothing that counts; a function is warmed up in it.
    """

    def __init__(self, device: torch.device, quiet: Callable[[], AbstractContextManager[None]]) -> None:
        self.device, self._quiet = device, quiet
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None
        self._aside: Any = None  # the stream of warm-ups and captures: a library's workspace is a stream's own
        self._last: Any = None  # the stream that the caller was on last

    @property
    def captures(self) -> bool:
        """Whether functions are captured here at all."""
        return self.device.type == "cuda"

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Call it, or replay what was captured under its key."""
        if not self.captures:
            function()
            return
        self.follow()
        with torch.cuda.device(self.device):
            if key not in self._graphs:
                self._graphs[key] = self._capture(function)
            self._graphs[key].replay()

    def follow(self) -> None:
        """What the caller asks his stream for from here on comes behind all that was asked for before, also where he
        has gone to another stream. For whoever writes what functions work on.
        """
        if not self.captures:
            return
        with torch.cuda.device(self.device):
            here = torch.cuda.current_stream()
        if self._last is not None and self._last != here:
            here.wait_stream(self._last)
        self._last = here

    def _capture(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph:
        here = torch.cuda.current_stream()
        if self._aside is None:
            self._aside = torch.cuda.Stream()
        self._aside.wait_stream(here)
        with torch.cuda.stream(self._aside), self._quiet():
            for _ in range(_WARM):
                function()
        here.wait_stream(self._aside)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # other threads of the program may go on with theirs. The stream is named, or torch takes one that it made once,
        # on whichever device was the current one then
        capture = torch.cuda.graph(graph, pool=self._pool, stream=self._aside, capture_error_mode="thread_local")
        with _ONE_AT_A_TIME, _no_collection(), capture:
            function()
        return graph

    def forget(self) -> None:
        """The memory that functions work on is no longer the same."""
        if self._graphs:
            torch.cuda.synchronize(self.device)
        self._graphs.clear()
        self._pool = None


@contextmanager
def _no_collection() -> Iterator[None]:
    """The collector does not run: what it would find (graphs of another session, pinned memory) cannot be given back
    while this thread captures.
    """
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


class Message:
    """Numbers [R, N] on their way to the host; `read` waits for them alone, not for what was asked for later."""

    def __init__(self, values: Tensor, event: torch.cuda.Event | None) -> None:
        self._values, self._event = values, event

    @property
    def there(self) -> bool:
        """Whether reading would not wait."""
        return self._event is None or self._event.query()

    def read(self) -> list[list[int]]:
        if self._event is not None:
            self._event.synchronize()
        return self._values.tolist()


def send(values: Tensor) -> Message:
    """Values as they are when the device comes to this point, into pinned memory of their own. Does not wait."""
    if values.device.type != "cuda":
        return Message(values.clone(), None)
    host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)  # from torch's cache of pinned blocks
    with torch.cuda.device(values.device):  # an event is recorded on the current device, whoever's the values are
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
    return Message(host, event)
