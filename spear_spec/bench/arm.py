"""One setting at one batch size: its runs, with clocks on the drafter and on every target call, and what they come
to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch

from spear_spec.bench.machine import now
from spear_spec.bench.race import label
from spear_spec.decoding import DecodeStats, Drafter, Proposal, Request, Session, Verdict
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.decoding.rounds.board import Board
from spear_spec.engine import Engine
from spear_spec.models.contract import Target
from spear_spec.nn.tree import Tree
from spear_spec.pipeline import TTS
from spear_spec.runtime.eager import EagerRuntime

Texts = Sequence[list[list[int]]]  # batches of text token ids


class Clocked:
    """A drafter with a clock on what it proposes."""

    def __init__(self, inner: Drafter, now: Callable[[], float], took: Callable[[float, int], None]) -> None:
        """took: told the milliseconds and the steps of each proposal."""
        self.inner, self.name, self.form = inner, inner.name, inner.form
        self.now, self.took = now, took

    def start(self, session: Session) -> Any:
        return self.inner.start(session)

    def propose(self, session: Session, state: Any, limits: list[int]) -> Proposal:
        began = self.now()
        proposal = self.inner.propose(session, state, limits)
        self.took((self.now() - began) * 1e3, steps(proposal))
        return proposal

    def commit(self, session: Session, state: Any, verdict: Verdict) -> None:
        self.inner.commit(session, state, verdict)

    def __getattr__(self, name: str) -> Any:  # `admit` and `release`, where it has them
        return getattr(self.inner, name)


class ClockedRuntime(EagerRuntime):
    """The eager runtime with a clock on every call of the target."""

    def __init__(self, target: Target, now: Callable[[], float], took: Callable[[float, int], None]) -> None:
        """took: told the milliseconds of each call, and the tokens that a row had in it."""
        super().__init__(target)
        self.now, self.took = now, took

    def run(self, rows: list[list[int]], tree: Tree | None, below: tuple[int, torch.Tensor] | None) -> torch.Tensor:
        began = self.now()
        logits = super().run(rows, tree, below)
        self.took((self.now() - began) * 1e3, len(rows[0]))
        return logits


def steps(proposal: Proposal) -> int:
    """How deep a draft is, in the deepest row."""
    if proposal.parents is None:
        return proposal.longest
    deepest = 0
    for parents in proposal.parents:
        depths: list[int] = []
        for parent in parents:
            depths.append(1 if parent < 0 else depths[parent] + 1)
        deepest = max(deepest, *depths, 0)
    return deepest


class Run(NamedTuple):
    """What was decoded, in how many seconds, and text and tokens of every row."""

    stats: DecodeStats
    seconds: float
    written: list[tuple[list[int], list[int]]]


@dataclass
class Arm:
    """One setting at one batch size.

    target_ms: by the number of tokens that a row had in the call. draft_ms: milliseconds of each proposal by the steps
    it took. Where whole rounds run on the device neither is known, but a round of the loop counts as a step of the
    target. written: text and tokens of every row of the newest run.
    """

    tts: TTS
    batch: int
    seed: int
    sampling: dict[str, Any] = field(default_factory=dict)
    rates: list[float] = field(default_factory=list)
    stats: DecodeStats = field(default_factory=DecodeStats)
    target_ms: dict[int, list[float]] = field(default_factory=dict)
    draft_ms: dict[int, list[float]] = field(default_factory=dict)
    rtf: list[float] = field(default_factory=list)
    ttfa: list[float] = field(default_factory=list)
    written: list[tuple[list[int], list[int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cfg = self.tts.describe(batch=self.batch, seed=self.seed, **self.sampling)
        self.decoder = self.tts.decoder
        self.cfg["runtime"] = self.decoder.chosen()
        self.gamma = self.tts.spec.gamma_at(self.batch)

    @property
    def name(self) -> str:
        return f"{self.cfg['drafter']} {label(self.cfg)}".strip()

    def decode(self, texts: Texts, seed: int, max_tokens: int | None, *, keep: bool) -> None:
        """One run over all texts; `keep` is false for the warm-up."""
        if self.cfg["runtime"] == "graphs":
            board = self.decoder.engine().runtime
            assert isinstance(board, Board)
            known = board.prepared
            run = self._rounds(texts, seed, max_tokens)
            if keep and board.prepared > known:  # what was captured on the way is no part of decoding
                run = self._rounds(texts, seed, max_tokens)
        else:
            run = self._run(texts, seed, max_tokens, self._engine)
        total, seconds, self.written = run
        if keep:
            self.stats += total
            self.rates.append(total.tokens / seconds)
        else:
            self.target_ms.clear()
            self.draft_ms.clear()

    def _rounds(self, texts: Texts, seed: int, max_tokens: int | None) -> Run:
        """By whole rounds, which only the voice's own engine runs."""
        run = self._run(texts, seed, max_tokens, self.decoder.engine)
        if self.decoder.parts.plain:
            rounds = sum(max(len(tokens) for _, tokens in run.written[at : at + self.batch])
                         for at in range(0, len(run.written), self.batch))  # fmt: skip
            self.target_ms.setdefault(1, []).append(run.seconds * 1e3 / rounds)
        return run

    def _run(self, texts: Texts, seed: int, max_tokens: int | None, engine: Callable[[], Engine]) -> Run:
        law = self.tts.sampling.changed(**self.sampling)
        stats, seconds, number, written = DecodeStats(), 0.0, 0, list[tuple[list[int], list[int]]]()
        for ids in texts:
            requests = [
                Request(text, seed=derive(seed, number + row, SENTENCE), sampling=law, cap=max_tokens)
                for row, text in enumerate(ids)
            ]
            number += len(ids)
            began = self._now()
            spoken = engine().run(requests)
            seconds += self._now() - began
            stats = sum((utterance.stats for utterance in spoken), stats)
            written += [(text, utterance.tokens) for text, utterance in zip(ids, spoken)]
        return Run(stats, seconds, written)

    def _engine(self) -> Engine:
        """The voice's, with clocks on the drafter and on every target call."""
        target, parts = self.decoder.target, self.decoder.parts
        runtime = ClockedRuntime(target, self._now, lambda ms, size: self.target_ms.setdefault(size, []).append(ms))
        rate = self.decoder.frame_rate
        if parts.plain:
            return Engine(target, runtime=runtime, frame_rate=rate)
        drafter, rule = parts.made
        watched = Clocked(drafter, self._now, lambda ms, count: self.draft_ms.setdefault(count, []).append(ms))
        return Engine(target, watched, rule, parts.spec.gamma_at, runtime=runtime, frame_rate=rate)

    def speak(self, sentences: Sequence[str], **options: Any) -> None:
        """The whole pipeline, for RTF and TTFA, by the bare law: what is compared is the loops."""
        options = {"complete": False, **options}
        for sentence in sentences:
            stats = self.tts.synthesize(sentence, seed=self.seed, batch=self.batch, **options, **self.sampling).stats
            if stats["rtf"] is not None:
                self.rtf.append(stats["rtf"])
            if stats["ttfa_s"] is not None:
                self.ttfa.append(stats["ttfa_s"])

    def row(self, base: Arm) -> dict[str, Any]:
        """An entry of `rows` in bench/1; `base` is the autoregressive arm that ran in turn with this one."""
        one, stats = median(base.target_ms[1]), self.stats
        draft = self._draft_step()
        predicted = 1.0 if self is base else self._predicted(one, draft)
        return {
            **self.cfg,
            "runs": len(self.rates),
            "tokens": stats.tokens,
            "target_calls": stats.target_calls,
            "tokens_per_call": round(stats.tokens_per_call, 4),
            "acceptance_by_position": [round(share, 4) for share in stats.acceptance_by_position],
            "tokens_per_s": spread(self.rates),
            "speedup": spread([mine / theirs for mine, theirs in zip(self.rates, base.rates)]),
            "target_step_ms": {"1": _round(one), "gamma+1": _round(self._verifying())},
            "draft_step_ms": _round(draft),
            "predicted_speedup": _round(predicted),
            "rtf": _round(median(self.rtf)) if self.rtf else None,
            "ttfa_s": _round(median(self.ttfa)) if self.ttfa else None,
            "accepted_lengths": accepted_lengths(stats),
            "draft_step_share": None if draft is None else _round(draft / one),
            "baseline_tokens_per_s": spread(base.rates),
            "vs_peer": None,
            "quality": None,
        }

    @property
    def _full(self) -> list[float]:
        """Milliseconds of the target calls that scored a chain of gamma tokens; none where drafts are meant to
        differ in size.
        """
        spec = self.tts.spec
        alike = spec.tree is None and spec.num_drafts == 1 and not spec.options.get("stop")
        return self.target_ms.get(self.gamma + 1, []) if alike else []

    def _verifying(self) -> float | None:
        """Median milliseconds of a target call that scored a whole draft; drafts that differ in size all stand for
        it.
        """
        if self.decoder.parts.plain:
            return median(self.target_ms[1])
        times = self._full or [ms for size, found in self.target_ms.items() if size > 1 for ms in found]
        return median(times) if times else None

    def _draft_step(self) -> float | None:
        """Median milliseconds of a draft step."""
        times = [ms / count for count, proposals in self.draft_ms.items() if count for ms in proposals]
        return median(times) if times else None

    def _predicted(self, one: float, draft: float | None) -> float | None:
        """Tokens a call times a target step, over what a call costs: gamma draft steps and the verification.

        Where most drafts are shorter than gamma, that is the mean over the calls, each with the median of its size.
        """
        verifying = self._verifying()
        if draft is None or verifying is None:
            return None
        if 2 * len(self._full) > sum(map(len, self.target_ms.values())):
            return self.stats.tokens_per_call * one / (verifying + self.gamma * draft)
        return self.stats.tokens_per_call * one / (_usual(self.target_ms) + _usual(self.draft_ms))

    def _now(self) -> float:
        return now(self.decoder.target.device)


def accepted_lengths(stats: DecodeStats) -> list[int]:
    """[i]: target calls with exactly i accepted draft tokens; they sum to all target calls."""
    at_least = [stats.target_calls, *stats.reached]
    return [here - beyond for here, beyond in zip(at_least, [*stats.reached, 0])]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median with the 10th and 90th percentile."""
    low, mid, high = np.quantile(values, [0.1, 0.5, 0.9])
    return {"median": round(float(mid), 4), "lo": round(float(low), 4), "hi": round(float(high), 4)}


def _usual(times: dict[int, list[float]]) -> float:
    """Mean over all, each with the median of its size: one hiccup of the machine does not count."""
    return sum(len(found) * median(found) for found in times.values()) / sum(map(len, times.values()))


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
