"""The answer to POST /v1/audio/speech: the first byte leaves with the first sound, the rest as it comes."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from spear_spec.audio import FloatArray
from spear_spec.serving.encode import ENCODERS
from spear_spec.serving.errors import as_api_error
from spear_spec.serving.service import Clock, Order, Service
from spear_spec.serving.speech import Done, Sound, Speech

PIECE_S = 0.5  # of sound is encoded without a pause: the loop has others to serve
ABORT, CLOSE = "spear_spec.abort", "spear_spec.close"  # in scope["extensions"]: of the connection, if the server has it


class Stalled(Exception):
    """The client takes nothing."""


class Unfinished(Exception):
    """The scheduler gave up on it: the server ends."""


class SpokenAnswer(Response):
    """Speaks when it is called; what goes wrong before the first byte is raised.

    The client gone: `Speech.cancel` at once. What goes wrong behind the first byte is an event in sse, and otherwise
    breaks the connection, so that the client does not take half of it for the whole.
    """

    def __init__(self, service: Service, order: Order, response_format: str, sse: bool, request_id: str) -> None:
        self.service, self.order, self.format, self.sse, self.request_id = (
            service,
            order,
            response_format,
            sse,
            request_id,
        )
        self.background = None
        self.status_code = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        clock = Clock(scope.get("state", {}).get("began"))
        encoder = ENCODERS[self.format](self.service.tts.sample_rate, self.order.tags)
        speech = self.service.scheduler.speak(self.order.ask)
        self.service.speaking.add(speech)
        wire = _Wire(send, self.service.settings.stall_s, self._first_headers(speech, encoder.media_type))
        talk = asyncio.ensure_future(self._talk(speech, encoder, wire, clock))
        gone = asyncio.ensure_future(_gone(receive))
        ended = "failed"
        try:
            await asyncio.wait({talk, gone}, return_when=asyncio.FIRST_COMPLETED)
            if talk.done():
                talk.result()
                ended = "done"
            else:
                ended = "left"
                self.service.metrics.left.inc()
        except Stalled:
            ended = "stalled"
            self.service.metrics.broken.inc()
            await _break(scope, gone, ABORT)
        except Exception as error:
            if not wire.started:
                raise
            self.service.metrics.broken.inc()
            self.service.log_failure(error, self.request_id)
            if self.sse:
                await wire.end(sse_event({"type": "speech.audio.error", **as_api_error(error).body}))
            else:
                await _break(scope, gone, CLOSE)
        finally:
            speech.cancel()
            self.service.speaking.discard(speech)
            for task in (talk, gone):
                task.cancel()
            await asyncio.gather(talk, gone, return_exceptions=True)
            told = {"id": self.request_id, "ended": ended, "characters": len(self.order.ask.text), "seed": speech.seed}
            self.service.log_answer({**told, **clock.told(speech.sample_rate)}, self.order.ask.text)

    def _first_headers(self, speech: Speech, media_type: str) -> dict[str, str]:
        return {
            "Content-Type": "text/event-stream" if self.sse else media_type,
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",
            "X-Spear-Spec-Seed": str(speech.seed),
            "X-Spear-Spec-Sample-Rate": str(speech.sample_rate),
            **self.order.headers,
        }

    async def _talk(self, speech: Speech, encoder: Any, wire: _Wire, clock: Clock) -> None:
        usage: Mapping[str, Any] | None = None
        async for event in speech:
            if isinstance(event, Sound):
                clock.samples += len(event.samples)
                async for data in encoded(encoder, event.samples, speech.sample_rate):
                    await wire.send(self._wrapped(data))
                    clock.sent(self.service.metrics)
            elif isinstance(event, Done):
                usage = event.usage
        if usage is None or usage.get("ended") == "cancelled":
            raise Unfinished
        rest = encoder.finish()
        done = sse_event({"type": "speech.audio.done", "usage": openai_usage(usage)}) if self.sse else b""
        if rest:
            await wire.send(self._wrapped(rest))
            clock.sent(self.service.metrics)
        await wire.end(done)
        count_answer(self.service, usage, clock)

    def _wrapped(self, data: bytes) -> bytes:
        return sse_event(audio_delta(data)) if self.sse else data


def audio_delta(data: bytes) -> dict[str, Any]:
    """OpenAI's event of a piece of sound."""
    return {"type": "speech.audio.delta", "audio": base64.b64encode(data).decode()}


def openai_usage(usage: Mapping[str, Any]) -> dict[str, Any]:
    """OpenAI's three numbers (of text, characters are counted), and all of ours."""
    text, speech = int(usage.get("characters", 0)), int(usage.get("tokens", 0))
    return {"input_tokens": text, "output_tokens": speech, "total_tokens": text + speech, **usage}


def sse_event(event: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def count_answer(service: Service, usage: Mapping[str, Any], clock: Clock) -> None:
    """An answer that came to its end, for /metrics."""
    seconds = clock.samples / service.tts.sample_rate
    service.metrics.characters.inc(int(usage.get("characters", 0)))
    service.metrics.audio.inc(seconds)
    if seconds:
        service.metrics.rtf.observe((time.perf_counter() - clock.began) / seconds)


async def encoded(encoder: Any, samples: FloatArray, sample_rate: int) -> AsyncIterator[bytes]:
    """What the encoder lets go of, others being served in between; pieces without bytes are left out."""
    step = max(1, int(PIECE_S * sample_rate))
    for at in range(0, len(samples), step):
        if at:
            await asyncio.sleep(0)
        if data := encoder.feed(samples[at : at + step]):
            yield data


class _Wire:
    """The sending end: headers with the first bytes; one that takes nothing for too long is `Stalled`."""

    def __init__(self, send: Send, stall_s: float, headers: Mapping[str, str]) -> None:
        self._send, self._stall_s, self._headers = send, stall_s, headers
        self.started = False

    async def send(self, data: bytes, more: bool = True) -> None:
        try:
            async with asyncio.timeout(self._stall_s):
                if not self.started:
                    self.started = True
                    headers = [
                        (name.lower().encode(), value.encode("latin-1")) for name, value in self._headers.items()
                    ]
                    await self._send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            raise Stalled from None

    async def end(self, data: bytes = b"") -> None:
        await self.send(data, more=False)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _break(scope: Scope, gone: Awaitable[None], how: str) -> None:
    """Cut the connection in the middle of the answer."""
    cut: Callable[[], None] | None = scope.get("extensions", {}).get(how)
    if cut is None:
        raise ConnectionAbortedError("the answer cannot be finished")  # whatever server this is closes it
    cut()
    await asyncio.wait([asyncio.ensure_future(gone)], timeout=1.0)
