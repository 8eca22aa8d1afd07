"""When an utterance must stop although the model has not ended it: the cap and the runaway guard."""

from __future__ import annotations

FRAME_RATE = 25.0  # semantic tokens a second, where a voice says nothing else
_CYCLES = 12  # longest cycle looked for: about half a second
_STUCK_SECONDS = 2.5
_SECONDS_PER_SYMBOL = 0.3  # speech needs about .08
_SECONDS_AT_LEAST = 3.0


def default_cap(symbols: int, frame_rate: float = FRAME_RATE) -> int:
    """Most tokens that a text of so many symbols (speaker and end token included) may take: about four times what
    speech does.
    """
    return int(frame_rate * (_SECONDS_AT_LEAST + _SECONDS_PER_SYMBOL * symbols))


class Guard:
    """Notices a token or a short cycle that repeats for longer than speech does.

    A function of the token prefix alone, fed one kept token at a time, so that it cuts the autoregressive and the
    speculative loop at the same place and the law of both stays the same.
    """

    def __init__(self, frame_rate: float = FRAME_RATE) -> None:
        """frame_rate: semantic tokens a second."""
        self._limit = int(_STUCK_SECONDS * frame_rate)
        self._last: list[int] = []  # newest first
        self._runs = [0] * _CYCLES

    @property
    def fatal(self) -> set[int]:
        """The tokens of which the next one would be one too many."""
        return {token for token, run in zip(self._last, self._runs) if run + 1 >= self._limit}

    def copy(self) -> Guard:
        """One that has seen the same tokens."""
        other = Guard.__new__(Guard)
        other._limit, other._last, other._runs = self._limit, list(self._last), list(self._runs)
        return other

    def push(self, token: int) -> bool:
        """Take the next token; True when the utterance is stuck."""
        last, runs = self._last, self._runs
        longest = 0
        for at, before in enumerate(last):
            if before == token:
                runs[at] += 1
                longest = max(longest, runs[at])
            else:
                runs[at] = 0
        last.insert(0, token)
        del last[_CYCLES:]
        return longest >= self._limit
