"""A request's body: counted while it is read, then strict JSON."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from spear_spec.config import shown
from spear_spec.serving.errors import ApiError

# A client that is still sending does not read the refusal; so much of what is too long is taken and thrown away.
THROWN_AWAY = 32 * 2**20
THROWN_AWAY_S = 2.0


async def read_body(headers: Mapping[str, str], receive: Receive, most: int, within_s: float) -> bytes:
    """The body, of at most so many bytes, whatever its length was said to be.

    Raises:
        ApiError: 413 too long, 408 not there in time. ClientDisconnect: the client left.
    """
    said = headers.get("content-length", "")
    if said.isdecimal() and int(said[:20]) > most:
        if "expect" not in headers:
            await _throw_away(receive)
        raise _too_long(most)
    parts, size = [], 0
    try:
        async with asyncio.timeout(within_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientDisconnect
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    if message.get("more_body", False):
                        await _throw_away(receive)
                    raise _too_long(most)
                if not message.get("more_body", False):
                    return b"".join(parts)
    except TimeoutError:
        raise ApiError(
            408,
            f"the body did not arrive within {within_s:g} s",
            code="request_timeout",
            headers={"Connection": "close"},
        ) from None


def _too_long(most: int) -> ApiError:
    return ApiError(
        413, f"the body has more than {most} bytes", code="request_too_large", headers={"Connection": "close"}
    )


async def _throw_away(receive: Receive) -> None:
    size, end = 0, time.monotonic() + THROWN_AWAY_S
    while size < THROWN_AWAY and (left := end - time.monotonic()) > 0:
        try:
            async with asyncio.timeout(left):
                message = await receive()
        except TimeoutError:
            return
        size += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


def check_type(headers: Mapping[str, str]) -> None:
    """Raises ApiError 415 unless the body is said to be JSON as it stands, in UTF-8."""
    kind, *parameters = (part.strip().lower() for part in headers.get("content-type", "").split(";"))
    charset = next((part[8:].strip('"') for part in parameters if part.startswith("charset=")), "utf-8")
    coding = headers.get("content-encoding", "identity").strip().lower()
    if kind != "application/json":
        raise ApiError(
            415, "send JSON, with the header 'Content-Type: application/json'", code="unsupported_media_type"
        )
    if charset not in ("utf-8", "utf8", "us-ascii", "ascii"):
        raise ApiError(415, "send the JSON in UTF-8", code="unsupported_media_type")
    if coding != "identity":
        raise ApiError(415, "send the JSON without Content-Encoding", code="unsupported_media_type")


def read_json(data: bytes | str) -> dict[str, Any]:
    """One JSON object, in UTF-8, by the letter of RFC 8259: no NaN, no key twice, no half of a surrogate pair.

    Raises:
        ApiError: 400; the message holds nothing of the text.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # finds halves of surrogate pairs wherever they stand
    except UnicodeDecodeError as error:
        raise _bad(f"the body is not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise _bad("a string holds half of a surrogate pair (\\ud800 to \\udfff), which is no character") from None
    except json.JSONDecodeError as error:
        raise _bad(f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise _bad("the JSON is nested too deep") from None
    except ApiError:
        raise
    except ValueError:  # a number of thousands of digits
        raise _bad("the JSON holds a number that is too long") from None
    if not isinstance(value, dict):
        raise _bad('the body must be a JSON object, such as {"input": "Hello."}')
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in pairs:
        if key in made:
            raise _bad(f"the key {_ascii(key)} stands twice in an object")
        made[key] = value
    return made


def _constant(name: str) -> NoReturn:
    raise _bad(f"the JSON holds {name}, which is no number")


def _ascii(text: str) -> str:
    return shown(text.encode("ascii", "replace").decode(), 40)


def _bad(message: str) -> ApiError:
    return ApiError(400, message, code="invalid_json")
