"""Utterances as the trainers of the transformer and of its drafts read them, and batches of like lengths."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from spear_spec.config import Clock
from spear_spec.training.data.corpus import DURATION_RATE
from spear_spec.training.data.prepared import Prepared, load_rows

IGNORE = -100  # a target that no loss counts
Item = TypeVar("Item")
Ids = npt.NDArray[Any]


@dataclass
class Utterance:
    """text [S] ids with speaker first and the text end token last; tokens [T]; align [T + 1] text position spoken at
    each token.
    """

    text: list[int]
    tokens: Ids
    align: Ids | None
    speaker: str


def alignment(frames: Sequence[int], tokens: int, clock: Clock) -> Ids:
    """Text position (0 = the speaker token: leading silence; last = the text end: trailing silence) spoken at each
    token.
    """
    ends = np.cumsum(frames)
    middle = (np.arange(tokens) + 0.5) * (DURATION_RATE / clock.token_rate)
    return np.minimum(np.searchsorted(ends, middle, side="right"), len(frames) - 1)


def read_utterances(
    prepared: Prepared,
    encode: Callable[[str, str], list[int]],
    text_eos: int,
    *,
    clock: Clock,
    drop: Collection[str] = (),
) -> list[Utterance]:
    """The clips of a prepared folder that have tokens; `encode(phonemes, speaker) -> ids`; drop: ids left out.

    Raises:
        SpearSpecError: the folder is missing or damaged, or its phonemes are not of the alphabet.
    """
    stored = load_rows(prepared.tokens)
    out = []
    for clip in prepared.clips():
        if clip.id in drop or clip.id not in stored:
            continue
        tokens = stored[clip.id].numpy().astype(np.int64)
        text = [*encode(clip.phonemes or "", clip.speaker), text_eos]
        align = None
        if clip.frames and len(clip.frames) == len(text):
            align = np.append(alignment(clip.frames, len(tokens), clock), len(text) - 1)
        if len(tokens):
            out.append(Utterance(text, tokens, align, clip.speaker))
    return out


def join(parts: list[Utterance], space: int) -> Utterance:
    """One longer utterance: texts joined by a space, which also gets the silence between them."""
    text = list(parts[0].text[:1])
    tokens, aligns = [], []
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        base = len(text) - 1  # where the part's leading silence goes: the speaker token or the space before it
        body = part.text[1:] if last else [*part.text[1:-1], space]
        text.extend(body)
        tokens.append(part.tokens)
        if part.align is not None:
            aligns.append(part.align[: len(part.tokens)] + base)
    known = len(aligns) == len(parts)
    align = np.append(np.concatenate(aligns), len(text) - 1) if known else None
    return Utterance(text, np.concatenate(tokens), align, parts[0].speaker)


def round_up(n: int, to: int = 16) -> int:
    """The multiple of `to` at or above n: padded sizes repeat, so that memory is used again."""
    return -(-n // to) * to


def group_by_length(pool: Sequence[Item], length: Callable[[Item], int], batch_tokens: int) -> list[list[Item]]:
    """Cut a pool, sorted by length, into runs whose padded size stays within batch_tokens (or that hold one item)."""
    groups: list[list[Item]] = [[]]
    longest = 0
    for item in pool:
        longest = max(longest, round_up(length(item)))
        if groups[-1] and longest * (len(groups[-1]) + 1) > batch_tokens:
            groups.append([])
            longest = round_up(length(item))
        groups[-1].append(item)
    return groups
