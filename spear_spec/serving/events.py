"""An answer of server-sent events that ends when its reader is gone, and tells whoever makes the events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from spear_spec.serving.answer import ABORT
from spear_spec.serving.errors import as_api_error

AWAKE_S = 15.0  # without an event, a comment keeps proxies from closing the connection


def event(name: str, data: Mapping[str, Any]) -> bytes:
    """One event with a name."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


class Events(Response):
    """Sends events as they come; an error is the last one.

    Args:
        left: called once, however it ends: all was sent, the reader left, or he took nothing for `stall_s`, after which
            he is cut off. failed: called with an error before the reader is told.
    """

    def __init__(
        self,
        events: AsyncIterator[bytes],
        *,
        left: Callable[[], None],
        failed: Callable[[BaseException], object],
        stall_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no", **(headers or {})},
            media_type="text/event-stream",
        )
        del self.headers["content-length"]
        self._events, self._left, self._failed, self._stall_s = events, left, failed, stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        talk, gone = asyncio.ensure_future(self._talk(send)), asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({talk, gone}, return_when=asyncio.FIRST_COMPLETED)
            if talk.done():
                talk.result()
        except TimeoutError:
            cut: Callable[[], None] | None = scope.get("extensions", {}).get(ABORT)
            if cut is None:
                raise
            cut()
        finally:
            self._left()
            for task in (talk, gone):
                task.cancel()
            await asyncio.gather(talk, gone, return_exceptions=True)

    async def _talk(self, send: Send) -> None:
        async def out(message: Mapping[str, Any]) -> None:
            async with asyncio.timeout(self._stall_s):
                await send(dict(message))

        await out({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        coming: asyncio.Future[bytes] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(self._events))  # type: ignore[arg-type]
                await asyncio.wait({coming}, timeout=AWAKE_S)
                data = b": still there\n\n"
                if coming.done():
                    try:
                        data, coming = coming.result(), None
                    except StopAsyncIteration:
                        break
                    except Exception as error:
                        self._failed(error)
                        data, coming = event("error", as_api_error(error).body), None
                        await out({"type": "http.response.body", "body": data, "more_body": True})
                        break
                await out({"type": "http.response.body", "body": data, "more_body": True})
        finally:
            if coming is not None:
                coming.cancel()
        await out({"type": "http.response.body", "body": b"", "more_body": False})


class Mailbox:
    """What a thread tells a coroutine of `loop`: events, an error, or None behind the last."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._queue = loop, asyncio.Queue[bytes | BaseException | None]()

    def put(self, what: bytes | BaseException | None) -> None:
        """From any thread; when the loop is closed nobody hears it."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, what)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (what := await self._queue.get()) is not None:
            if isinstance(what, BaseException):
                raise what
            yield what


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
