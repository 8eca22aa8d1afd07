"""The same function of tensors again and again: captured once as a CUDA graph and replayed, or elsewhere called. And
what it says, on its way to the host.

A function that is captured reads and writes memory that stays where it is, whoever holds it must not let it go, and
nothing in it is decided on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

_WARM = 2  # calls before a capture: libraries choose their kernels and take their workspace


class Graphs:
    """Captured functions by key, all in one pool of memory: they never run at the same time.

    quiet: a context in which a call changes nothing that counts; a function is warmed up in it.
    """

    def __init__(self, device: torch.device, quiet: Callable[[], AbstractContextManager[None]]) -> None:
        self.device, self._quiet = device, quiet
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None

    @property
    def captures(self) -> bool:
        """Whether functions are captured here at all."""
        return self.device.type == "cuda"

    def run(self, key: Hashable, function: Callable[[], None]) -> None:
        """Call it, or replay what was captured under its key."""
        if not self.captures:
            function()
            return
        with torch.cuda.device(self.device):
            if key not in self._graphs:
                self._graphs[key] = self._capture(function)
            self._graphs[key].replay()

    def _capture(self, function: Callable[[], None]) -> torch.cuda.CUDAGraph:
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside), self._quiet():
            for _ in range(_WARM):
                function()
        here.wait_stream(aside)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # other threads of the program may go on with theirs
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            function()
        return graph

    def forget(self) -> None:
        """The memory that functions work on is no longer the same."""
        if self._graphs:
            torch.cuda.synchronize(self.device)
        self._graphs.clear()
        self._pool = None


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
    host.copy_(values, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return Message(host, event)
