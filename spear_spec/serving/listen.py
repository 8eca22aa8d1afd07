"""The address to listen at."""

from __future__ import annotations

import socket

from spear_spec.errors import ConfigError


def bind(host: str, port: int) -> socket.socket:
    """A listening address, taken before anything slow begins.

    Raises:
        ConfigError: it cannot be taken.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        taken = socket.socket(family, socket.SOCK_STREAM)
        try:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind((host, port))
        except OSError:
            taken.close()
            raise
    except OSError as error:
        raise ConfigError(f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port") from None
    return taken
