"""Bearer keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from spear_spec.errors import ConfigError
from spear_spec.serving.errors import ApiError

VARIABLE = "SPEAR_SPEC_API_KEYS"


class Keys:
    """Which Authorization headers are let in; all of them where there are no keys.

    Compared are SHA-256 hashes, each in constant time and all of them always, so that the time an answer takes says
    nothing of how much of a key was right, or which.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes = [hashlib.sha256(key.encode()).digest() for key in keys]

    def check(self, header: bytes | None) -> None:
        """Raises ApiError 401 unless the header's value is that of a known key."""
        if not self._hashes:
            return
        scheme, _, key = (header or b"").partition(b" ")
        given = hashlib.sha256(key.strip()).digest()
        known = sum([hmac.compare_digest(given, one) for one in self._hashes])
        if scheme.lower() != b"bearer" or not known:
            said = "wrong" if header else "missing"
            raise ApiError(
                401,
                f"the API key is {said}: send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def read_keys(path: str | None, variable: str | None) -> tuple[str, ...]:
    """Keys of a file (one a line; empty lines and those that start with # are not keys) and of the environment's
    variable (with commas between them).

    Raises:
        ConfigError: the file cannot be read, or holds no key.
    """
    found = [key.strip() for key in (variable or "").split(",") if key.strip()]
    if path is not None:
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ConfigError(f"cannot read the API keys of {path}: {reason}") from None
        listed = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
        if not listed:  # a server that was meant to be closed must not stand open
            raise ConfigError(f"{path} holds no API key: write one a line")
        found += listed
    return tuple(dict.fromkeys(found))
