"""Durations of phonemes for corpora that bring none: a CTC's best path, or a diagonal where there is nothing better.

Durations are what `meta.*.jsonl` calls frames: one number for each phoneme character, `DURATION_RATE` to the second,
with the silence at both ends, so `len(frames) == len(phonemes) + 2`. They only supervise attention during training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from spear_spec.config import Clock
from spear_spec.text.symbols import STRESS
from spear_spec.training.data.corpus import DURATION_RATE, Clip
from spear_spec.training.data.ctc import BLANK, SILENT, UPSAMPLE, PhonemeCTC

NEAR = 6  # outputs (120 ms): the longest gap between two phones that is shared by them alone; what is longer is a pause
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


def best_path(log_probs: npt.NDArray[np.float64], labels: list[int]) -> list[int]:
    """The most likely alignment (Viterbi) of `labels` to log-probabilities [T, V] under CTC's rules.

    Returns:
        For each of the T outputs the index into `labels` that it writes, or -1 for the blank; None of the rules allows
        it when T is smaller than the number of labels and of repeated neighbours: then an empty list.
    """
    states = [BLANK]
    for label in labels:
        states += [label, BLANK]
    skip = np.array([i > 2 and i % 2 == 1 and states[i] != states[i - 2] for i in range(len(states))])
    emit = log_probs[:, states]
    score = np.full(len(states), -np.inf)
    score[:2] = emit[0, :2]
    back = np.zeros((len(emit), len(states)), dtype=np.int8)
    for t in range(1, len(emit)):
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.where(skip, np.concatenate([[-np.inf, -np.inf], score[:-2]])[: len(states)], -np.inf)
        options = np.stack([score, one, two])
        back[t] = options.argmax(0)
        score = options.max(0) + emit[t]
    state = len(states) - 1 if len(states) == 1 or score[-1] >= score[-2] else len(states) - 2
    if not np.isfinite(score[state]):
        return []
    path = []
    for t in range(len(emit) - 1, -1, -1):
        path.append(state)
        state -= int(back[t, state])
    return [(s - 1) // 2 if s % 2 else -1 for s in reversed(path)]


@torch.no_grad()
def ctc_frames(model: PhonemeCTC, tokens: Tensor, phonemes: str, clock: Clock) -> list[int]:
    """Durations from the CTC's best path; the diagonal where the phonemes do not fit into the tokens.

    A phone begins halfway between its neighbours' peaks. Longer gaps are pauses: they go to the blank or mark that
    stands there, or stay with the phones where none does.
    """
    known = [i for i, c in enumerate(phonemes) if c not in SILENT and c in model.alphabet]
    if not len(tokens) or not known:
        return diagonal(phonemes, len(tokens), clock)
    rows = tokens.long()[None].to(model.head.weight.device)
    log_probs = model.eval()(rows)[0].cpu().double().numpy()
    path = best_path(log_probs, [model.alphabet.index(phonemes[i]) + 1 for i in known])
    if not path:
        return diagonal(phonemes, len(tokens), clock)
    where = np.array(path)
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


def find_frames(
    clips: Iterable[Clip],
    tokens: Mapping[str, Tensor],
    model: PhonemeCTC | None,
    clock: Clock,
    *,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Durations of the clips that have none, by id: by the CTC, or along the diagonal without one."""
    out = {}
    for clip in tqdm(list(clips), desc="align", disable=not progress):
        if clip.frames is None and clip.id in tokens and clip.phonemes:
            row = tokens[clip.id]
            known = None if model is None else ctc_frames(model, row, clip.phonemes, clock)
            out[clip.id] = torch.tensor(known or diagonal(clip.phonemes, len(row), clock))
    return out
