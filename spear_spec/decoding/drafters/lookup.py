"""Prompt lookup decoding (apoorvumang/prompt-lookup-decoding) in the utterance's own past."""

from __future__ import annotations

from spear_spec.decoding.drafters.history import HistoryDrafter
from spear_spec.decoding.kinds import DrafterKind, chains
from spear_spec.errors import ConfigError


class Occurrences:
    """Where each run of 1 to `longest` tokens occurred last with something behind it."""

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.tokens: list[int] = []
        self._behind: dict[tuple[int, ...], int] = {}  # index of the token that followed

    def push(self, token: int) -> None:
        past = self.tokens
        for size in range(1, min(self.longest, len(past)) + 1):
            self._behind[tuple(past[-size:])] = len(past)
        past.append(token)

    def guess(self, limit: int) -> list[int]:
        past = self.tokens
        for size in range(min(self.longest, len(past)), 0, -1):
            at = self._behind.get(tuple(past[-size:]))
            if at is not None:
                return past[at : at + limit]
        return []


class LookupDrafter(HistoryDrafter):
    """Finds the longest end of what was said that was said before, and copies what followed it then."""

    name = "lookup"

    def __init__(self, *, longest: int = 4) -> None:
        """longest: most tokens that are compared."""
        if not isinstance(longest, int) or isinstance(longest, bool) or longest < 1:
            raise ConfigError(f"longest must be a whole number above 0, not {longest!r}")
        self.longest = longest

    def history(self) -> Occurrences:
        return Occurrences(self.longest)


KIND = DrafterKind(LookupDrafter, "what followed in the utterance's own past", usual={"gamma": 3}, raced=chains((3,)))
