"""Drafts of every form, drawn inside the enumerated walk, and exact laws and expectations of what a verifier makes of
them.

Target and draft laws are tables made from the tokens so far; the verifier sees only a Proposal, target_probs and a
source of chance. Padding is NaN, so that a rule that reads it is found out.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from spear_spec.config import SamplingConfig
from spear_spec.decoding.chance import Chance
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.decoding.sampling import probabilities
from spear_spec.exactness.oracles import SAMPLINGS, Enumerating, distance, draft_laws, oracle_law, walk
from spear_spec.runtime.lanes import guide

Prefix = tuple[int, ...]
GREEDY = SamplingConfig(temperature=0.0, top_p=1.0)
ALL_SAMPLINGS = {**SAMPLINGS, "greedy": GREEDY}

# Trees by the parent of each node. "point_chain" is a chain of tokens chosen without chance.
SHAPES: dict[str, tuple[int, ...]] = {
    "empty": (),
    "one": (-1,),
    "chain": (-1, 0),
    "pair": (-1, -1),
    "three": (-1, -1, -1),
    "paths": (-1, -1, 0, 1),  # two paths of two: where the siblings are equal, the next place has two
    "ragged": (-1, -1, 0, 0),
    "late": (-1, 0, -1, 1),  # the second child of the root stands behind a grandchild; a path of three
}


@dataclass
class Laws:
    """Target and draft laws of rows, by the tokens so far; all remembered."""

    sampling: SamplingConfig
    kind: str
    vocab: int = 3
    seed: int = 0
    dtype: torch.dtype = torch.float64  # of what the verifier is given
    _target: dict[tuple[int, Prefix], list[float]] = field(default_factory=dict)
    _library: dict[tuple[int, Prefix], torch.Tensor] = field(default_factory=dict)
    _draft: dict[tuple[int, Prefix], torch.Tensor] = field(default_factory=dict)

    def logits(self, row: int, prefix: Prefix, arm: str) -> list[float]:
        rng = random.Random(f"{self.seed}/{arm}/{row}/{prefix}")
        return [rng.gauss(0, 1.2) for _ in range(self.vocab)]

    def target(self, row: int, prefix: Prefix) -> list[float]:
        """The oracle's law p, in plain Python."""
        if (row, prefix) not in self._target:
            self._target[row, prefix] = oracle_law(
                self.logits(row, prefix, "cond"), self.sampling, self.logits(row, prefix, "null")
            )
        return self._target[row, prefix]

    def library(self, row: int, prefix: Prefix) -> torch.Tensor:
        """The same law as the library makes it: what the verifier is given."""
        if (row, prefix) not in self._library:
            cond, null = (torch.tensor(self.logits(row, prefix, arm), dtype=torch.float64) for arm in ("cond", "null"))
            mixed = cond if self.sampling.guidance == 1 else guide(cond, null, self.sampling.guidance)
            self._library[row, prefix] = probabilities(mixed.to(self.dtype), self.sampling)
        return self._library[row, prefix]

    def draft(self, row: int, prefix: Prefix) -> torch.Tensor:
        """The law q."""
        if (row, prefix) not in self._draft:
            law = draft_laws(self.kind, [partial(self.target, other) for other in range(row + 1)], self.seed)
            self._draft[row, prefix] = torch.tensor(law(row, prefix), dtype=self.dtype)
        return self._draft[row, prefix]

    def expected(self, row: int, length: int) -> dict[Prefix, float]:
        """The target's law of the next `length` tokens."""
        return self.extended({(): 1.0}, row, length)

    def extended(self, law: dict[Prefix, float], row: int, length: int) -> dict[Prefix, float]:
        """A law of shorter runs, continued with the target's law to `length` tokens."""
        done: dict[Prefix, float] = {}
        open_ = dict(law)
        while open_:
            after: dict[Prefix, float] = {}
            for prefix, weight in open_.items():
                if len(prefix) == length:
                    done[prefix] = done.get(prefix, 0.0) + weight
                    continue
                for token, p in enumerate(self.target(row, prefix)):
                    if p > 0:
                        after[*prefix, token] = after.get((*prefix, token), 0.0) + weight * p
            open_ = after
        return done


@dataclass
class Draft:
    """One row's draft: tokens, the parent of each, the law each was drawn from, the tokens that each node spells."""

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    laws: list[torch.Tensor] = field(default_factory=list)
    spelled: list[Prefix] = field(default_factory=list)


def grow(
    chance: Any, row: int, laws: Laws, form: str, shape: Sequence[int], stop: int | None, repeat: int = 1
) -> Draft:
    """Draw a tree. stop: nothing is drafted behind this token. repeat: a point mass is offered so many times in a
    row."""
    draft = Draft()
    index = {-1: -1}  # place in the draft of each node of the shape that came to be
    siblings: dict[int, list[int]] = {}
    for node, parent in enumerate(shape):
        if parent not in index:
            continue
        at = index[parent]
        prefix = draft.spelled[at] if at >= 0 else ()
        if prefix and prefix[-1] == stop:
            continue
        law = laws.draft(row, prefix)
        before = siblings.setdefault(at, [])
        if form in ("points", "point_chain"):
            order = law.argsort(descending=True, stable=True).tolist()
            token = order[(len(before) // repeat) % len(order)]
        else:
            now = law
            if form == "wor" and before:
                now = law.clone()
                now[before] = 0.0
                if now.sum().item() <= 0:  # the law has no further token
                    continue
            token = chance.categorical(now[None], [row])[0]
        before.append(token)
        index[node] = len(draft.tokens)
        draft.tokens.append(token)
        draft.parents.append(at)
        draft.laws.append(law)
        draft.spelled.append((*prefix, token))
    return draft


def verify_rows(
    verifier: Any,
    chance: Any,
    laws: Laws,
    form: str,
    shapes: Sequence[Sequence[int]],
    stop: int | None = None,
    repeat: int = 1,
) -> tuple[Verdict, list[Draft]]:
    """Draw the drafts of all rows and have them verified."""
    rows = list(range(len(shapes)))
    drafts = [grow(chance, row, laws, form, shapes[row], stop, repeat) for row in rows]
    longest = max(len(draft.tokens) for draft in drafts)
    p = torch.full((len(rows), longest + 1, laws.vocab), math.nan, dtype=laws.dtype)
    q = torch.full((len(rows), longest, laws.vocab), math.nan, dtype=laws.dtype)
    for row, draft in enumerate(drafts):
        p[row, : len(draft.tokens) + 1] = torch.stack([laws.library(row, prefix) for prefix in [(), *draft.spelled]])
        if draft.laws:
            q[row, : len(draft.laws)] = torch.stack(draft.laws)
    chain = form in ("chain", "point_chain")
    proposal = Proposal(
        [draft.tokens for draft in drafts],
        None if form in ("points", "point_chain") else q,
        None if chain else [draft.parents for draft in drafts],
    )
    verdict = verifier.verify(proposal, p, chance, rows)
    assert verdict.rows == rows
    assert (verdict.paths is None) == chain
    for row, draft in enumerate(drafts):
        count = verdict.num_accepted[row]
        assert len(verdict.tokens[row]) == count + 1
        assert verdict.num_drafted[row] == len(draft.tokens)
        path = list(range(count)) if verdict.paths is None else verdict.paths[row]
        assert [draft.tokens[node] for node in path] == verdict.tokens[row][:count]
        assert [draft.parents[node] for node in path] == [-1, *path][:count]
    return verdict, drafts


def tree_error(
    verifier: Any,
    sampling: SamplingConfig,
    kind: str,
    form: str,
    shape: Sequence[int] | str,
    *,
    vocab: int = 3,
    seed: int = 0,
    stop: int | None = None,
    repeat: int = 1,
    others: Sequence[Sequence[int] | str] = (),
    dtype: torch.dtype = torch.float64,
) -> float:
    """Largest error of the law of the next depth + 1 tokens, of a row that has the draft `shape`; `others`: rows
    before it.

    The chance of drafting and of verifying is enumerated together; what a call leaves open is continued with the
    exact law.
    """
    laws = Laws(sampling, kind, vocab, seed, dtype)
    shapes = [SHAPES[s] if isinstance(s, str) else tuple(s) for s in [*others, shape]]
    watch = len(shapes) - 1
    length = depth(shapes[watch]) + 1

    def run(chance: Enumerating) -> Prefix:
        return tuple(verify_rows(verifier, chance, laws, form, shapes, stop, repeat)[0].tokens[watch])

    got = laws.extended(walk(run, watch, seed), watch, length)
    return distance(got, laws.expected(watch, length))


def expected_accepted(verifier: Any, laws: Laws, form: str, shape: Sequence[int] | str) -> float:
    """Exact expectation of the number of accepted draft tokens in one call."""
    nodes = SHAPES[shape] if isinstance(shape, str) else tuple(shape)
    law = walk(lambda chance: (verify_rows(verifier, chance, laws, form, [nodes])[0].num_accepted[0],))
    return math.fsum(count * weight for (count,), weight in law.items())


def depth(parents: Sequence[int]) -> int:
    """Length of the longest path of a tree."""
    deep = {-1: 0}
    for node, parent in enumerate(parents):
        deep[node] = deep[parent] + 1
    return max(deep.values())


class SharedUniform(Chance):
    """Chance that uses one uniform number for all Bernoulli draws of a row, exactly: for a seeded fault.

    What is known of u is an interval; a draw narrows it.
    """

    def __init__(self, chance: Any) -> None:
        self.chance = chance
        self.known: dict[int, tuple[float, float]] = {}

    def bernoulli(self, p: float, row: int) -> bool:
        low, high = self.known.get(row, (0.0, 1.0))
        p = min(max(p, low), high)
        below = self.chance.bernoulli((p - low) / (high - low), row)
        self.known[row] = (low, p) if below else (p, high)
        return below

    def categorical(self, weights: torch.Tensor, rows: Sequence[int]) -> list[int]:
        return self.chance.categorical(weights, rows)


def random_pair(seed: int, vocab: int = 4) -> tuple[list[float], list[float]]:
    """Two laws at random, sharp ones and ones with zeros among them."""
    rng = random.Random(seed)
    pair = []
    for _ in range(2):
        weights = [rng.expovariate(1.0) ** rng.choice((1, 1, 3)) for _ in range(vocab)]
        if rng.random() < 0.3:
            weights[rng.randrange(vocab)] = 0.0
        pair.append([w / math.fsum(weights) for w in weights])
    return pair[0], pair[1]


@contextmanager
def swapped(target: Any, name: str, value: Callable[..., Any]) -> Iterator[None]:
    """An attribute replaced for a while."""
    old = getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, old)
