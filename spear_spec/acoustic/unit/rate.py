"""Speech at another rate: the vocoder's frames read slower or faster, before they are filtered.

Output frame g is read at (g + 1/2) rate - 1/2 of the frames that were predicted, between two of them by linear
interpolation, and held at both ends. F0 is read alike and drives pulses at the true frame rate, so the pitch stays.
What n frames give is a function of n alone, so a stream may be cut anywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

SLOWEST, FASTEST = 0.5, 2.0  # beyond, vowels turn into drones, and consonants of one frame are skipped


def frames_at(count: int, rate: float) -> int:
    """How many frames `count` predicted ones are read as: count / rate, to the nearest whole number."""
    return count if rate == 1 else int(count / rate + 0.5)


class RateStream:
    """Frames of one utterance, read at a rate. At rate 1 they go through untouched."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self._seen = self._made = 0
        self._newest: Tensor | None = None  # the next output may lie between it and what comes

    def push(self, frames: Tensor, last: bool = False) -> Tensor:
        """Take predicted frames [B, n, ...], give those that can be read now [B, m, ...]; with `last` all the rest."""
        if self.rate == 1:
            return frames
        known = frames if self._newest is None else torch.cat([self._newest, frames], dim=1)
        self._seen += frames.shape[1]
        if not self._seen:
            return frames
        self._newest, first = known[:, -1:], self._seen - known.shape[1]
        numbers = torch.arange(self._made, frames_at(self._seen, self.rate), dtype=torch.float64, device=known.device)
        places = ((numbers + 0.5) * self.rate - 0.5).clamp(0, self._seen - 1)
        before = places.floor()
        if not last:
            places = places[before + 1 < self._seen]
            before = before[: len(places)]
        self._made += len(places)
        earlier = before.long() - first
        later = (earlier + 1).clamp(max=known.shape[1] - 1)
        share = (places - before).to(known.dtype).view(-1, *[1] * (known.ndim - 2))
        return torch.lerp(known[:, earlier], known[:, later], share)


def at_rate(frames: Tensor, rate: float) -> Tensor:
    """All frames [B, n, ...] of an utterance to [B, `frames_at(n, rate)`, ...]."""
    return RateStream(rate).push(frames, last=True)
