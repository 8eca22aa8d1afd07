"""A Ray cluster: one that is there, or one on this machine for the time of a run."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path
from typing import Any

import spear_spec
from spear_spec.errors import MissingExtraError, WorkerError

LOCAL = "local"
STORE = 100 * 2**20  # bytes of shared memory: enough where nothing larger than a shard's texts passes through it
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_AUTH_MODE": "token"}
# said to be of other systems, but what it does is to keep every socket on 127.0.0.1
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def load_ray(*, alone: bool) -> Any:
    """The package; alone: for a cluster that nobody outside this machine can reach.

    Raises:
        MissingExtraError: it is not installed.
    """
    for name, value in {**QUIET, **(ALONE if alone else {})}.items():  # Ray reads them when it is imported
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise MissingExtraError("Ray is not installed: pip install 'spear_spec[ray]'") from None
    return ray


def start_ray(address: str, workers: int, store: int = STORE) -> Any:
    """Connect to a cluster, or start one on this machine: no dashboard, nothing sent anywhere, no socket but on
    127.0.0.1.

    Args:
        store: bytes of shared memory of a cluster of one's own, which keeps its files in $RAY_TMPDIR (a short path:
            sockets are in it).

    Raises:
        MissingExtraError: Ray is not installed. WorkerError: there is no cluster at the address, or none starts.
    """
    _check_listening(address)
    ray = load_ray(alone=address == LOCAL)
    root = str(Path(spear_spec.__file__).parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "namespace": "spear_spec"}
    try:
        if address != LOCAL:
            ray.init(address, **common)
        else:
            ray.init(
                "local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=store,
                _temp_dir=os.environ.get("RAY_TMPDIR"),
                **common,
            )
    except Exception as error:  # Ray has many; some are bare RuntimeErrors and AssertionErrors
        raise WorkerError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:200]}") from None
    return ray


def _check_listening(address: str) -> None:
    """Refuse HOST:PORT where nothing is: Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        return  # "local", "auto", or a form that only Ray knows
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WorkerError(f"no Ray cluster at {address}: {reason}") from None
