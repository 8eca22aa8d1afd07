"""Where a chain stops before gamma tokens: rules that look ahead at what further draft tokens are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

import torch
from torch import Tensor

from spear_spec.config import number
from spear_spec.decoding.proposal import Verdict
from spear_spec.errors import ConfigError


@dataclass(frozen=True)
class Bounds:
    """A rule as two numbers a row, by place; None: no such bound.

    entropy: most nats of a law that is still drawn from (what `before` looks at). chance: least chance of a token that
    something follows (what `after` looks at).
    """

    entropy: list[float] | None = None
    chance: list[float] | None = None


class Stopping(Protocol):
    """One object a session; indexed by place in the batch that still runs.

    Exactness: whether a token is drawn may depend on anything known before it is drawn; a token that was drawn stays.
    """

    def limits(self, limits: list[int]) -> list[int]:
        """Most tokens that each row drafts now, at most `limits`, and at least 1 where that is above 0.

        A row that may draft nothing would never show again whether its draft is any good; `before` can still say no.
        """
        ...

    def before(self, laws: Tensor, places: list[int]) -> list[int]:
        """Of these places, those that draw from their law (laws [B, V], indexed by place)."""
        ...

    def after(self, laws: Tensor, places: list[int], drawn: list[int]) -> list[int]:
        """Of these places, which drew these tokens from their laws, those that go on."""
        ...

    def bounds(self) -> Bounds:
        """What `before` and `after` do, by place."""
        ...

    def commit(self, verdict: Verdict) -> None:
        """Learn from num_accepted and num_drafted; rows that have ended leave by `leave`."""
        ...

    def join(self, count: int) -> None:
        """So many new rows, at the last places."""
        ...

    def leave(self, stay: list[int]) -> None:
        """Only the rows at these places go on."""
        ...


def staying(verdict: Verdict) -> list[int]:
    """Places of the rows that go on."""
    return [place for place, ended in enumerate(verdict.ended) if ended is None]


class Bounded:
    """Stops where its bounds say; without any, nowhere on the way."""

    def bounds(self) -> Bounds:
        return Bounds()

    def before(self, laws: Tensor, places: list[int]) -> list[int]:
        most = self.bounds().entropy
        if most is None:
            return places
        entropy = torch.special.entr(laws).sum(-1).tolist()
        return [place for place in places if entropy[place] <= most[place]]

    def after(self, laws: Tensor, places: list[int], drawn: list[int]) -> list[int]:
        least = self.bounds().chance
        if least is None:
            return places
        return [place for place, chance in zip(places, laws[places, drawn].tolist()) if chance >= least[place]]


class Threshold(Bounded):
    """A threshold for each row that follows the share of its draft tokens that was accepted.

    After a call, rate = .5 rate + .5 accepted / drafted, from 0; the threshold moves by a tenth of `step`, up while the
    rate is below .9, else down (Draft & Verify, arXiv 2309.08168, adaptive draft-exiting; the values are the authors'
    code's `auto_parameters`). It stays where `whole` says that the draft was used up to its limit.
    """

    def __init__(self, rows: int, start: float, step: float = 0.01) -> None:
        self.begin, self.step = start, step
        self.given: list[int] = []
        self.thresholds: list[float] = []
        self.rates: list[float] = []
        self.join(rows)

    def join(self, count: int) -> None:
        self.given = [*self.given, *[0] * count]
        self.thresholds += [self.begin] * count
        self.rates += [0.0] * count

    def leave(self, stay: list[int]) -> None:
        self.given = [self.given[place] for place in stay]
        self.thresholds, self.rates = ([line[place] for place in stay] for line in (self.thresholds, self.rates))

    def limits(self, limits: list[int]) -> list[int]:
        self.given = limits
        return limits

    def whole(self, accepted: int, drafted: int, limit: int) -> bool:
        """Whether lowering the threshold would be without reason."""
        raise NotImplementedError

    def commit(self, verdict: Verdict) -> None:
        for place, (accepted, drafted) in enumerate(zip(verdict.num_accepted, verdict.num_drafted)):
            self._learn(place, accepted, drafted)

    def _learn(self, place: int, accepted: int, drafted: int) -> None:
        if drafted == 0:
            if self.given[place] > 0:  # the papers leave this open; without it a row that fell silent would stay so
                self.thresholds[place] -= 0.1 * self.step
            return
        self.rates[place] = 0.5 * self.rates[place] + 0.5 * accepted / drafted
        if self.rates[place] < 0.9:
            self.thresholds[place] += 0.1 * self.step
        elif not self.whole(accepted, drafted, self.given[place]):
            self.thresholds[place] -= 0.1 * self.step


class AdaEDL(Threshold):
    """Draws only where the draft is sure enough: 1 - sqrt(c H(q)) at least lambda (arXiv 2410.18351, Algorithm 1).

    A draft token is accepted with chance 1 - TV(p, q), by Pinsker at least 1 - sqrt(KL(q, p) / 2); p is not known while
    drafting, and c H(q) is put for KL / 2: an approximation, no bound. q is the law that the token is drawn from, after
    guidance, temperature, top-k and top-p, since that is the q of TV(p, q); at temperature 0, H = 0 and nothing stops.

    c = .2, entropy in nats, and the threshold's constants are the paper's as two public re-implementations and two
    summaries give them; its own text was out of reach here. They agree that lambda falls only where the rate is reached
    and not the whole limit was accepted. The start of lambda is ours (the paper tries .3 to .9): see docs/drafting.md.
    """

    def __init__(self, rows: int, start: float = 0.3, step: float = 0.01, c: float = 0.2) -> None:
        super().__init__(rows, start, step)
        self.c = c

    def bounds(self) -> Bounds:
        return Bounds(
            entropy=[(1 - line) ** 2 / self.c if line <= 1 else -1.0 for line in self.thresholds]
        )  # solved for H

    def whole(self, accepted: int, drafted: int, limit: int) -> bool:
        return accepted == limit


class Confidence(Threshold):
    """Stops after a token that its law gave less than theta; the token stays (Draft & Verify, arXiv 2309.08168).

    Dropping it would make the draft's length a statement about its tokens, and the law would be wrong. The authors'
    code takes q before temperature and starts at .8, or .5 when sampling; here q is what the token was drawn with.
    """

    def __init__(self, rows: int, start: float = 0.3, step: float = 0.01) -> None:
        super().__init__(rows, start, step)

    def bounds(self) -> Bounds:
        return Bounds(chance=self.thresholds)

    def whole(self, accepted: int, drafted: int, limit: int) -> bool:
        return drafted == limit


COST = 0.12  # of one more draft token against a call, where nobody has measured it: docs/drafting.md


def best_length(chances: Sequence[float], cost: float) -> int:
    """How many draft tokens promise most tokens for their cost, where each is accepted with these chances once those
    before it were: k of them give 1 + reach(1) + ... + reach(k) tokens for a cost of 1 + cost k.
    """
    tokens, reach, best, length = 1.0, 1.0, 0.0, 0
    for count, chance in enumerate(chances, 1):
        reach *= chance
        tokens += reach
        if tokens / (1 + cost * count) > best:
            best, length = tokens / (1 + cost * count), count
    return length


class Acceptance(Bounded):
    """The length that promises most tokens for its cost, from what past drafts came to.

    With reach(i) a row's chance that i draft tokens are accepted, k of them give it 1 + reach(1) + ... + reach(k)
    tokens for a cost of 1 + c k (arXiv 2211.17192, Theorem 3.8, with a chance for each position). The chance of a
    position, given that it was reached, comes from the row's counts, which fade by `fade` a call, plus `weight` trials
    at the chance of the position before (`prior` for the first): what has not been tried for long is forgotten and
    tried again.

    Chances and length are the row's own, whatever stands beside it. c (`cost`) is what one more draft token costs,
    verification included, against what a call costs anyway.
    """

    def __init__(
        self, rows: int, cost: float = COST, prior: float = 0.88, weight: float = 8.0, fade: float = 0.95
    ) -> None:
        self.cost, self.prior, self.weight, self.fade = cost, prior, weight, fade
        self.counts: list[list[tuple[float, float]]] = []  # accepted and tried, by position
        self.join(rows)

    def join(self, count: int) -> None:
        self.counts += [[] for _ in range(count)]

    def leave(self, stay: list[int]) -> None:
        self.counts = [self.counts[place] for place in stay]

    def limits(self, limits: list[int]) -> list[int]:
        return [min(limit, self._length(row, limit)) for row, limit in zip(self.counts, limits)]

    def _length(self, counts: list[tuple[float, float]], longest: int) -> int:
        return best_length(self._chances(counts, longest), self.cost)

    def _chances(self, counts: list[tuple[float, float]], longest: int) -> list[float]:
        chance, line = self.prior, []
        for at in range(longest):
            accepted, tried = counts[at] if at < len(counts) else (0.0, 0.0)
            chance = (accepted + self.weight * chance) / (tried + self.weight)
            line.append(chance)
        return line

    def commit(self, verdict: Verdict) -> None:
        for place, (accepted, drafted) in enumerate(zip(verdict.num_accepted, verdict.num_drafted)):
            if drafted:
                self.counts[place] = self._count(self.counts[place], accepted, drafted)

    def _count(self, counts: Iterable[tuple[float, float]], accepted: int, drafted: int) -> list[tuple[float, float]]:
        trials = [*[(1, 1)] * accepted, *[(0, 1)] * (accepted < drafted)]
        return [
            (self.fade * before[0] + new[0], self.fade * before[1] + new[1])
            for before, new in zip_longest(counts, trials, fillvalue=(0, 0))
        ]


STOPS: dict[str, Callable[[int], Stopping]] = {"adaedl": AdaEDL, "confidence": Confidence, "acceptance": Acceptance}


def make_stopping(name: str | None, rows: int, cost: float | None = None) -> Stopping | None:
    """The rule of that name for so many rows; None: always gamma tokens. cost: see `Acceptance`; None: `COST`.

    Raises:
        ConfigError: there is no such rule, or it knows no cost.
    """
    if name is not None and name not in STOPS:
        raise ConfigError(f"there is no stopping rule {name!r}; stop can be {', '.join(STOPS)}")
    if cost is None:
        return None if name is None else STOPS[name](rows)
    if name != "acceptance":
        raise ConfigError("cost goes with stop=acceptance (drafter block: with stop=survival too)")
    check_cost(cost)
    return Acceptance(rows, cost=cost)


def check_cost(cost: object) -> None:
    """Refuse what is no price of a draft token.

    Raises:
        ConfigError: it is no number of 0 to 10.
    """
    number("cost", cost, 0, 10)
