"""The same text by several drafters, one after the other, told while it happens. Decoding alone, no sound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spear_spec.decoding import DRAFTERS, Request, Verdict
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.errors import SpearSpecError
from spear_spec.pipeline import TTS
from spear_spec.serving.kinds import token_kinds

TELL_S = 0.08  # of decoding between two laps
WAIT_S = 0.02  # between two looks at whether anybody listens
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Waiting:
    """Somebody listens: the race stands still until nobody does."""


@dataclass(frozen=True)
class Lap:
    """What one drafter has done since it was last heard of.

    calls: for each target call the draft tokens that it accepted and the kind of the token behind them: "recovered",
    "bonus", "sampled", or "" where there was none (the draft itself held the end). tokens, target_calls: so far, of
    the whole text. timed, seconds: tokens of the steps that were timed, and what these took: the first step of each
    drafter, in which its weights are read and packed, is not.
    """

    drafter: str
    calls: list[tuple[int, str]]
    tokens: int
    target_calls: int
    timed: int
    seconds: float
    ended: bool
    settings: dict[str, Any] = field(repr=False, default_factory=dict)


class Crowded(SpearSpecError):
    """Listeners left no time for a race."""

    retry_after_s = 30.0


def contestants(tts: TTS) -> list[dict[str, str]]:
    """The drafters that this voice can use: {name, about}, in the order of the table."""
    found = []
    for name, kind in DRAFTERS.items():
        try:
            tts.using(drafter=name)
        except SpearSpecError:  # it has no weights for it
            continue
        found.append({"name": name, "about": kind.about})
    return found


def usual(tts: TTS, names: Sequence[str]) -> list[str]:
    """Who races when nobody chooses: the control, the voice's own, and two of another make, as far as there are any."""
    makes: dict[str, str] = {}  # the first drafter of each make
    for name in names:
        trained = DRAFTERS[name].trained
        if trained is not None and trained.shape is not None:
            makes.setdefault(trained.builder, name)
    wanted = {"none", tts.spec.drafter, *list(makes.values())[:2]}
    return [name for name in names if name in wanted]


def race(
    racers: Mapping[str, TTS], text: str, seed: int, *, busy: Callable[[], bool], stopped: Callable[[], bool]
) -> Iterator[Lap | Waiting]:
    """Decode the text with each of these, in an engine of its own, the sentences in turn.

    Args:
        racers: the voice by what it drafts with. busy: whether listeners are being served; they go first, at any step.
        stopped: whether it shall end, looked at in each step.

    Raises:
        TextError: nothing to say. Crowded: listeners left it no time for a minute.
    """
    sentences: list[list[int]] = []
    for name, tts in racers.items():
        if not sentences:
            yield from _give_way(busy, stopped)
            sentences = tts.texts([text])
        yield from _run(name, tts, sentences, seed, busy, stopped)


def _run(
    name: str,
    tts: TTS,
    sentences: Sequence[list[int]],
    seed: int,
    busy: Callable[[], bool],
    stopped: Callable[[], bool],
) -> Iterator[Lap | Waiting]:
    settings, engine, plain = tts.describe(seed=seed), tts.decoder.engine(), tts.decoder.parts.plain
    calls: list[tuple[int, str]] = []
    tokens = target_calls = timed = 0
    seconds = told_at = 0.0
    warm = False
    for index, ids in enumerate(sentences):
        engine.admit([Request(ids, seed=derive(seed, index, SENTENCE), sampling=tts.sampling)])
        while engine.running:
            yield from _give_way(busy, stopped)
            if stopped():
                return
            began = time.perf_counter()
            verdict = engine.step()
            took = time.perf_counter() - began
            kept = len(verdict.tokens[0])
            calls.append(call(verdict, plain=plain))
            tokens, target_calls = tokens + kept, target_calls + 1
            if warm:
                timed, seconds = timed + kept, seconds + took
            warm = True
            if seconds - told_at > TELL_S:
                yield Lap(name, calls, tokens, target_calls, timed, seconds, False, settings)
                calls, told_at = [], seconds
    yield Lap(name, calls, tokens, target_calls, timed, seconds, True, settings)


def _give_way(busy: Callable[[], bool], stopped: Callable[[], bool]) -> Iterator[Waiting]:
    began, told = time.monotonic(), False
    while busy() and not stopped():
        if time.monotonic() - began > PATIENCE_S:
            raise Crowded("others listen to this server all the time: race again when it is quieter")
        if not told:
            yield Waiting()
        told = True
        time.sleep(WAIT_S)


def call(verdict: Verdict, *, plain: bool, place: int = 0) -> tuple[int, str]:
    """Draft tokens that a target call accepted, and the kind of the token behind them."""
    kept, accepted = len(verdict.tokens[place]), verdict.num_accepted[place]
    if kept == accepted:
        return accepted, ""
    return accepted, token_kinds(kept, accepted, 0 if plain else verdict.num_drafted[place])[-1]
