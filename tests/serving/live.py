"""A server in this process, on a port that the system gives."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from spear_spec.serving.app import create_app
from spear_spec.serving.listen import bind
from spear_spec.serving.server import Server
from spear_spec.serving.settings import ServerSettings

_CONTEXT = ssl.SSLContext()  # none is used; httpx would read all certificates for each client


@dataclass
class Live:
    """host, port; the scheduler and the server behind."""

    port: int
    scheduler: Any
    server: Server
    thread: threading.Thread
    http: httpx.Client

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, function: Any) -> None:
        """Run in the server's loop."""
        assert self.server._loop is not None
        self.server._loop.call_soon_threadsafe(function)

    def connect(self, data: bytes = b"", receive_buffer: int | None = None) -> socket.socket:
        """A raw connection, with something sent."""
        raw = socket.socket()
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(10)
        raw.connect(("127.0.0.1", self.port))
        raw.sendall(data)
        return raw


@contextlib.contextmanager
def live(scheduler: Any, **settings: Any) -> Iterator[Live]:
    """Serve until the block ends."""
    taken = bind("127.0.0.1", 0)
    server = Server(create_app(scheduler, ServerSettings(**settings)), "127.0.0.1", 0)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[taken])), daemon=True)
    thread.start()
    try:
        until(lambda: server.started)
        port = taken.getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", verify=_CONTEXT) as client:
            yield Live(port, scheduler, server, thread, client)
    finally:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive(), "the server did not end"


def until(true: Any, seconds: float = 10) -> None:
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)
