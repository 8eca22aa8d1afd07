"""What the scheduler tells about itself: for metrics, and for whether it is ready."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Totals:
    """Counts since the start. steps: of the engine, one call of the target for all rows; target_calls: the same,
    counted for each row. restarts: engines that had to be replaced.
    """

    requests: int = 0
    refused: int = 0
    answered: int = 0
    cancelled: int = 0
    failed: int = 0
    sentences: int = 0
    steps: int = 0
    target_calls: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    audio_s: float = 0.0
    underruns: int = 0
    restarts: int = 0


@dataclass(frozen=True)
class State:
    """One moment.

    alive: its threads are at work. accepting: alive, and no drain has begun. queued: requests of which nothing has been
    heard. waiting: sentences that are ready and in no row. rows: sentences that are decoded. streams: requests under
    way. stalled_s: since when there is work and no step has come to its end.
    """

    alive: bool
    accepting: bool
    queued: int
    waiting: int
    rows: int
    streams: int
    stalled_s: float
    totals: Totals


@dataclass(frozen=True)
class Observation:
    """A request has ended: answered, cancelled or failed.

    ended: as in `Done.usage`, or "error". first_sound_s: from the request to its first sound that is not silence. rtf:
    seconds it took, a second of speech (None without any). gaps_s: what its listener heard of underruns.
    """

    ended: str
    first_sound_s: float | None
    rtf: float | None
    audio_s: float
    tokens: int
    target_calls: int
    acceptance: float | None
    gaps_s: tuple[float, ...] = field(default=())
