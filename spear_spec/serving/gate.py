"""What every request passes first and every answer last: an id, the key, the counters, one form for every error."""

from __future__ import annotations

import json
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from spear_spec.serving.errors import ApiError
from spear_spec.serving.service import Service

LONGEST_ID = 128


class Gate:
    """ASGI middleware around all routes."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _request_id(headers.get(b"x-request-id", b""))
        scope.setdefault("state", {}).update(request_id=request_id, began=time.perf_counter())
        started = False

        async def out(message: Message) -> None:
            nonlocal started
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                started = True
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
                route = getattr(scope.get("route"), "path", "none")
                self.service.metrics.answers.labels(route, str(message["status"])).inc()
            elif message["type"] == "websocket.accept":
                started = True
                message.setdefault("headers", []).append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            if scope["path"].startswith("/v1/"):
                self.service.keys.check(headers.get(b"authorization"))
            await self.app(scope, receive, out)
        except ClientDisconnect:
            self.service.metrics.left.inc()
        except Exception as error:
            if started:
                raise  # it cannot be told any more: the server cuts the connection
            told = self.service.refuse(error, request_id)
            if scope["type"] == "websocket":
                await _refuse_socket(told, scope, out)
            else:
                await answer(told)(scope, receive, out)


def answer(told: ApiError) -> JSONResponse:
    """An error as an answer."""
    return JSONResponse(told.body, told.status, told.headers)


def _request_id(given: bytes) -> str:
    """The client's own, if it can stand in a header and a log line."""
    try:
        text = given.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if 0 < len(text) <= LONGEST_ID and text.isprintable() and " " not in text:
        return text
    return f"req_{uuid.uuid4().hex}"


async def _refuse_socket(told: ApiError, scope: Scope, send: Send) -> None:
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    headers = [
        (b"content-type", b"application/json"),
        *((k.lower().encode(), v.encode()) for k, v in told.headers.items()),
    ]
    await send({"type": "websocket.http.response.start", "status": told.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": json.dumps(told.body).encode()})
