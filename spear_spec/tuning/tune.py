"""Which drafter, rule and draft length is fastest here? A race of all of them against the clock.

Every setting speaks one sentence; the faster half goes on to more of them, again and again; draft lengths next to the
fastest follow. What a race picks looks better than it is, so the winner meets the voice's own setting on sentences
drawn anew, and only a gain of two standard errors unseats that. What stays then races itself at larger batches, for the
draft length of each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from statistics import fmean, linear_regression, median, stdev
from typing import Any, Protocol

import torch

from spear_spec.bench.arm import spread
from spear_spec.bench.machine import commit, hardware, now
from spear_spec.bench.speed import SENTENCES
from spear_spec.config import SpecConfig
from spear_spec.decoding import DecodeStats, Request
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.decoding.drafters import drafter_options
from spear_spec.decoding.rounds.board import Board
from spear_spec.errors import ConfigError, SpearSpecError
from spear_spec.pipeline import TTS
from spear_spec.tuning.candidates import STOPPED, candidates, named, neighbours

LOOK, HALVING, REFINING = 0.35, 0.5, 0.7  # shares of the time after which these stages end; the rest decides
DECIDED = 0.8  # or what there is of it up to here, where larger batches follow
ROUNDS, FINAL_ROUNDS = 24, 200  # most of a stage, of the last one
FEWEST = 6  # rounds to decide on
SHARE = 0.005  # share of the time that the autoregressive loop may take for a sentence; it is cut there
SHORT = 16  # tokens of a warm-up, and the shortest cut
WARM_UP = -1  # a round that does not count


class OutOfTime(Exception):
    """The time is over in the middle of a sentence."""


@dataclass(frozen=True)
class Sample:
    """One round of one setting: tokens kept, target calls (of all rows), seconds."""

    tokens: int
    calls: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds


class Measure(Protocol):
    """Speaks what belongs to a round, the same for every setting.

    Raises:
        OutOfTime: the time is over.
    """

    def __call__(self, tts: TTS, number: int) -> Sample: ...

    def at(self, batch: int) -> Measure:
        """The same for another batch size."""
        ...


class Speaking:
    """Decodes the benchmark's sentences in turn, one batch a round, and gives up at the deadline between two target
    calls.
    """

    def __init__(
        self,
        tts: TTS,
        *,
        batch: int,
        speaker: str | None,
        seed: int,
        max_tokens: int | None,
        sampling: dict[str, Any],
        deadline: float,
        clock: Callable[[], float],
    ) -> None:
        ids = tts.texts(SENTENCES, speaker)
        self.groups = [[ids[(first + row) % len(ids)] for row in range(batch)] for first in range(len(ids))]
        self.law, self.seed, self.cap = tts.sampling.changed(**sampling), seed, max_tokens
        self.deadline, self.clock = deadline, clock

    def shorten(self, plain: TTS, seconds: float) -> None:
        """Cut sentences at what the autoregressive loop says in so many seconds: a slow machine gets as many rounds
        as a fast one.
        """
        self(plain, WARM_UP)
        sample = self(plain, WARM_UP)
        each = sample.seconds * len(self.groups[0]) / sample.calls
        cut = max(SHORT, int(seconds / each))
        self.cap = cut if self.cap is None else min(cut, self.cap)

    def at(self, batch: int) -> Speaking:
        """The same sentences, cut alike, so many together."""
        other, ids = copy(self), [group[0] for group in self.groups]
        other.groups = [[ids[(first + row) % len(ids)] for row in range(batch)] for first in range(len(ids))]
        return other

    def __call__(self, tts: TTS, number: int) -> Sample:
        sample, prepared = self._speak(tts, number)
        if prepared and number != WARM_UP:  # what was captured on the way is no part of decoding
            sample, _ = self._speak(tts, number)
        return sample

    def _speak(self, tts: TTS, number: int) -> tuple[Sample, bool]:
        """A round, and whether a function of the runtime was made for it."""
        cap = self.cap if number != WARM_UP else SHORT
        began = _now(tts)
        engine, group = tts.decoder.engine(), self.groups[number % len(self.groups)]
        board = engine.runtime if isinstance(engine.runtime, Board) else None
        known = 0 if board is None else board.prepared
        first = (number + 1) * len(group)
        requests = [
            Request(ids, seed=derive(self.seed, first + row, SENTENCE), sampling=self.law, cap=cap)
            for row, ids in enumerate(group)
        ]
        spoken = engine.admit(requests)
        while engine.running:
            engine.step()
            if self.clock() >= self.deadline:
                raise OutOfTime
        seconds = _now(tts) - began
        total = sum((utterance.stats for utterance in spoken), DecodeStats())
        return Sample(total.tokens, total.target_calls, seconds), board is not None and board.prepared > known


@dataclass(eq=False)
class Arm:
    """One setting, and what it did in each round. error: why it was given up."""

    tts: TTS
    samples: dict[int, Sample] = field(default_factory=dict)
    warm: bool = False
    error: str | None = None

    def __post_init__(self) -> None:
        self.cfg = self.tts.describe()
        self.name = named(self.cfg)

    def ratios(self, other: Arm, since: int = 0) -> list[float]:
        """Tokens a second as a multiple of the other's, of every round that both ran."""
        return [
            sample.rate / other.samples[number].rate
            for number, sample in self.samples.items()
            if number >= since and number in other.samples
        ]

    def score(self, base: Arm, since: int = 0) -> float:
        """The mean of the middle half of `ratios`; 0 where there are none.

        (Medians say less, and means fall for a hiccup.)
        """
        ratios = sorted(self.ratios(base, since))
        rest = len(ratios) // 4
        return fmean(ratios[rest : len(ratios) - rest]) if ratios else 0.0


class Race:
    """Rounds in which settings take turns, the autoregressive loop among them."""

    def __init__(
        self,
        base: Arm,
        needed: Sequence[Arm],
        measure: Measure,
        clock: Callable[[], float],
        deadline: float,
        progress: Callable[[str], None],
    ) -> None:
        """needed: whose errors are not forgiven."""
        self.base, self.needed, self.measure, self.clock, self.deadline, self.progress = (
            base,
            needed,
            measure,
            clock,
            deadline,
            progress,
        )
        self.number = 0  # of the next round

    def run(
        self, arms: Sequence[Arm], rounds: int, until: float, stage: str, *, strict: bool = False, base_every: int = 1
    ) -> None:
        """So many rounds, or fewer: none begins after `until`, and with `strict` none goes on. Nothing goes on after
        the deadline.

        base_every: in how many rounds the loop that all are compared with, the slowest of them, runs once.
        """
        for _ in range(rounds):
            if self.clock() >= until:
                return
            runners = list(arms)
            if self.base not in arms and self.number % base_every == 0:
                runners.insert(0, self.base)
            first = self.number % len(runners)
            for arm in runners[first:] + runners[:first]:
                if self.clock() >= (min(until, self.deadline) if strict else self.deadline):
                    return
                self.progress(f"{stage} ({len(runners)} settings): {arm.name}")
                try:
                    self._sample(arm)
                except OutOfTime:
                    return
            self.number += 1

    def _sample(self, arm: Arm) -> None:
        if arm.error is not None:
            return
        try:
            if not arm.warm:
                self.measure(arm.tts, WARM_UP)
                arm.warm = True
                if self.clock() >= self.deadline:
                    raise OutOfTime
            arm.samples[self.number] = self.measure(arm.tts, self.number)
        except SpearSpecError as error:
            if arm is self.base or arm in self.needed:
                raise
            arm.error, arm.samples = str(error), {}


def tune(
    tts: TTS,
    *,
    seconds: float = 100.0,
    batch: int = 1,
    larger: Sequence[int] = (),
    speaker: str | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    progress: Callable[[str], None] = lambda message: None,
    clock: Callable[[], float] = time.monotonic,
    measure: Measure | None = None,
    **sampling: Any,
) -> dict[str, Any]:
    """Find the fastest lossless setting for this voice on this machine; returns the tune/1 object.

    Args:
        tts: with the setting that stays unless another is faster for certain (a lossy one: the autoregressive loop
            instead).
        batch: that settings race at. larger: batch sizes that the draft length is then measured for (`gammas`).
        seconds: when to stop at the latest. clock, measure: in place of the time and of decoding, for tests.
        sampling: as in `TTS.stream`.

    Raises:
        ConfigError: the time did not suffice. Whatever decoding with the voice's own setting raises.
    """
    began = clock()
    deadline = began + seconds
    made = {
        "commit": commit(),
        "hardware": hardware(tts.target.device),
        "torch": torch.__version__,
        "voice": tts.name,
    }  # now: git takes its time
    arms: list[Arm] = []
    for candidate in candidates(tts):  # reads weights and makes drafters: on a busy machine that takes its time too
        if len(arms) > 1 and clock() >= began + LOOK / 2 * seconds:
            break
        arms.append(Arm(candidate))
    base = arms[0]
    own = next((arm for arm in arms if arm.tts.spec == tts.spec), base)
    try:
        if measure is None:
            speaking = Speaking(
                tts,
                batch=batch,
                speaker=speaker,
                seed=seed,
                max_tokens=max_tokens,
                sampling=sampling,
                deadline=deadline,
                clock=clock,
            )
            speaking.shorten(base.tts, SHARE * seconds)
            measure = speaking
    except OutOfTime:
        raise _too_short() from None
    race = Race(base, [own], measure, clock, deadline, progress)
    best = _halve(race, arms, began, seconds)
    best = _refine(race, arms, best, began + REFINING * seconds, batch)
    since = race.number
    decided = began + DECIDED * seconds if larger else deadline
    race.run([own] if best is own else [own, best], FINAL_ROUNDS, decided, "final", base_every=4)
    chosen = best if best is not own and faster(best.ratios(own, since)) else own
    last = [sample.rate for number, sample in chosen.samples.items() if number >= since]
    if len(last) < FEWEST:
        raise _too_short()
    lengths = _lengths(race, chosen.tts, batch, larger)
    gammas = table_of(chosen.tts.spec.gamma_at(batch), lengths)
    ranked = sorted(arms, key=lambda arm: -median(arm.ratios(base) or [0.0]))
    cfg = tts.describe(batch=batch, seed=seed, **sampling)
    run = {name: cfg[name] for name in ("batch", "seed", "sampling")}
    return {
        "schema": "tune/1",
        **made,
        **chosen.cfg,
        **run,
        **({"gamma": chosen.tts.spec.gamma_at(batch), "gammas": gammas} if lengths else {}),
        "tokens_per_s": spread(last),
        "speedup": spread(chosen.ratios(base, since)),
        "gain": spread(chosen.ratios(own, since)),
        "changed": chosen is not own,
        "rounds": len(last),
        "lengths": lengths,
        "price": price(arms, chosen.tts.spec.drafter),
        "candidates": [_candidate(arm, base, run) for arm in ranked],
        "seconds": round(clock() - began, 1),
        "file": None,
    }


def _halve(race: Race, arms: list[Arm], began: float, seconds: float) -> Arm:
    """Everyone once, then the faster half of those who are left, until two are."""
    base = race.base
    race.run(arms, 1, began + LOOK * seconds, "first look", strict=True)
    left = [arm for arm in arms if arm.samples]
    end = began + HALVING * seconds
    while len(left) > 2 and race.clock() < end:
        left = sorted(left, key=lambda arm: -arm.score(base))[: max(2, len(left) // 2)]
        stages = max(1, math.ceil(math.log2(len(left))))
        race.run(left, ROUNDS, race.clock() + (end - race.clock()) / stages, "halving")
    return max(left, key=lambda arm: arm.score(base), default=base)


def _refine(race: Race, arms: list[Arm], best: Arm, until: float, batch: int) -> Arm:
    """The best of this setting and those with slightly shorter or longer drafts, of these rounds alone; new ones
    join `arms`.
    """
    near = []
    for tts in (*neighbours(best.tts, batch=batch), *_priced(arms, best.tts)):
        known = next((arm for arm in arms if arm.tts.spec == tts.spec), None)
        near.append(known or Arm(tts))
        if known is None:
            arms.append(near[-1])
    if not near:
        return best
    since = race.number
    race.run([best, *near], ROUNDS, until, "draft length")
    if race.number - since < 2:
        return best
    return max([best, *near], key=lambda arm: arm.score(race.base, since))


def price(arms: Sequence[Arm], drafter: str) -> float | None:
    """What one more draft token costs on this machine, its verification included, against what a call costs anyway:
    slope over intercept of the seconds that a call took by gamma, in this drafter's bare chains. None where they do not
    tell.
    """
    points = [
        (float(spec.gamma), median(sample.seconds / sample.calls for sample in arm.samples.values()))
        for arm in arms
        if arm.samples and (spec := arm.tts.spec).drafter == drafter
        if spec.tree is None and spec.num_drafts == 1 and not spec.options and not spec.gammas
    ]
    if len({gamma for gamma, _ in points}) < 2:
        return None
    slope, intercept = linear_regression(*zip(*points))
    return round(slope / intercept, 4) if slope > 0 and intercept > 0 else None


def _priced(arms: Sequence[Arm], best: TTS) -> list[TTS]:
    """The best setting's chain, as long as the measured price of a draft token says; none where that is unknown."""
    spec = best.spec
    cost = price(arms, spec.drafter)
    chain = spec.tree is None and spec.num_drafts == 1 and not best.decoder.parts.plain
    if cost is None or not chain or "cost" not in drafter_options(spec.drafter):
        return []
    options = {**spec.options, "stop": "acceptance", "cost": min(cost, 10.0)}
    try:
        return [best.using(**replace(spec, gamma=STOPPED, gammas={}, options=options).to_dict())]
    except SpearSpecError:  # the runtime or the rule takes no such options
        return []


def _lengths(race: Race, tts: TTS, batch: int, larger: Sequence[int]) -> list[dict[str, Any]]:
    """The fastest draft length of a chain for each larger batch that there was time for, none longer than that of the
    batch before: {batch, gamma, tokens_per_s}. Nothing for what is no chain.
    """
    spec, found = tts.spec, list[dict[str, Any]]()
    if tts.decoder.parts.plain or spec.tree is not None or spec.num_drafts != 1:
        return found
    rests, longest = bool(getattr(tts.decoder.parts.made[0], "rests", False)), spec.gamma_at(batch)
    for number, size in enumerate(larger):
        now = race.clock()
        until = now + (race.deadline - now) / (len(larger) - number)
        arms = {gamma: Arm(_with_length(tts, gamma)) for gamma in shorter(longest, rests)}
        first = arms[longest]
        own = Race(first, [first], race.measure.at(size), race.clock, race.deadline, race.progress)
        left = list(arms.values())
        while len(left) > 1 and race.clock() < until:
            stages = math.ceil(math.log2(len(left)))
            stage = race.clock() + (until - race.clock()) / stages
            own.run(left, ROUNDS, stage, f"{size} together", strict=True)
            left = sorted(left, key=lambda arm: -arm.score(first))[: len(left) // 2]
        if not first.samples:
            break
        best = max(left, key=lambda arm: arm.score(first))
        gamma = next(gamma for gamma, arm in arms.items() if arm is best)
        rates = [sample.rate for sample in best.samples.values()]
        found.append({"batch": size, "gamma": gamma, "tokens_per_s": spread(rates)})
        longest = max(gamma, 1)
    return found


def shorter(longest: int, rests: bool) -> list[int]:
    """Draft lengths to try up to this one, the longest first; 0, no draft, where the drafter can pass over a step."""
    tried = {longest, 3 * longest // 4, longest // 2, longest // 4, 1} - {0}
    return sorted(tried | ({0} if rests else set()), reverse=True)


def _with_length(tts: TTS, gamma: int) -> TTS:
    spec = replace(tts.spec, gamma=max(gamma, 1), gammas={} if gamma else {"1": 0})
    return tts.using(**spec.to_dict())


def table_of(gamma: int, lengths: Sequence[dict[str, Any]]) -> dict[str, int]:
    """`SpecConfig.gammas` of what `_lengths` found behind a batch with this length: each size where it changes."""
    table: dict[str, int] = {}
    for found in lengths:
        if found["gamma"] != gamma:
            gamma = table[str(found["batch"])] = found["gamma"]
    return table


def faster(ratios: Sequence[float]) -> bool:
    """Whether paired ratios speak for a gain: their mean logarithm lies two standard errors above 0."""
    logs = [math.log(ratio) for ratio in ratios]
    return len(logs) >= FEWEST and fmean(logs) > 2 * stdev(logs) / math.sqrt(len(logs))


def spec_of(result: dict[str, Any]) -> SpecConfig:
    """The setting that a tune/1 object chose."""
    if result["drafter"] == "none":
        return SpecConfig(drafter="none")
    return SpecConfig(**{f.name: result[f.name] for f in fields(SpecConfig)})


def _candidate(arm: Arm, base: Arm, run: dict[str, Any]) -> dict[str, Any]:
    """An entry of `candidates`; what was not reached, or failed, has no figures."""
    samples, ratios = list(arm.samples.values()), arm.ratios(base)
    return {
        **arm.cfg,
        **run,
        "rounds": len(samples),
        "tokens_per_s": spread([sample.rate for sample in samples]) if samples else None,
        "speedup": spread(ratios) if ratios else None,
        "tokens_per_call": round(sum(s.tokens for s in samples) / sum(s.calls for s in samples), 4)
        if samples
        else None,
        "error": arm.error,
    }


def _too_short() -> ConfigError:
    return ConfigError("the time was too short to compare anything on this machine: give more with --seconds")


def _now(tts: TTS) -> float:
    return now(tts.target.device)
