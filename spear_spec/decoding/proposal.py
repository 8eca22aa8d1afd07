"""What drafters hand to verifiers, what verifiers hand back, and the counts kept of both."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from torch import Tensor


@dataclass
class Proposal:
    """Draft tokens for each row: a chain, or a tree in which a node stands behind its parent.

    tokens: per row a list of ids in topological order; rows may hold different numbers of them. parents: per row the
    index of each token's parent, -1 where it follows the kept prefix; None: every row is a chain. Siblings may be equal
    (several draws from one law); equal siblings are one place, and the children of all of them are its children.

    probs [B, N, V]: the law that each token was drawn from (padding behind a row's tokens is ignored); None: the tokens
    are point masses, chosen without chance. Of siblings that were drawn in turn without replacement (a drafter of form
    "wor"), in the order in which they stand, it is the law of the first.

    below (n, x [lanes, T, D]): the draft ran the target's own first n layers on the newest kept token and the first
    T - 1 draft tokens, and left their rows in the target's cache: verification goes on from there. Chains only.
    """

    tokens: list[list[int]]
    probs: Tensor | None = None
    parents: list[list[int]] | None = None
    below: tuple[int, Tensor] | None = None

    @property
    def longest(self) -> int:
        """Most draft tokens of any row."""
        return max(len(row) for row in self.tokens)

    def branches(self, place: int) -> Branches:
        """The draft of one row, to walk down."""
        tokens = self.tokens[place]
        return Branches(tokens, range(-1, len(tokens) - 1) if self.parents is None else self.parents[place])


class Branches:
    """The draft tokens of one row by what they follow. A place is the list of nodes that spell the same tokens."""

    ROOT: Final = (-1,)  # the place where the kept prefix ends

    def __init__(self, tokens: Sequence[int], parents: Iterable[int]) -> None:
        self.tokens = tokens
        self._children: dict[int, list[int]] = {}
        for node, parent in enumerate(parents):
            self._children.setdefault(parent, []).append(node)

    def after(self, place: Sequence[int]) -> list[int]:
        """The nodes that follow a place, in topological order."""
        children = self._children
        if len(place) == 1:
            return children.get(place[0], [])
        return sorted(node for parent in place for node in children.get(parent, ()))

    def same(self, siblings: Sequence[int], token: int) -> list[int]:
        """Those of the siblings that are this token: the next place."""
        return [node for node in siblings if self.tokens[node] == token]


@dataclass
class Verdict:
    """What one target call settled. Python lists, because rows differ in length and the loop reads them one by one.

    rows: the session's row numbers; tokens: per row the accepted draft tokens and the one recovered or bonus token
    behind them (cut at an end token, cap or guard by the session); num_accepted: accepted draft tokens among them;
    paths: per row the accepted nodes of a tree, None where the draft was a chain (the first num_accepted then);
    ended: per row None while it runs, else "eos", "cap" or "guard".
    """

    rows: list[int]
    tokens: list[list[int]]
    num_accepted: list[int]
    num_drafted: list[int]
    paths: list[list[int]] | None = None
    ended: list[str | None] = field(default_factory=list)


def is_token(token: object, vocabulary: int) -> bool:
    """Whether this is the id of a token: a whole number (no tensor, no bool) below `vocabulary`."""
    return isinstance(token, int) and not isinstance(token, bool) and 0 <= token < vocabulary


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

    def count(self, tokens: int, drafted: int, accepted: int, depth: int | None = None) -> None:
        """One target call; depth: of the draft, where it was a tree."""
        depth = drafted if depth is None else depth
        self.target_calls += 1
        self.tokens += tokens
        self.drafted += drafted
        self.accepted += accepted
        if len(self.reached) < depth:
            self.reached.extend([0] * (depth - len(self.reached)))
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
        return DecodeStats(
            self.target_calls + other.target_calls,
            self.tokens + other.tokens,
            self.drafted + other.drafted,
            self.accepted + other.accepted,
            [a + b for a, b in zip(mine, theirs)],
        )
