"""Text in as it is written, sound out as it is spoken: /v1/audio/speech/stream (docs/serving.md)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

from spear_spec.serving.answer import ABORT, Stalled, Unfinished, audio_delta, count_answer, encoded, openai_usage
from spear_spec.serving.body import read_json
from spear_spec.serving.encode import ENCODERS
from spear_spec.serving.errors import ApiError
from spear_spec.serving.schema import SessionEnd, SessionStart, SessionText, parse
from spear_spec.serving.service import Clock, Service
from spear_spec.serving.speech import Done, Sound, Speech, Written

NORMAL, POLICY, FAILED, AGAIN = 1000, 1008, 1011, 1013  # codes of closing


class Session:
    """One connection, one text, one answer."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self.socket, self.service = socket, service
        self.request_id: str = socket.scope["state"]["request_id"]
        self.characters = 0
        self.text: list[str] = []  # kept only where it may be logged

    async def run(self) -> None:
        """To the end; every error is told in one event, then the connection is closed."""
        await self.socket.accept()
        try:
            await self._run()
            await self.socket.close(NORMAL)
        except WebSocketDisconnect:
            self.service.metrics.left.inc()
        except Stalled:
            self.service.metrics.broken.inc()
            self.socket.scope.get("extensions", {}).get(ABORT, lambda: None)()
        except Exception as error:
            told = self.service.refuse(error, self.request_id)
            wait = told.headers.get("Retry-After")
            event = {"type": "error", **told.body, **({"retry_after_s": int(wait)} if wait else {})}
            code = AGAIN if told.status in (429, 503) else FAILED if told.status >= 500 else POLICY
            try:
                await self._tell(event)
                await self.socket.close(code)
            except (Stalled, WebSocketDisconnect, RuntimeError):
                pass  # it has gone, too

    async def _run(self) -> None:
        self.service.check_open()
        start = parse(SessionStart, await self._message())
        clock = Clock()
        order = self.service.order(start, "")
        encoder = ENCODERS[start.response_format or "pcm"](self.service.tts.sample_rate, order.tags)
        ask = order.ask if not start.tokens else type(order.ask)(**{**vars(order.ask), "tokens": True})
        speech = self.service.scheduler.open(ask)
        self.service.speaking.add(speech)
        tasks: list[asyncio.Future[Any]] = []
        ended = "failed"
        try:
            await self._tell(
                {
                    "type": "session.started",
                    "id": self.request_id,
                    "model": self.service.names.voice,
                    "voice": order.speaker,
                    "seed": speech.seed,
                    "response_format": start.response_format or "pcm",
                    "sample_rate": speech.sample_rate,
                    "ignored": ["instructions"] if start.instructions is not None else [],
                    **({"provenance": order.tags["comment"]} if order.tags else {}),
                }
            )
            talk = asyncio.ensure_future(self._talk(speech, encoder, start, clock))
            read = asyncio.ensure_future(self._read(speech))
            tasks = [talk, read]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not talk.done():
                read.result()  # raises: it ends in no other way
            talk.result()
            ended = "done"
        except WebSocketDisconnect:
            ended = "left"
            raise
        finally:
            speech.cancel()
            self.service.speaking.discard(speech)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            told = {"id": self.request_id, "ended": ended, "characters": self.characters, "seed": speech.seed}
            self.service.log_answer({**told, **clock.told(speech.sample_rate)}, "".join(self.text))

    async def _message(self, within_s: float | None = None) -> dict[str, Any]:
        """The next message, JSON, in a text frame.

        Raises:
            ApiError: it is none, or none came. WebSocketDisconnect: the client left.
        """
        within_s = self.service.settings.idle_s if within_s is None else within_s
        try:
            async with asyncio.timeout(within_s):
                message = await self.socket.receive()
        except TimeoutError:
            raise ApiError(408, f"no message came for {within_s:g} s: send text, or end", code="session_idle") from None
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text")
        if text is None:
            raise ApiError(400, "messages are JSON in text frames", code="invalid_json")
        if len(text) > self.service.settings.body_bytes:
            raise ApiError(413, "the message is too long", code="request_too_large")
        return read_json(text)

    async def _read(self, speech: Speech) -> None:
        """Messages of the client; raises when it is gone, or wrong."""
        while True:
            values = await self._message()
            if values.get("type") == "end":
                parse(SessionEnd, values)
                speech.finish()
                break
            if values.get("type") != "text":
                raise ApiError(
                    400, "after session.start come messages of type text, then one of type end", param="type",
                    code="invalid_value",
                )  # fmt: skip
            piece = parse(SessionText, values).text
            self.characters += len(piece)
            self.service.check_length(self.characters)
            if self.service.settings.log_text:
                self.text.append(piece)
            speech.feed(piece)
        while True:  # nothing more is read, but that it is gone is noticed
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                raise WebSocketDisconnect(message.get("code", 1005))
            raise ApiError(400, "a message came after the end", code="invalid_value")

    async def _talk(self, speech: Speech, encoder: Any, start: SessionStart, clock: Clock) -> None:
        usage: Mapping[str, Any] | None = None
        sentence = -1
        async for event in speech:
            if isinstance(event, Sound):
                if event.sentence != sentence:
                    sentence = event.sentence
                    await self._tell({"type": "speech.sentence", "sentence": sentence, "text": event.text})
                clock.samples += len(event.samples)
                async for data in encoded(encoder, event.samples, speech.sample_rate):
                    await self._sound(data, start)
                    clock.sent(self.service.metrics)
            elif isinstance(event, Written):
                await self._tell(
                    {"type": "speech.tokens", "sentence": event.sentence, "tokens": event.tokens, "kinds": event.kinds}
                )
            elif isinstance(event, Done):
                usage = event.usage
        if usage is None or usage.get("ended") == "cancelled":
            raise Unfinished
        if rest := encoder.finish():
            await self._sound(rest, start)
        await self._tell({"type": "speech.audio.done", "usage": openai_usage(usage)})
        count_answer(self.service, usage, clock)

    async def _sound(self, data: bytes, start: SessionStart) -> None:
        if start.audio == "base64":
            await self._tell(audio_delta(data))
        else:
            await self._send({"type": "websocket.send", "bytes": data})

    async def _tell(self, event: Mapping[str, Any]) -> None:
        await self._send({"type": "websocket.send", "text": json.dumps(event, separators=(",", ":"))})

    async def _send(self, message: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self.service.settings.stall_s):
                await self.socket.send(message)
        except TimeoutError:
            raise Stalled from None
