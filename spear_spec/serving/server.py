"""uvicorn with three habits of ours: errors in one form, clients that can be cut off, an end that drains."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import struct
import time
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from spear_spec.serving.answer import ABORT, CLOSE
from spear_spec.serving.errors import ApiError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from spear_spec.serving.service import Service

log = logging.getLogger("spear_spec.serving")
SEND_BUFFER = 256 * 1024  # bytes that the kernel takes for a client that reads nothing
HEADER_BYTES = 32 * 1024
HEADER_S = 20.0  # a request's headers are there by then
LAST_S = 2  # for answers that were cut off, and idle connections, to end


def _reset(transport: asyncio.Transport) -> None:
    """Close without waiting for what was not taken: not even the kernel keeps it."""
    if (peer := transport.get_extra_info("socket")) is not None:
        with contextlib.suppress(OSError):
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Connection(H11Protocol):
    """A client's."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if (peer := transport.get_extra_info("socket")) is not None:
            with contextlib.suppress(OSError):
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._late = self.loop.call_later(HEADER_S, self._no_request)

    def _no_request(self) -> None:
        if self.scope is None and not self.transport.is_closing():
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._late is not None:
            self._late.cancel()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """The application gets to know how this connection is cut."""
        super().handle_events()
        if self.scope is not None:
            extensions: dict[str, Any] = self.scope.setdefault("extensions", {})  # type: ignore[typeddict-item, assignment]
            extensions.update({ABORT: partial(_reset, self.transport), CLOSE: self.transport.close})

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told in OpenAI's form as well."""
        body = json.dumps(ApiError(400, "this is no HTTP request", code="invalid_http").body).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        with contextlib.suppress(h11.LocalProtocolError):  # an answer is under way: then it is cut
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # it was the body that went wrong: nobody waits for an answer any more
            self.cycle.message_event.set()
        self.transport.close()


class Socket(WebSocketsSansIOProtocol):
    """A client's WebSocket."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.handshake_initiated and hasattr(self, "scope"):
            extensions: dict[str, Any] = self.scope["extensions"]  # type: ignore[assignment]
            extensions[ABORT] = partial(_reset, self.transport)

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # refused, which uvicorn would log as a failure of ours


class Server(uvicorn.Server):
    """Ends in two steps: at the first signal it takes nothing new (readyz says 503) and goes on with what is being
    spoken, for `drain_s` at most; at the second it ends at once.
    """

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self.service: Service = app.state.service
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                http=Connection,
                ws=Socket,
                ws_max_size=self.service.settings.body_bytes,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                h11_max_incomplete_event_size=HEADER_BYTES,
                timeout_graceful_shutdown=LAST_S,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self.when_started: Callable[[], None] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self.when_started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Runs in the signal's handler: the rest is done in the loop."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self.end)

    def end(self) -> None:
        """What a signal asks for."""
        if self._draining is not None:
            log.warning("ending at once")
            self.force_exit = self.should_exit = True
            return
        self.service.draining = True
        self._draining = asyncio.ensure_future(self._drain())

    async def _drain(self) -> None:
        service = self.service
        log.info("shutting down: %d answers are under way", len(service.speaking))
        end = time.monotonic() + service.settings.drain_s
        while service.speaking and time.monotonic() < end:
            await asyncio.sleep(0.02)
        for speech in list(service.speaking):
            speech.cancel()
        if service.speaking:
            log.warning("%d answers were cut off after %g s", len(service.speaking), service.settings.drain_s)
        self.should_exit = True
