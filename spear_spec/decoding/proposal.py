"""What drafters hand to verifiers, what verifiers hand back, and the counts kept of both."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Proposal:
    """A chain of draft tokens for each row.

    tokens: per row a list of ids; rows may be of different length. probs [B, N, V]: the law that each was drawn from
    (padding behind a row's length is ignored), or None when the tokens are point masses.
    """

    tokens: list[list[int]]
    probs: Tensor | None = None

    @property
    def longest(self) -> int:
        return max(len(row) for row in self.tokens)


@dataclass
class Verdict:
    """What one target call settled. Python lists, because rows differ in length and the loop reads them one by one.

    rows: the session's row numbers; tokens: per row the accepted draft tokens and the one recovered or bonus token
    behind them (cut at an end token, cap or guard by the session); num_accepted: accepted draft tokens among them;
    ended: per row None while it runs, else "eos", "cap" or "guard".
    """

    rows: list[int]
    tokens: list[list[int]]
    num_accepted: list[int]
    num_drafted: list[int]
    ended: list[str | None] = field(default_factory=list)


@dataclass
class DecodeStats:
    """Counts of one row, or (added up) of several.

    target_calls: target decoder forwards, the first included. tokens: what was kept, the end token included, so that
    the autoregressive loop is exactly 1 per call. reached[i]: calls with more than i accepted draft tokens.
    """

    target_calls: int = 0
    tokens: int = 0
    drafted: int = 0
    accepted: int = 0
    reached: list[int] = field(default_factory=list)

    def count(self, tokens: int, drafted: int, accepted: int) -> None:
        """One target call."""
        self.target_calls += 1
        self.tokens += tokens
        self.drafted += drafted
        self.accepted += accepted
        if len(self.reached) < drafted:
            self.reached.extend([0] * (drafted - len(self.reached)))
        for position in range(accepted):
            self.reached[position] += 1

    @property
    def tokens_per_call(self) -> float:
        """Block efficiency."""
        return self.tokens / self.target_calls if self.target_calls else 0.0

    @property
    def acceptance_by_position(self) -> list[float]:
        """Share of calls with more than i accepted draft tokens."""
        return [count / self.target_calls for count in self.reached]

    def __add__(self, other: DecodeStats) -> DecodeStats:
        width = max(len(self.reached), len(other.reached))
        mine, theirs = (s.reached + [0] * (width - len(s.reached)) for s in (self, other))
        return DecodeStats(self.target_calls + other.target_calls, self.tokens + other.tokens, self.drafted + other.drafted,
                           self.accepted + other.accepted, [a + b for a, b in zip(mine, theirs)])
