"""Autoregressive and speculative decoding of the same sentences in one run: interleaved, warmed up, medians, paired ratios."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from spear_spec.decoding import DRAFTERS, DecodeStats, Session, Verifier, speculate
from spear_spec.decoding.autoregressive import generate
from spear_spec.errors import ConfigError, MissingExtraError, SpearSpecError
from spear_spec.nn.tree import Tree
from spear_spec.pipeline import TTS

SENTENCES = (
    "The ferry leaves the harbour at half past seven, whatever the weather.",
    "She folded the letter twice and put it back into the drawer.",
    "Nobody could explain why the lights had stayed on all night.",
    "A narrow path leads from the village up to the old observatory.",
    "Please remember to water the plants while we are away.",
    "The orchestra tuned for a long minute before the conductor came in.",
    "Most of the money was spent on repairing the roof of the library.",
    "If the train is late again, we will have to take a taxi.",
)
SPOKEN = 4  # sentences that are also rendered, for RTF and TTFA


@dataclass
class Arm:
    """One drafter at one batch size: its settings and what its runs measured."""

    tts: TTS
    rates: list[float] = field(default_factory=list)
    stats: DecodeStats = field(default_factory=DecodeStats)
    target_ms: dict[int, list[float]] = field(default_factory=dict)
    draft_ms: list[float] = field(default_factory=list)
    rtf: list[float] = field(default_factory=list)
    ttfa: list[float] = field(default_factory=list)

    @property
    def gamma(self) -> int:
        return 0 if self.tts.spec.drafter == "none" else self.tts.spec.gamma

    def decode(self, groups: Sequence[list[list[int]]], sampling: dict[str, Any], seed: int, max_tokens: int | None, *, keep: bool) -> None:
        """One run over all sentences; `keep` is false for the warm-up."""
        law, chance = replace(self.tts.sampling, **sampling), torch.Generator().manual_seed(seed)
        tokens, seconds = 0, 0.0
        for ids in groups:
            began = _now(self.tts)
            session, _ = self.tts.decode(ids, law, chance, max_tokens)
            self._watch(session)
            for _ in self._verdicts(session):
                pass
            seconds += _now(self.tts) - began
            total = sum(session.stats, DecodeStats())
            tokens += total.tokens
            if keep:
                self.stats += total
        if keep:
            self.rates.append(tokens / seconds)
        else:
            self.target_ms.clear()
            self.draft_ms.clear()

    def _verdicts(self, session: Session) -> Iterator[Any]:
        """The loop that `TTS.decode` would run, with a clock on the drafter."""
        parts = self.tts.parts()
        if parts.plain:
            return generate(session)
        made: tuple[Any, Verifier] = parts.make()
        drafter, verifier = made
        propose = drafter.propose

        def timed(session: Session, state: Any, limits: list[int]) -> Any:
            began = _now(self.tts)
            proposal = propose(session, state, limits)
            if proposal.longest:
                self.draft_ms.append((_now(self.tts) - began) * 1e3 / max(limits))
            return proposal

        drafter.propose = timed
        return speculate(session, drafter, verifier, parts.spec.gamma)

    def _watch(self, session: Session) -> None:
        """A clock on every target call, by the number of new tokens."""
        score = session.score

        def timed(tokens: torch.Tensor, tree: Tree | None = None) -> torch.Tensor:
            began = _now(self.tts)
            logits = score(tokens, tree)
            self.target_ms.setdefault(tokens.shape[1], []).append((_now(self.tts) - began) * 1e3)
            return logits

        session.score = timed  # type: ignore[method-assign]

    def speak(self, sentences: Sequence[str], options: dict[str, Any]) -> None:
        """The whole pipeline, for RTF and TTFA."""
        for sentence in sentences:
            stats = self.tts.synthesize(sentence, **options).stats
            if stats["rtf"] is not None:
                self.rtf.append(stats["rtf"])
            if stats["ttfa_s"] is not None:
                self.ttfa.append(stats["ttfa_s"])

    def row(self, base: Arm, batch: int, seed: int, sampling: dict[str, Any]) -> dict[str, Any]:
        """An entry of `rows` in bench/1; `base` is the autoregressive arm of the same batch."""
        one = median(base.target_ms[1])
        width = self.gamma + 1
        # trees differ in size from call to call: all calls that scored a draft stand for them
        drafts = self.target_ms.get(width) if self.tts.spec.tree is None and self.tts.spec.num_drafts == 1 else [
            ms for n, times in self.target_ms.items() if n > 1 for ms in times]
        block = median(drafts) if drafts else None
        draft = median(self.draft_ms) if self.draft_ms else None
        per_call = self.stats.tokens_per_call
        predicted = 1.0 if self is base else per_call * one / (block + self.gamma * draft) if block and draft is not None else None
        return {
            **self.tts.describe(batch=batch, seed=seed, **sampling), "runs": len(self.rates), "tokens": self.stats.tokens,
            "target_calls": self.stats.target_calls, "tokens_per_call": round(per_call, 4),
            "acceptance_by_position": [round(share, 4) for share in self.stats.acceptance_by_position],
            "tokens_per_s": _spread(self.rates), "speedup": _spread([mine / theirs for mine, theirs in zip(self.rates, base.rates)]),
            "target_step_ms": {"1": _round(one), "gamma+1": _round(block)}, "draft_step_ms": _round(draft),
            "predicted_speedup": _round(predicted), "rtf": _round(median(self.rtf)) if self.rtf else None,
            "ttfa_s": _round(median(self.ttfa)) if self.ttfa else None,
        }


def run_bench(tts: TTS, sentences: Sequence[str] = SENTENCES, *, drafters: Sequence[str] | None = None, batches: Sequence[int] = (1,),
              runs: int = 5, speaker: str | None = None, seed: int = 0, max_tokens: int | None = None,
              progress: Callable[[str], None] = lambda message: None, **sampling: Any) -> dict[str, Any]:
    """Measure; returns the bench/1 object.

    Every run decodes all sentences once with every drafter, one after the other, in turning order; the first pass is a
    warm-up that does not count. `tokens_per_s` is the median over runs, `speedup` the median of the ratios within the
    same run; lo and hi are the 10th and 90th percentile. Step times are medians over the target calls of these very runs.
    RTF and TTFA are medians over the first four sentences, spoken whole.

    Args:
        drafters: names besides "none", which is always measured; ("all",) takes every one that the voice can run.

    Raises:
        ConfigError: an unknown drafter, or one that this voice has no weights for.
    """
    names = choose_drafters(tts, drafters)
    who = speaker or tts.speakers[0]
    ids = [tts.tokenizer.encode(sentence, who) for sentence in sentences]
    rows = []
    for batch in batches:
        groups = [ids[i:i + batch] for i in range(0, len(ids), batch)]
        groups = [group + ids[:batch - len(group)] for group in groups]  # a full last group: rows must be alike
        arms = [Arm(tts if name == tts.spec.drafter else tts.using(drafter=name)) for name in names]
        for run in range(-1, runs):
            order = arms[run % len(arms):] + arms[:run % len(arms)]
            for arm in order:
                progress(f"batch {batch}, {'warm-up' if run < 0 else f'run {run + 1} of {runs}'}, {arm.tts.spec.drafter}")
                arm.decode(groups, sampling, seed + max(run, 0), max_tokens, keep=run >= 0)
        options = {"speaker": speaker, "seed": seed, "max_tokens": max_tokens, "batch": batch, **sampling}
        for arm in arms:
            arm.speak(sentences[:SPOKEN], options)
        rows += [arm.row(arms[0], batch, seed, sampling) for arm in arms]
    return {"schema": "bench/1", "commit": commit(), "hardware": hardware(tts.t2s.device), "torch": torch.__version__,
            "voice": tts.name, "rows": rows}


def choose_drafters(tts: TTS, drafters: Sequence[str] | None) -> list[str]:
    """"none" first, then what was asked for."""
    if drafters is None:
        wanted = [tts.spec.drafter]
    elif list(drafters) == ["all"]:
        wanted = [name for name in DRAFTERS if _runs(tts, name)]
    else:
        wanted = list(drafters)
    for name in wanted:
        tts.using(drafter=name)
    return ["none", *(name for name in dict.fromkeys(wanted) if name != "none")]


def _runs(tts: TTS, name: str) -> bool:
    try:
        tts.using(drafter=name)
    except SpearSpecError:
        return False
    return True


def _now(tts: TTS) -> float:
    if tts.t2s.device.type == "cuda":
        torch.cuda.synchronize(tts.t2s.device)
    return time.perf_counter()


def _spread(values: Sequence[float]) -> dict[str, float]:
    low, mid, high = np.quantile(values, [0.1, 0.5, 0.9])
    return {"median": round(float(mid), 4), "lo": round(float(low), 4), "hi": round(float(high), 4)}


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def commit() -> str:
    """The git commit of the package's source, with -dirty where it was changed; "unknown" outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


def hardware(device: torch.device) -> str:
    """Processor, cores and, where it is used, GPU."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
        cores = sum(line.startswith("processor") for line in lines)
    except OSError:
        import os

        cores = os.cpu_count() or 1
    gpu = f"; {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    return f"{name}, {cores} cores{gpu}"


def plot(result: dict[str, Any], path: str) -> None:
    """Tokens a second of every row, with the speed-up written on the bars.

    Raises:
        MissingExtraError: matplotlib is not installed. ConfigError: the file cannot be written.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("--plot needs matplotlib: pip install 'spear_spec[eval]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = result["rows"]
    rates = [row["tokens_per_s"] for row in rows]
    middle = [rate["median"] for rate in rates]
    error = [[rate["median"] - rate["lo"] for rate in rates], [rate["hi"] - rate["median"] for rate in rates]]
    figure, axes = pyplot.subplots(figsize=(1.5 + 1.3 * len(rows), 4))
    colours = ["0.6" if row["drafter"] == "none" else "tab:blue" for row in rows]
    bars = axes.bar(range(len(rows)), middle, yerr=error, capsize=4, color=colours)
    axes.bar_label(bars, [f"{row['speedup']['median']:.2f} x" for row in rows], label_type="center")
    axes.set_xticks(range(len(rows)), [f"{row['drafter']}\nbatch {row['batch']}" for row in rows])
    axes.set_ylabel("semantic tokens / s")
    axes.set_title(f"{result['voice']}, {result['hardware']}", fontsize=8)
    figure.tight_layout()
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as problem:
        raise ConfigError(f"cannot write the plot {path}: {problem}") from None
    finally:
        pyplot.close(figure)
