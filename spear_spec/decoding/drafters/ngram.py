"""An n-gram model of the utterance's own past."""

from __future__ import annotations

from collections import Counter

from spear_spec.decoding.drafters.history import HistoryDrafter
from spear_spec.decoding.kinds import DrafterKind, chains
from spear_spec.errors import ConfigError


class NGrams:
    """Counts of what followed each run of 1 to order - 1 tokens. Ties go to the token seen last."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.tokens: list[int] = []
        self._counts: dict[tuple[int, ...], Counter[int]] = {}
        self._best: dict[tuple[int, ...], int] = {}

    def push(self, token: int) -> None:
        past = self.tokens
        for size in range(1, min(self.order - 1, len(past)) + 1):
            context = tuple(past[-size:])
            counts = self._counts.setdefault(context, Counter())
            counts[token] += 1
            if counts[token] >= counts[self._best.setdefault(context, token)]:
                self._best[context] = token
        past.append(token)

    def guess(self, limit: int) -> list[int]:
        recent = self.tokens[-(self.order - 1) :]
        out: list[int] = []
        while len(out) < limit and (token := self._next(recent)) is not None:
            out.append(token)
            recent = [*recent, token][-(self.order - 1) :]
        return out

    def _next(self, recent: list[int]) -> int | None:
        """The likeliest token behind the longest context that has been seen; the empty one does not count."""
        for start in range(len(recent)):
            token = self._best.get(tuple(recent[start:]))
            if token is not None:
                return token
        return None


class NgramDrafter(HistoryDrafter):
    """Drafts the likeliest continuation again and again, backing off to shorter contexts."""

    name = "ngram"

    def __init__(self, *, order: int = 3) -> None:
        """order: tokens of the longest n-gram counted, the guessed one included."""
        if not isinstance(order, int) or isinstance(order, bool) or order < 2:
            raise ConfigError(f"order must be a whole number above 1, not {order!r}")
        self.order = order

    def history(self) -> NGrams:
        return NGrams(self.order)


KIND = DrafterKind(NgramDrafter, "an n-gram model of the utterance's own past", usual={"gamma": 3}, raced=chains((3,)))
