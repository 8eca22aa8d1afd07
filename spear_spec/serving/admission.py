"""Who is let in: limits of a text, of the listeners and of their waiting, and when it is worth another try."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from spear_spec.errors import TextError
from spear_spec.serving.limits import Limits
from spear_spec.serving.listener import Listener
from spear_spec.serving.speech import Busy

_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 0.5, 60.0


class Admission:
    """See the module. All times are the scheduler's clock."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._ends: deque[float] = deque(maxlen=32)  # when requests ended

    def ended(self, now: float) -> None:
        """A request has ended."""
        self._ends.append(now)

    def check_length(self, characters: int) -> None:
        """Raises TextError: a text has too many."""
        most = self.limits.characters
        if characters > most:
            raise TextError(f"a text may have at most {most} characters, this one has {characters}: send it in parts")

    def check_room(self, listeners: Collection[Listener], now: float, closing: bool) -> None:
        """Refuse one more listener beside these where a limit is reached.

        Raises:
            Busy: it is, or the server ends.
        """
        problem = None
        if closing:
            problem = "the server is shutting down"
        elif len(listeners) >= self.limits.streams:
            problem = f"all {self.limits.streams} streams are taken"
        elif sum(one.heard is None and not one.over for one in listeners) >= self.limits.queue:
            problem = f"{self.limits.queue} requests wait for their first sound"
        elif any(one.waits_since < now - self.limits.wait_s for one in listeners):
            problem = f"a request has waited more than {self.limits.wait_s:g} s for its first sound"
        if problem is not None:
            wait = self._retry_after(now)
            raise Busy(f"{problem}: try again in {wait:.1f} s", wait)

    def _retry_after(self, now: float) -> float:
        """When a stream will be free: the mean time between those that ended lately."""
        if len(self._ends) < 2:
            return 1.0
        between = (max(now, self._ends[-1]) - self._ends[0]) / len(self._ends)
        return min(max(between, _SHORTEST_RETRY_S), _LONGEST_RETRY_S)
