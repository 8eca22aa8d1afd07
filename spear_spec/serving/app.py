"""The one place where the HTTP application is composed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, Request, WebSocket
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match

from spear_spec import __version__
from spear_spec.serving.answer import SpokenAnswer
from spear_spec.serving.body import check_type, read_body, read_json
from spear_spec.serving.encode import MEDIA_TYPES
from spear_spec.serving.errors import ApiError
from spear_spec.serving.gate import Gate, answer
from spear_spec.serving.metrics import MEDIA_TYPE
from spear_spec.serving.openapi import EVENT, describe, error_responses
from spear_spec.serving.schema import SpeechRequest, parse
from spear_spec.serving.service import Service
from spear_spec.serving.settings import ServerSettings
from spear_spec.serving.websocket import Session

if TYPE_CHECKING:
    from spear_spec.serving.scheduler import Scheduler

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def create_app(scheduler: Scheduler, settings: ServerSettings | None = None) -> FastAPI:
    """The application; its `state.service` is what the routes share. Whoever made the scheduler closes it.

    Raises:
        ConfigError: a setting does not fit the voice.
    """
    settings = settings or ServerSettings()
    service = Service(scheduler, settings)
    # the usual pages of the documentation fetch scripts from elsewhere: there are none
    app = FastAPI(
        title="spear_spec", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False,
        openapi_url=None,
    )  # fmt: skip
    app.state.service = service
    _audio(app, service)
    _models(app, service)
    _house(app, service)
    if find_spec("spear_spec.serving.playground") is not None:
        from spear_spec.serving.playground import mount

        mount(app)
    _errors(app, service)
    app.add_middleware(Gate, service=service)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id"],
            expose_headers=["*"],
        )
    return app


def _audio(app: FastAPI, service: Service) -> None:
    settings = service.settings
    sound: dict[str, Any] = {
        media: {"schema": {"type": "string", "format": "binary"}} for media in MEDIA_TYPES.values()
    }
    sound["text/event-stream"] = {"schema": EVENT}

    @app.post(
        "/v1/audio/speech",
        response_class=Response,
        responses={
            200: {"description": "The sound, as it is made, or events with it.", "content": sound},
            **error_responses(400, 401, 404, 408, 413, 415, 429, 500, 503),
        },
    )
    async def speech(request: Request) -> Response:
        """Speak a text."""
        service.check_open()
        check_type(request.headers)
        data = await read_body(request.headers, request.receive, settings.body_bytes, settings.body_s)
        wanted = parse(SpeechRequest, read_json(data))
        order = service.order(wanted, wanted.input)
        sse = wanted.stream_format == "sse"
        return SpokenAnswer(service, order, wanted.response_format or "mp3", sse, request.state.request_id)

    @app.get("/v1/audio/voices", responses=error_responses(401))
    async def voices() -> dict[str, Any]:
        """The speakers, and the names that stand for them."""
        return service.names.describe_voices()

    @app.websocket("/v1/audio/speech/stream")
    async def stream(socket: WebSocket) -> None:
        await Session(socket, service).run()


def _models(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", responses=error_responses(401))
    async def models() -> dict[str, Any]:
        """The names that `model` may have."""
        return service.names.describe_models()

    @app.get("/v1/models/{model}", responses=error_responses(401, 404))
    async def model(model: Annotated[str, PathParameter()]) -> dict[str, Any]:
        """One of them."""
        service.names.check_model(model)
        return service.names.describe_model(model)


def _house(app: FastAPI, service: Service) -> None:
    @app.get("/healthz", responses=error_responses(503))
    async def health() -> dict[str, str]:
        """The process lives."""
        service.check_alive()
        return {"status": "ok"}

    @app.get("/readyz", responses=error_responses(503))
    async def ready() -> dict[str, str]:
        """It takes requests."""
        service.check_open()
        service.check_alive()
        return {"status": "ready"}

    @app.get(
        "/metrics",
        response_class=PlainTextResponse,
        responses={200: {"description": "For Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Counters."""
        return Response(service.metrics.render(), media_type=MEDIA_TYPE)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> JSONResponse:
        return JSONResponse(describe(app, service))


def _errors(app: FastAPI, service: Service) -> None:
    """Every refusal in one form. What no route expects is the gate's."""

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        path, method = request.url.path, request.method
        if error.status_code == 405:
            allowed = _allowed(app, request)
            if method == "OPTIONS":
                return Response(status_code=204, headers={"Allow": allowed})
            if method == "HEAD" and "GET" in allowed.split(", "):
                return Response(status_code=200)
            told = ApiError(405, f"{path} takes {allowed}", code="method_not_allowed", headers={"Allow": allowed})
        elif error.status_code == 404:
            told = ApiError(404, "there is nothing at this address", code="not_found")
        else:
            told = ApiError(error.status_code, str(error.detail), headers=dict(error.headers or {}))
        return answer(service.refuse(told, request.state.request_id))


def _allowed(app: FastAPI, request: Request) -> str:
    """The methods that an address takes."""
    found = set()
    for method in METHODS:
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in app.router.routes):
            found.add(method)
    return ", ".join([*(m for m in METHODS if m in found or (m == "HEAD" and "GET" in found)), "OPTIONS"])
