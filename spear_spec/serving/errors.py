"""Every refusal as OpenAI's error object: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from spear_spec.errors import ConfigError, SpearSpecError, TextError

BAD_REQUEST = "invalid_request_error"
SERVER = "server_error"
LIMIT = "rate_limit_error"


class ApiError(SpearSpecError):
    """A request that is not answered: HTTP status, message, and the fields of OpenAI's error object.

    reason: the label under which /metrics counts it; the code, or the status, where none is given.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = BAD_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.param, self.code = status, kind, param, code
        self.headers = dict(headers or {})
        self.reason = reason or code or f"http_{status}"

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the answer."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


def as_api_error(error: BaseException) -> ApiError:
    """What a client is told of an error. What is not the client's fault says nothing of its cause."""
    if isinstance(error, ApiError):
        return error
    wait = getattr(error, "retry_after_s", None)
    if wait is not None:  # Busy, of whichever scheduler
        return ApiError(
            429,
            str(error) or "the server is busy: try again",
            kind=LIMIT,
            code="server_busy",
            headers={"Retry-After": str(max(1, math.ceil(wait)))},
        )
    if isinstance(error, TextError):
        return ApiError(400, str(error), param="input", code="invalid_text")
    if isinstance(error, ConfigError):
        return ApiError(400, str(error), code="invalid_value")
    return ApiError(
        500,
        "the server failed while it worked on this request; its log says more, under the id of the X-Request-Id header",
        kind=SERVER,
        code="internal_error",
    )


def shutting_down(retry_after_s: float = 5) -> ApiError:
    """The server ends: it takes nothing new."""
    return ApiError(
        503,
        "the server is shutting down: try another, or again in a while",
        kind=SERVER,
        code="shutting_down",
        headers={"Retry-After": str(math.ceil(retry_after_s))},
    )
