"""Durations of phonemes for corpora that bring none: a CTC's best path, or a diagonal where there is nothing better.

Durations are what `meta.*.jsonl` calls frames: one number for each phoneme character, `DURATION_RATE` to the second,
with the silence at both ends, so `len(frames) == len(phonemes) + 2`. They only supervise attention during training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from spear_spec.config import Clock
from spear_spec.text.symbols import STRESS
from spear_spec.training.data.corpus import DURATION_RATE, Clip
from spear_spec.training.data.ctc import BLANK, SILENT, UPSAMPLE, PhonemeCTC
from spear_spec.training.data.spread import Do, Hands, forget, spread

NEAR = 6  # outputs (120 ms): the longest gap between two phones that is shared by them alone; what is longer is a pause
TOGETHER = 16  # clips whose paths are looked for at once
SURE = 1.0  # nats a phone that say nothing yet
FEW = 20  # clips, of which nobody can tell what is usual
STRETCH = 3  # outputs that a phone beside a pause keeps of it


def diagonal(phonemes: str, tokens: int, clock: Clock) -> list[int]:
    """The prior of guided attention (Tachibana et al. 2017): every phone equally long, other characters without
    length.
    """
    weights = np.array([0.5, *(0.0 if c in SILENT else 1.0 for c in phonemes), 0.5])
    return _frames(np.cumsum(weights / weights.sum()) * tokens * UPSAMPLE, clock)


def _frames(ends: npt.NDArray[np.float64], clock: Clock) -> list[int]:
    """Ends of the segments in CTC outputs to whole frames that add up to the rounded total."""
    at = np.rint(ends * (DURATION_RATE / clock.token_rate) / UPSAMPLE).astype(int)
    return [int(n) for n in np.diff(at, prepend=0)]


def best_paths(
    log_probs: Sequence[npt.NDArray[np.float64]], labels: Sequence[list[int]]
) -> list[tuple[list[int], float]]:
    """The most likely alignment (Viterbi) of labels to log-probabilities [T, V] under CTC's rules, of several clips at
    once: what a clip gets does not depend on the others.

    Returns:
        Per clip: for each of the T outputs the index into its labels that it writes, or -1 for the blank, and the
        path's log-probability. None of the rules allows a path when T is smaller than the number of labels and of
        repeated neighbours: then an empty list, and minus infinity.
    """
    rows, widest, longest = len(labels), 2 * max(map(len, labels)) + 1, max(map(len, log_probs))
    states = np.full((rows, widest), BLANK)
    for row, wanted in enumerate(labels):
        states[row, 1 : 2 * len(wanted) : 2] = wanted
    skip = np.zeros((rows, widest), dtype=bool)
    skip[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    emit = np.full((longest, rows, widest), -np.inf)
    for row, (each, wanted) in enumerate(zip(log_probs, labels)):
        emit[: len(each), row, : 2 * len(wanted) + 1] = each[:, states[row, : 2 * len(wanted) + 1]]
    ends = np.array([len(each) for each in log_probs])
    score = np.full((rows, widest), -np.inf)
    score[:, :2] = emit[0, :, :2]
    back = np.zeros((longest, rows, widest), dtype=np.int8)
    for t in range(1, longest):
        one, two = np.full_like(score, -np.inf), np.full_like(score, -np.inf)
        one[:, 1:] = score[:, :-1]
        two[:, 2:] = score[:, :-2]
        two[~skip] = -np.inf
        options = np.stack([score, one, two])
        back[t] = options.argmax(0)
        score = np.where((t < ends)[:, None], options.max(0) + emit[t], score)
    return [_trace(score[row], back[: ends[row], row], len(each)) for row, each in enumerate(labels)]


def _trace(score: npt.NDArray[np.float64], back: npt.NDArray[np.int8], labels: int) -> tuple[list[int], float]:
    """Walk back from the better of the two states in which a clip may end."""
    state = 2 * labels if labels == 0 or score[2 * labels] >= score[2 * labels - 1] else 2 * labels - 1
    total = float(score[state])
    if not np.isfinite(total):
        return [], -np.inf
    path = []
    for t in range(len(back) - 1, -1, -1):
        path.append(state)
        state -= int(back[t, state])
    return [(s - 1) // 2 if s % 2 else -1 for s in reversed(path)], total


class Aligned(NamedTuple):
    """frames: the durations. loss: what it costs the CTC, in nats a phone, to hear these phones rather than what it
    hears best: near 0 where they are what is said, minus nothing. Infinite where they do not fit into the audio; None
    where no CTC was asked.
    """

    frames: list[int]
    loss: float | None


@torch.no_grad()
def align_clips(model: PhonemeCTC, clips: Sequence[tuple[Tensor, str]], clock: Clock) -> list[Aligned]:
    """Durations from the CTC's best path, of (tokens [T], phonemes); the diagonal where they do not fit each other."""
    out: dict[int, Aligned] = {}
    heard, labels, where = [], [], []
    for number, (tokens, phonemes) in enumerate(clips):
        known = [model.alphabet.index(c) + 1 for c in phonemes if c not in SILENT and c in model.alphabet]
        if not len(tokens) or not known:
            out[number] = Aligned(diagonal(phonemes, len(tokens), clock), None)
            continue
        rows = tokens.long()[None].to(model.head.weight.device)
        heard.append(model.eval()(rows)[0].cpu().double().numpy())
        labels.append(known)
        where.append(number)
    for first in range(0, len(heard), TOGETHER):
        group = slice(first, first + TOGETHER)
        for number, log_probs, (path, score) in zip(
            where[group], heard[group], best_paths(heard[group], labels[group])
        ):
            tokens, phonemes = clips[number]
            if path:
                loss = (float(log_probs.max(1).sum()) - score) / (1 + max(path))
                out[number] = Aligned(_durations(model, np.array(path), phonemes, clock), loss)
            else:
                out[number] = Aligned(diagonal(phonemes, len(tokens), clock), np.inf)
    return [out[number] for number in range(len(clips))]


def _durations(model: PhonemeCTC, where: npt.NDArray[np.int64], phonemes: str, clock: Clock) -> list[int]:
    """Durations from a path.

    A phone begins halfway between its neighbours' peaks. Longer gaps are pauses: they go to the blank or mark that
    stands there, or stay with the phones where none does.
    """
    known = [i for i, c in enumerate(phonemes) if c not in SILENT and c in model.alphabet]
    first = [int(np.argmax(where == n)) for n in range(len(known))]
    last = [len(where) - 1 - int(np.argmax(where[::-1] == n)) for n in range(len(known))]
    ends = np.zeros(len(phonemes) + 2)
    start = max(0, first[0] - STRETCH)
    ends[: known[0] + 1] = start
    for n, at in enumerate(known):
        if n + 1 == len(known):
            ends[at + 1 :] = min(len(where), last[n] + 1 + STRETCH)
            break
        following, gap = known[n + 1], first[n + 1] - last[n] - 1
        silent = [i for i in range(at + 1, following) if phonemes[i] in SILENT and phonemes[i] not in STRESS]
        if gap > NEAR and silent:
            ends[at + 1 : silent[0] + 1] = last[n] + 1 + STRETCH
            ends[silent[0] + 1 : following + 1] = first[n + 1] - STRETCH
        else:
            ends[at + 1 : following + 1] = last[n] + 1 + gap / 2
    ends[-1] = len(where)
    return _frames(ends, clock)


@dataclass(frozen=True)
class Align:
    """A `spread.Task`: durations, int16 by id; in the metadata, as "losses", what each costs the CTC.

    ctc: its file, or None for the diagonal; tokens: the file of the clips' tokens.
    """

    ctc: str | None
    tokens: str
    clock: Clock

    def open(self) -> Do:
        model = None if self.ctc is None else PhonemeCTC.load(self.ctc)

        def do(clips: list[Clip]) -> bytes:
            with safe_open(self.tokens, "pt") as file:
                pairs = [(file.get_tensor(clip.id), clip.phonemes or "") for clip in clips]
            if model is None:
                found = [Aligned(diagonal(phonemes, len(row), self.clock), None) for row, phonemes in pairs]
            else:
                found = align_clips(model, pairs, self.clock)
            rows = {clip.id: torch.tensor(each.frames, dtype=torch.int16) for clip, each in zip(clips, found)}
            losses = {clip.id: each.loss for clip, each in zip(clips, found) if each.loss is not None}
            return save(rows, metadata={"losses": json.dumps(losses)})

        return do


def find_frames(
    clips: Iterable[Clip], tokens: Path, ctc: Path | None, clock: Clock, folder: Path, hands: Hands
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Durations of the clips that have none but tokens, by id, along the diagonal without a CTC; and what the CTC makes
    of their texts (`Aligned.loss`).

    folder: where the shards are until all are done; a run that was killed goes on with them.
    """
    with safe_open(tokens, "pt") as file:
        there = set(file.keys())
    wanted = [clip for clip in clips if clip.frames is None and clip.id in there and clip.phonemes]
    rows: dict[str, Tensor] = {}
    losses: dict[str, float] = {}
    task = Align(None if ctc is None else str(ctc), str(tokens), clock)
    for path in spread(task, wanted, folder, hands, name=f"align {folder.name}"):
        rows |= load_file(path)
        with safe_open(path, "pt") as file:
            losses |= json.loads((file.metadata() or {})["losses"])
    forget(folder)
    return rows, losses


def worst_believed(losses: Iterable[float], deviations: float) -> float:
    """The loss above which a text is taken not to be what is said: so many robust standard deviations (1.4826 times the
    median absolute deviation) above the median, and at least `SURE`, since a CTC that knows its corpus hears most of it
    without any. Infinite where there are too few clips to tell what is usual.
    """
    known = np.array([loss for loss in losses if np.isfinite(loss)])
    if deviations <= 0 or len(known) < FEW:
        return float("inf")
    middle = np.median(known)
    return max(SURE, float(middle + deviations * 1.4826 * np.median(np.abs(known - middle))))
