"""The page at `/` and what it asks the server for. Its files are in `page/`; all of them are kept in memory.

    GET  /                      the page
    GET  /playground/FILE       its style and scripts
    GET  /playground/voice      what can be asked for (JSON)
    POST /playground/speak      {"input", "voice", "speed", "seed"} to events: start, tokens, sound, done, error
    POST /playground/race       {"input", "drafters", "seed"} to events: start, waiting, lap, done, error

Events are server-sent ones in the body of the answer. Texts travel in bodies, never in addresses, which are logged.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import mimetypes
import secrets
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from importlib.resources import files
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Send

from spear_spec.errors import ConfigError
from spear_spec.pipeline import TTS
from spear_spec.serving.auth import Keys
from spear_spec.serving.body import check_type, read_body, read_json
from spear_spec.serving.encode import to_int16
from spear_spec.serving.errors import ApiError, as_api_error, shutting_down
from spear_spec.serving.race import Lap, contestants, race, usual
from spear_spec.serving.schema import Name, Text, parse
from spear_spec.serving.settings import ServerSettings
from spear_spec.serving.speech import Ask, Busy, Done, Sound, Speech, Written

RACE_CHARACTERS = 400
MOST_RACERS = 12
AWAKE_S = 15.0  # without an event, a comment keeps proxies from closing the connection
SECURITY = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".html": "text/html; charset=utf-8"}

# a seed of 64 bits is more than a number of JavaScript holds: the page sends it as text
Seed = Annotated[int, Field(ge=0, le=2**64 - 1)] | Annotated[str, Field(pattern=r"^[0-9]{1,20}$")] | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class SpeakRequest(_Strict):
    """The body of POST /playground/speak."""

    input: Text
    voice: Name | None = None
    speed: float = Field(1.0, ge=0.25, le=4.0)
    seed: Seed = None


class RaceRequest(_Strict):
    """The body of POST /playground/race."""

    input: Text
    drafters: list[Name] = Field(min_length=1, max_length=MOST_RACERS)
    seed: Seed = None


def mount(app: Any, scheduler: Any, settings: ServerSettings) -> None:
    """Put the page and its routes into an app (FastAPI or Starlette). They are not part of /openapi.json.

    The page itself is open; what it asks the server for needs a key where the settings have keys.
    """
    playground = Playground(scheduler, settings)
    app.router.routes.extend(playground.routes())
    app.state.playground = playground  # whoever ends the server calls `close`


class Playground:
    """The routes. One race runs at a time."""

    def __init__(self, scheduler: Any, settings: ServerSettings) -> None:
        self.scheduler, self.settings = scheduler, settings
        self.tts: TTS = scheduler.tts
        self._keys = Keys(settings.keys)
        self._files = {name: _File(name) for name in _names()}
        self._voice: dict[str, Any] | None = None
        self._racing = threading.Lock()
        self._stops: set[threading.Event] = set()
        self.closed = False

    def routes(self) -> list[Route]:
        """For the app's router."""
        return [
            Route("/", self._page, methods=["GET"], include_in_schema=False),
            Route("/playground/voice", _guarded(self._tell_voice), methods=["GET"], include_in_schema=False),
            Route("/playground/speak", _guarded(self._speak), methods=["POST"], include_in_schema=False),
            Route("/playground/race", _guarded(self._race), methods=["POST"], include_in_schema=False),
            Route("/playground/{name}", self._file, methods=["GET"], include_in_schema=False),
        ]

    def close(self) -> None:
        """The server ends: a race stops within a step, and nothing new begins here."""
        self.closed = True
        for stop in list(self._stops):
            stop.set()

    # --- files ------------------------------------------------------------------------------------------------------

    async def _page(self, request: Request) -> Response:
        return self._files["index.html"].answer(request)

    async def _file(self, request: Request) -> Response:
        file = self._files.get(request.path_params["name"])
        if file is None:
            return _refusal(ApiError(404, "there is no such file", code="not_found"))
        return file.answer(request)

    # --- what the page asks for -------------------------------------------------------------------------------------

    async def _tell_voice(self, request: Request) -> Response:
        self._enter(request)
        if self._voice is None:
            self._voice = await asyncio.to_thread(self._describe)
        return JSONResponse(self._voice, headers={"Cache-Control": "no-store", **SECURITY})

    def _describe(self) -> dict[str, Any]:
        config, settings = self.tts.bundle.config, self.tts.describe()
        racers = contestants(self.tts)
        return {
            "name": self.tts.name,
            "licence": config.licence,
            "speakers": list(self.tts.speakers),
            "sample_rate": self.tts.sample_rate,
            "token_rate": self.tts.decoder.frame_rate,
            "characters": self._characters,
            "settings": {name: settings[name] for name in ("drafter", "verifier", "lossless", "gamma", "tree")},
            "race": {
                "characters": min(RACE_CHARACTERS, self._characters),
                "drafters": racers,
                "usual": usual(self.tts, [racer["name"] for racer in racers]),
            },
        }

    @property
    def _characters(self) -> int:
        return self.settings.characters

    async def _speak(self, request: Request) -> Response:
        wanted = parse(SpeakRequest, await self._body(request))
        self._check_length(wanted.input, self._characters)
        ask = Ask(wanted.input, speaker=wanted.voice, seed=_seed(wanted.seed), speed=wanted.speed, tokens=True)
        speech: Speech = self.scheduler.speak(ask)
        return _Events(self._spoken(speech), speech.cancel)

    async def _spoken(self, speech: Speech) -> AsyncIterator[bytes]:
        yield event("start", {"seed": str(speech.seed), "sample_rate": speech.sample_rate})
        async for what in speech:
            yield told(what)

    async def _race(self, request: Request) -> Response:
        wanted = parse(RaceRequest, await self._body(request))
        self._check_length(wanted.input, min(RACE_CHARACTERS, self._characters))
        drafters = list(dict.fromkeys(wanted.drafters))
        await asyncio.to_thread(lambda: [self.tts.using(drafter=name) for name in drafters])  # one that it has not
        if not self._racing.acquire(blocking=False):
            raise Busy("somebody races already: one race at a time", 5.0)
        given = _seed(wanted.seed)
        seed = secrets.randbits(63) if given is None else given
        stop, events = threading.Event(), Mailbox(asyncio.get_running_loop())
        self._stops.add(stop)

        def run() -> None:
            try:
                for what in race(self.tts, wanted.input, drafters, seed, self._busy, stop):
                    events.put(event("lap", lap(what)) if isinstance(what, Lap) else event("waiting", {}))
                events.put(None)
            except Exception as error:
                events.put(error)
            finally:
                self._stops.discard(stop)
                self._racing.release()

        threading.Thread(target=run, name="race", daemon=True).start()
        began = event("start", {"seed": str(seed), "drafters": drafters})
        return _Events(self._raced(began, events, stop), stop.set)

    async def _raced(self, began: bytes, events: Mailbox, stop: threading.Event) -> AsyncIterator[bytes]:
        yield began
        while (what := await events.get()) is not None:
            if isinstance(what, BaseException):
                raise what
            yield what
        if stop.is_set():
            raise shutting_down()
        yield event("done", {})

    def _busy(self) -> bool:
        """Whether anybody is being spoken to."""
        state = self.scheduler.state()
        return bool(state.running or state.queued)

    # --- what all of them check -------------------------------------------------------------------------------------

    def _enter(self, request: Request) -> None:
        header = request.headers.get("authorization")
        self._keys.check(None if header is None else header.encode("latin-1"))
        if self.closed:
            raise shutting_down()

    async def _body(self, request: Request) -> dict[str, Any]:
        self._enter(request)
        check_type(request.headers)
        settings = self.settings
        return read_json(await read_body(request.headers, request.receive, settings.body_bytes, settings.body_s))

    def _check_length(self, text: str, most: int) -> None:
        if len(text) > most:
            raise ApiError(
                400,
                f"the text has more than {most} characters ({len(text)}): send it in parts",
                param="input",
                code="string_above_max_length",
            )


class Mailbox:
    """What a thread tells a coroutine of `loop`: events, an error, or None behind the last."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._queue = loop, asyncio.Queue[bytes | BaseException | None]()

    def put(self, what: bytes | BaseException | None) -> None:
        """From any thread; when the loop is closed nobody hears it."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._queue.put_nowait, what)

    async def get(self) -> bytes | BaseException | None:
        """The next one."""
        return await self._queue.get()


def _seed(given: int | str | None) -> int | None:
    if given is None:
        return None
    seed = int(given)
    if seed >= 2**64:
        raise ConfigError("seed must be a whole number from 0 to 2^64 - 1")
    return seed


def event(name: str, data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def told(what: Sound | Written | Done) -> bytes:
    """An event of a `Speech` as the page reads it; sound is base64 of 16-bit little-endian samples."""
    if isinstance(what, Sound):
        pcm = base64.b64encode(to_int16(what.samples).tobytes()).decode("ascii")
        return event("sound", {"sentence": what.sentence, "text": what.text, "ended": what.ended, "pcm": pcm})
    if isinstance(what, Written):
        return event("tokens", {"sentence": what.sentence, "ids": what.tokens, "kinds": what.kinds})
    return event("done", {"usage": what.usage})


def lap(what: Lap) -> dict[str, Any]:
    """A lap as the page reads it."""
    settings = what.settings
    return {
        "drafter": what.drafter,
        "calls": [list(call) for call in what.calls],
        "tokens": what.tokens,
        "target_calls": what.target_calls,
        "tokens_timed": what.timed,
        "seconds": round(what.seconds, 6),
        "ended": what.ended,
        "rule": settings.get("verifier"),
        "gamma": settings.get("gamma"),
        "lossless": settings.get("lossless"),
    }


def _refusal(error: ApiError) -> Response:
    return JSONResponse(error.body, error.status, headers={**SECURITY, "Cache-Control": "no-store", **error.headers})


def _guarded(route: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Every refusal before the first event is OpenAI's error object with its status."""

    async def answer(request: Request) -> Response:
        try:
            return await route(request)
        except ClientDisconnect:
            raise
        except Exception as error:
            refused = as_api_error(error)
            if refused.status >= 500 and not isinstance(error, ApiError):
                raise  # the app logs it and answers
            return _refusal(refused)

    return answer


class _Events(StreamingResponse):
    """Server-sent events. However the answer ends, `left` is called; an error is the last event."""

    def __init__(self, events: AsyncIterator[bytes], left: Callable[[], None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", **SECURITY}
        super().__init__(self._awake(events), media_type="text/event-stream", headers=headers)
        self._left = left

    async def _awake(self, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        coming: asyncio.Future[bytes] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(events))  # type: ignore[arg-type]
                done, _ = await asyncio.wait({coming}, timeout=AWAKE_S)
                if not done:
                    yield b": still there\n\n"
                    continue
                what, coming = coming, None
                yield what.result()
        except StopAsyncIteration:
            return
        except Exception as error:
            yield event("error", as_api_error(error).body)
        finally:
            if coming is not None:
                coming.cancel()

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        finally:
            self._left()


class _File:
    """One file of the page."""

    def __init__(self, name: str) -> None:
        self._data = (files("spear_spec.serving") / "page" / name).read_bytes()
        suffix = name[name.rindex(".") :]
        self._type = TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        self._tag = f'"{hashlib.sha256(self._data).hexdigest()[:32]}"'

    def answer(self, request: Request) -> Response:
        """The file, or 304 where the browser has it. It is asked for each time, so that an update is seen at once."""
        headers = {"ETag": self._tag, "Cache-Control": "no-cache", **SECURITY}
        if self._tag in (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self._data, headers=headers | {"Content-Type": self._type})


def _names() -> list[str]:
    folder = files("spear_spec.serving") / "page"
    return [file.name for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]


