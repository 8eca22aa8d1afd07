"""Autoregressive and speculative decoding of the same sentences in one run: interleaved, warmed up, medians, paired
ratios.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from spear_spec.bench.arm import Arm, Texts, spread
from spear_spec.bench.listening import Listeners, quality
from spear_spec.bench.machine import commit, hardware, source_digest
from spear_spec.bench.peer import DISTRIBUTION, Peer, find_peer, version
from spear_spec.bench.race import contestants
from spear_spec.bench.roofline import roofline
from spear_spec.bench.store import Store, digest
from spear_spec.pipeline import TTS

__all__ = ["SENTENCES", "Tell", "commit", "hardware", "run_bench"]

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
GROUP = 6  # settings that run in turn with one autoregressive arm

Tell = Callable[[str], None]


def _silent(message: str) -> None:
    return None


def run_bench(
    tts: TTS,
    sentences: Sequence[str] = SENTENCES,
    *,
    drafters: Sequence[str] | None = None,
    gammas: Sequence[int] = (),
    batches: Sequence[int] = (1,),
    runs: int = 5,
    speaker: str | None = None,
    seed: int = 0,
    max_tokens: int | None = None,
    judges: Sequence[str] = (),
    judged: Sequence[str] | None = None,
    file: Path | None = None,
    progress: Tell = _silent,
    tell: Tell = _silent,
    **sampling: Any,
) -> dict[str, Any]:
    """Measure; returns the bench/1 object.

    Every run decodes all sentences once with every setting, one after the other, in turning order; the first pass is a
    warm-up that does not count. `tokens_per_s` is the median over runs, `speedup` the median of the ratios within the
    same run; lo and hi are the 10th and 90th percentile. Step times are medians over the target calls of these very
    runs.
    RTF and TTFA are medians over the first four sentences, spoken whole.

    A machine's speed drifts while many settings are measured. They therefore run in groups of at most six, each with
    autoregressive runs of its own in turn with the group's; `speedup` is against those (`baseline_tokens_per_s`), and a
    change of speed between groups cancels. The row "none" is that of a batch size's first group.

    Where whole rounds run on the device (runtime graphs) draft and target have no times of their own: a step of the
    target is a round of the loop, and there is no prediction. A run in which something was captured is made again.

    Where spear-tts-pytorch is installed, its cached `generate` writes the autoregressive loop's tokens at batch 1, on
    the same weights, in turn with the first group; `vs_peer` is a row's speed-up times the loop's ratio to it.

    Args:
        drafters: names besides "none", which is always measured; ("all",) takes what the records of drafters and
            rules race with, as far as the voice can run it (what it cannot is under "left_out"). None: `tts`
            as it is set. gammas: draft lengths of those named.
        judges: metrics ("wer", "mos", ...) that every setting of the first batch size is judged by, on the sentences
            `judged` (by default those that are decoded), each against the autoregressive loop: "quality" of a row.
        file: finished rows are kept here group by group. What an interrupted call has left is taken up by the next one
            with the same code, voice, sampling, texts, runs, seed and threads; the caller writes the result in its
            place.
        progress: told where it stands; tell: told what a user should know.

    Raises:
        ConfigError: an unknown drafter, or one that this voice has no weights for. MissingExtraError: no such judge.
    """
    contest = _Contest(
        tts,
        sentences,
        drafters,
        gammas,
        runs=runs,
        speaker=speaker,
        seed=seed,
        max_tokens=max_tokens,
        sampling=sampling,
        judges=judges,
        judged=sentences if judged is None else judged,
        file=file,
        progress=progress,
        tell=tell,
    )
    for batch in batches:
        contest.race(batch)
    if judges:
        contest.listen(batches[0])
    return contest.result(batches)


class _Contest:
    """One call of `run_bench`: who takes part, what is finished."""

    def __init__(
        self,
        tts: TTS,
        sentences: Sequence[str],
        drafters: Sequence[str] | None,
        gammas: Sequence[int],
        *,
        runs: int,
        speaker: str | None,
        seed: int,
        max_tokens: int | None,
        sampling: dict[str, Any],
        judges: Sequence[str],
        judged: Sequence[str],
        file: Path | None,
        progress: Tell,
        tell: Tell,
    ) -> None:
        # without what is of no use to it and would be refused: options, a rule of a user's own
        self.tts, self.plain = tts, tts.using(drafter="none", verifier="rejection", options={})
        self.others, self.left_out = contestants(tts, drafters, gammas)
        self.sentences, self.runs, self.seed, self.max_tokens, self.sampling = (
            sentences,
            runs,
            seed,
            max_tokens,
            sampling,
        )
        self.speaker, self.progress, self.tell = speaker, progress, tell
        self.listeners = (
            Listeners(tts, judges, judged, seed=seed, speaker=speaker, max_tokens=max_tokens, **sampling)
            if judges
            else None
        )
        who = speaker or tts.speakers[0]
        self.ids = tts.texts(sentences, who)
        self.head = {
            "schema": "bench/1",
            "commit": commit(),
            "hardware": hardware(tts.target.device),
            "torch": torch.__version__,
            "voice": tts.name,
        }
        # names and hashes of the weights are in the voice's configuration
        voice = (tts.bundle.path / "config.json").read_text(encoding="utf-8")
        settings = digest(
            self.head["hardware"],
            self.head["torch"],
            voice,
            self._arm(self.plain, 0).cfg,
            list(sentences),
            runs,
            who,
            max_tokens,
            list(judges),
            list(judged) if judges else None,
        )
        self.roof = roofline(tts.target, by_torch=self.plain.decoder.chosen() == "graphs")
        self.store = Store(file, self.head, source_digest(), settings)
        self.store.load(tell)

    def race(self, batch: int) -> None:
        """Measure what is not finished at this batch size."""
        texts = [self.ids[i : i + batch] for i in range(0, len(self.ids), batch)]
        texts = [(group + self.ids * batch)[:batch] for group in texts]  # a full last group: rows must be alike
        missing = [tts for tts in self.others if self.store.find(self._arm(tts, batch).cfg) is None]
        groups = _even(missing, GROUP)
        if not groups and self.store.find(self._arm(self.plain, batch).cfg) is None:
            groups = [[]]
        for number, group in enumerate(groups):
            base, arms = self._arm(self.plain, batch), [self._arm(tts, batch) for tts in group]
            wanted = batch == 1 and number == 0 and self.store.peer is None
            peer = find_peer(self.tts.target, self.tts.sampling.changed(**self.sampling), self.tell) if wanted else None
            self._runs(
                base,
                arms,
                texts,
                peer,
                f"batch {batch}, group {number + 1} of {len(groups)}" if len(groups) > 1 else f"batch {batch}",
            )
            for arm in arms if self.store.find(base.cfg) else [base, *arms]:
                arm.speak(self.sentences[:SPOKEN], speaker=self.speaker, max_tokens=self.max_tokens)
                self.store.rows.append(arm.row(base))
            if peer is not None and peer.rates:
                ratio = spread([ours / theirs for ours, theirs in zip(base.rates, peer.rates)])
                self.store.peer = {
                    "package": DISTRIBUTION,
                    "version": version(),
                    "tokens_per_s": spread(peer.rates),
                    "autoregressive_over_peer": ratio,
                }
            self.store.save()

    def listen(self, batch: int) -> None:
        """Judge every setting that has not been judged."""
        assert self.listeners is not None
        count = len(self.listeners.sentences)
        for tts in [self.plain, *self.others]:
            arm = self._arm(tts, batch)
            row = self.store.find(arm.cfg)
            assert row is not None
            if row["quality"] is not None:
                continue

            def progress(done: int, name: str = arm.name) -> None:
                self.progress(f"{name}: judging sentence {done + 1} of {count}")

            heard = self.listeners.hear(tts, progress)
            if tts is self.plain:
                self.store.heard = heard
            row["quality"] = quality(heard, None if tts is self.plain else self.store.heard)
            self.store.save()

    def result(self, batches: Sequence[int]) -> dict[str, Any]:
        """The rows that were asked for, as they raced."""
        rows = [self.store.find(self._arm(tts, batch).cfg) for batch in batches for tts in (self.plain, *self.others)]
        ratio = self.store.peer["autoregressive_over_peer"]["median"] if self.store.peer else None
        found = [
            {**row, "vs_peer": round(ratio * row["speedup"]["median"], 4) if ratio and row["batch"] == 1 else None}
            for row in rows
            if row
        ]
        for row in found:
            row["bound_ms"] = None if self.roof is None else self._bounds(row)
        roof = None if self.roof is None else self.roof.to_dict()
        return {**self.head, "rows": found, "peer": self.store.peer, "left_out": self.left_out, "roofline": roof}

    def _bounds(self, row: dict[str, Any]) -> dict[str, float | None]:
        """What a row's two target steps take at least."""
        assert self.roof is not None
        one, many = row["batch"], row["batch"] * (row["gamma"] + 1)
        whole = row["target_step_ms"]["gamma+1"] is not None
        return {
            "1": round(self.roof.bound_ms(one), 4),
            "gamma+1": round(self.roof.bound_ms(many), 4) if whole else None,
        }

    def _arm(self, tts: TTS, batch: int) -> Arm:
        return Arm(tts, batch, self.seed, self.sampling)

    def _runs(self, base: Arm, arms: list[Arm], texts: Texts, peer: Peer | None, where: str) -> None:
        everyone = [base, *arms]
        for run in range(-1, self.runs):
            turn = run % len(everyone)
            stage = f"{where}, {'warm-up' if run < 0 else f'run {run + 1} of {self.runs}'}"
            for arm in everyone[turn:] + everyone[:turn]:
                self.progress(f"{stage}, {arm.name}")
                arm.decode(texts, self.seed + max(run, 0), self.max_tokens, keep=run >= 0)
            if peer is not None:
                self.progress(f"{stage}, {DISTRIBUTION}")
                try:
                    peer.decode(base.written, keep=run >= 0)
                except Exception as error:  # other people's code: a bench must not stop for it
                    self.tell(f"{DISTRIBUTION} cannot be measured: {error}")
                    peer.rates.clear()
                    peer = None


def _even(arms: list[TTS], most: int) -> list[list[TTS]]:
    """In order, in as few groups of about the same size as hold at most `most` each."""
    count = -(-len(arms) // most)
    return [arms[len(arms) * i // count : len(arms) * (i + 1) // count] for i in range(count)]
