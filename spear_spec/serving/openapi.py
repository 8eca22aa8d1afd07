"""/openapi.json: what FastAPI finds in the routes, and what it cannot see: the body that we read ourselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi.openapi.utils import get_openapi

from spear_spec.serving.schema import ErrorBody, SpeechRequest

if TYPE_CHECKING:
    from fastapi import FastAPI

    from spear_spec.serving.service import Service

_WHY = {
    400: "The request cannot be used.",
    401: "The API key is missing or wrong.",
    404: "There is no such thing.",
    408: "The body did not arrive in time.",
    413: "The body is too long.",
    415: "The body is not JSON.",
    429: "The server is busy: Retry-After says when to try again.",
    500: "The server failed.",
    503: "The server is shutting down, or cannot go on.",
}


# of one event; `data` is a JSON object
EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "oneOf": [
                    {
                        "type": "object",
                        "required": ["type", "audio"],
                        "properties": {
                            "type": {"const": "speech.audio.delta"},
                            "audio": {"type": "string", "contentEncoding": "base64"},
                        },
                    },
                    {
                        "type": "object",
                        "required": ["type", "usage"],
                        "properties": {"type": {"const": "speech.audio.done"}, "usage": {"type": "object"}},
                    },
                    {
                        "type": "object",
                        "required": ["type", "error"],
                        "properties": {
                            "type": {"const": "speech.audio.error"},
                            "error": {"$ref": "#/components/schemas/ErrorObject"},
                        },
                    },
                ]
            },
        }
    },
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route."""
    return {status: {"model": ErrorBody, "description": _WHY[status]} for status in statuses}


def describe(app: FastAPI, service: Service) -> dict[str, Any]:
    """The whole document."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    body = SpeechRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = document["components"]["schemas"]
    schemas.update(body.pop("$defs", {}))
    body["properties"]["input"]["maxLength"] = service.settings.characters
    names = [*service.names.speakers, *service.names.prompts, *service.names.stand_ins]
    for choice in body["properties"]["voice"]["anyOf"]:
        if choice.get("type") == "string":
            choice["enum"] = names
    schemas["VoiceId"]["properties"]["id"]["enum"] = names
    body["properties"]["model"]["enum"] = list(service.names.models)
    schemas["SpeechRequest"] = body
    reference = {"$ref": "#/components/schemas/SpeechRequest"}
    document["paths"]["/v1/audio/speech"]["post"]["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": reference}},
    }
    for operations in document["paths"].values():
        for operation in operations.values():
            operation["responses"].pop("422", None)  # FastAPI's own form of errors: we answer 400
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    if service.settings.keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            if path.startswith("/v1/"):
                for operation in operations.values():
                    operation["security"] = [{"key": []}]
    return document
