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
import hashlib
import secrets
import threading
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from spear_spec.audio import to_int16
from spear_spec.serving.body import check_type, read_body, read_json
from spear_spec.serving.errors import ApiError, shutting_down
from spear_spec.serving.events import Events, Mailbox, event
from spear_spec.serving.race import Lap, contestants, race, usual
from spear_spec.serving.schema import Name, Text, parse
from spear_spec.serving.service import Service
from spear_spec.serving.speech import Ask, Busy, Done, Event, Sound, Speech, Written

RACE_CHARACTERS = 400
MOST_RACERS = 12
MOST_SEED = 2**64 - 1
SECURITY = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

# a seed of 64 bits is more than a number of JavaScript holds: the page sends it as text
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)] | Annotated[str, Field(pattern=r"^[0-9]{1,20}$")] | None


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


def mount(app: Any) -> None:
    """Put the page and its routes into an app that has a `state.service`. They are not part of /openapi.json.

    The page itself is open; what it asks the server for needs a key where the server has keys.
    """
    app.router.routes.extend(Playground(app.state.service).routes())


class Playground:
    """The routes. One race runs at a time."""

    def __init__(self, service: Service) -> None:
        self.service, self.tts = service, service.tts
        self._files = {name: _File(name) for name in _names()}
        self._voice: dict[str, Any] | None = None
        self._racing = threading.Lock()

    def routes(self) -> list[Route]:
        """For the app's router."""
        return [
            Route("/", self._page, methods=["GET"], include_in_schema=False),
            Route("/playground/voice", self._tell_voice, methods=["GET"], include_in_schema=False),
            Route("/playground/speak", self._speak, methods=["POST"], include_in_schema=False),
            Route("/playground/race", self._race, methods=["POST"], include_in_schema=False),
            Route("/playground/{name}", self._file, methods=["GET"], include_in_schema=False),
        ]

    # --- files ------------------------------------------------------------------------------------------------------

    async def _page(self, request: Request) -> Response:
        return self._files["index.html"].answer(request)

    async def _file(self, request: Request) -> Response:
        file = self._files.get(request.path_params["name"])
        if file is None:
            raise ApiError(404, "there is nothing at this address", code="not_found")
        return file.answer(request)

    # --- what the page asks for -------------------------------------------------------------------------------------

    async def _tell_voice(self, request: Request) -> Response:
        self._enter(request)
        if self._voice is None:
            self._voice = await asyncio.to_thread(self._describe)
        return JSONResponse(self._voice, headers={"Cache-Control": "no-store", **SECURITY})

    def _describe(self) -> dict[str, Any]:
        settings, racers = self.tts.describe(), contestants(self.tts)
        return {
            "name": self.tts.name,
            "licence": self.tts.bundle.config.licence,
            "speakers": [*self.tts.speakers, *self.service.names.prompts],
            "sample_rate": self.tts.sample_rate,
            "token_rate": self.tts.decoder.frame_rate,
            "characters": self.service.settings.characters,
            "settings": {name: settings[name] for name in ("drafter", "verifier", "lossless", "gamma", "tree")},
            "race": {
                "characters": self._race_characters,
                "drafters": racers,
                "usual": usual(self.tts, [racer["name"] for racer in racers]),
            },
        }

    async def _speak(self, request: Request) -> Response:
        wanted = parse(SpeakRequest, await self._body(request))
        self.service.check_length(len(wanted.input))
        _, whose = self.service.whose(wanted.voice)
        reading = self.service.settings.reading
        ask = Ask(wanted.input, seed=_seed(wanted.seed), speed=wanted.speed, tokens=True, reading=reading, **whose)
        speech = self.service.scheduler.speak(ask)
        self.service.speaking.add(speech)

        def left() -> None:
            speech.cancel()
            self.service.speaking.discard(speech)

        return self._events(request, self._spoken(speech), left)

    async def _spoken(self, speech: Speech) -> AsyncIterator[bytes]:
        yield event("start", {"seed": str(speech.seed), "sample_rate": speech.sample_rate})
        async for what in speech:
            if isinstance(what, Done) and what.usage.get("ended") == "cancelled":  # it is not the reader who left
                raise shutting_down()
            yield told(what)

    async def _race(self, request: Request) -> Response:
        wanted = parse(RaceRequest, await self._body(request))
        if len(wanted.input) > (most := self._race_characters):
            raise ApiError(
                400,
                f"a race takes at most {most} characters, not {len(wanted.input)}: shorten the text",
                param="input",
                code="string_above_max_length",
            )
        drafters = list(dict.fromkeys(wanted.drafters))
        # one that the voice has not is refused here; weights may have to be read
        racers = await asyncio.to_thread(lambda: {name: self.tts.using(drafter=name) for name in drafters})
        given = _seed(wanted.seed)
        seed = secrets.randbits(63) if given is None else given
        if not self._racing.acquire(blocking=False):
            raise Busy("somebody races already: one race at a time", 5.0)
        left, mailbox = threading.Event(), Mailbox(asyncio.get_running_loop())

        def stopped() -> bool:
            return left.is_set() or self.service.draining

        def run() -> None:
            last: list[bytes | BaseException | None] = [event("done", {}), None]
            mailbox.put(event("start", {"seed": str(seed), "drafters": drafters}))
            try:
                for what in race(racers, wanted.input, seed, busy=self._busy, stopped=stopped):
                    mailbox.put(event("lap", lap(what)) if isinstance(what, Lap) else event("waiting", {}))
                if stopped():
                    raise shutting_down()
            except Exception as error:
                last = [error]
            finally:
                self._racing.release()
            for word in last:  # whoever reads it may race again
                mailbox.put(word)

        threading.Thread(target=run, name="spear_spec-race", daemon=True).start()
        return self._events(request, aiter(mailbox), left.set)

    def _busy(self) -> bool:
        """Whether anybody is being spoken to."""
        state = self.service.state()
        return any(state.get(name) for name in ("rows", "waiting", "queued"))

    @property
    def _race_characters(self) -> int:
        return min(RACE_CHARACTERS, self.service.settings.characters)

    # --- what they share --------------------------------------------------------------------------------------------

    def _enter(self, request: Request) -> None:
        header = request.headers.get("authorization")
        self.service.keys.check(None if header is None else header.encode("latin-1"))

    async def _body(self, request: Request) -> dict[str, Any]:
        self._enter(request)
        self.service.check_open()
        check_type(request.headers)
        settings = self.service.settings
        return read_json(await read_body(request.headers, request.receive, settings.body_bytes, settings.body_s))

    def _events(self, request: Request, events: AsyncIterator[bytes], left: Any) -> Events:
        def failed(error: BaseException) -> None:
            self.service.refuse(error, request.state.request_id)

        return Events(events, left=left, failed=failed, stall_s=self.service.settings.stall_s, headers=SECURITY)


def told(what: Event) -> bytes:
    """An event of a `Speech` as the page reads it; sound is base64 of 16-bit little-endian samples."""
    if isinstance(what, Sound):
        pcm = base64.b64encode(to_int16(what.samples).tobytes()).decode("ascii")
        return event("sound", {"sentence": what.sentence, "text": what.text, "ended": what.ended, "pcm": pcm})
    if isinstance(what, Written):
        return event("tokens", {"sentence": what.sentence, "ids": what.tokens, "kinds": what.kinds})
    return event("done", {"usage": {**what.usage, "seed": str(what.usage.get("seed"))}})


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


def _seed(given: int | str | None) -> int | None:
    seed = None if given is None else int(given)
    if seed is not None and seed > MOST_SEED:
        raise ApiError(400, "seed: a whole number from 0 to 2^64 - 1", param="seed", code="invalid_value")
    return seed


class _File:
    """One file of the page."""

    def __init__(self, name: str) -> None:
        self._data = (files("spear_spec.serving") / "page" / name).read_bytes()
        self._type = TYPES[name[name.rindex(".") :]] + "; charset=utf-8"
        self._tag = f'"{hashlib.sha256(self._data).hexdigest()[:32]}"'

    def answer(self, request: Request) -> Response:
        """The file, or 304 where the browser has it. It is asked for each time, so that an update is seen at once."""
        headers = {"ETag": self._tag, "Cache-Control": "no-cache", **SECURITY}
        if self._tag in (tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self._data, headers=headers | {"Content-Type": self._type})


def _names() -> list[str]:
    folder = files("spear_spec.serving") / "page"
    return [file.name for file in folder.iterdir() if file.name.endswith(tuple(TYPES))]
