"""What the driver knows of its workers, wherever they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from spear_spec import errors
from spear_spec.bulk.shards import Shard
from spear_spec.errors import SpearSpecError


@dataclass(frozen=True)
class Ready:
    """A worker has loaded the voice."""

    worker: int
    pid: int
    host: str


@dataclass(frozen=True)
class Done:
    """A shard was published. told: lines, failed, tokens, seconds (of sound)."""

    worker: int
    told: dict[str, Any]


@dataclass(frozen=True)
class Gone:
    """A worker is no more; what it was at has to be done again."""

    worker: int
    why: str


@dataclass(frozen=True)
class Refused:
    """A worker met what no other worker would fare better with: the run stops."""

    worker: int
    error: SpearSpecError


Event = Ready | Done | Gone | Refused


class Crew(Protocol):
    """Workers by number. A context: when it is left, they have ended."""

    def __enter__(self) -> Crew: ...

    def __exit__(self, *_: object) -> None: ...

    def hire(self) -> int:
        """Start a worker; it will be ready, gone or refused."""
        ...

    def give(self, worker: int, shard: Shard) -> None:
        """A shard for a worker that is ready and has none."""
        ...

    def wait(self) -> list[Event]:
        """Wait until something has happened."""
        ...


def error_of(kind: str, message: str) -> SpearSpecError:
    """An error of ours that was raised elsewhere, by its name."""
    found = getattr(errors, kind, None)
    if isinstance(found, type) and issubclass(found, SpearSpecError):
        return found(message)
    return SpearSpecError(message)
