"""Durations of pseudo-pairs, shared out between letters and marks as the parallel part does it.

A CTC hears phones alone: what stands between them (stress, blanks, punctuation) gets no time from it, or a whole pause.
A corpus has a custom of its own, and attention that was supervised by one custom has to unlearn it for the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.ctc import SILENT

END = ""  # the silence behind the last symbol
LETTER = "letter"  # any symbol that is no mark


def customs(clips: Iterable[Clip]) -> dict[str, float]:
    """Mean duration, in frames, of each mark, of a letter and of the silence at the end, in clips that have them."""
    found: dict[str, list[int]] = {}
    for clip in clips:
        if clip.frames is not None and clip.phonemes and len(clip.frames) == len(clip.phonemes) + 2:
            for symbol, frames in zip([*clip.phonemes, END], clip.frames[1:]):
                found.setdefault(symbol if symbol in SILENT or symbol == END else LETTER, []).append(frames)
    return {symbol: float(np.mean(values)) for symbol, values in found.items()}


def share_out(phonemes: str, frames: Sequence[int], usual: Mapping[str, float]) -> list[int]:
    """The same time with other borders: each letter and the marks before it, and the marks behind the last letter and
    the silence at the end, share what they have together in the proportions of `usual` (see `customs`).

    frames: of the silence before, of each symbol, of the silence behind; so is what is returned.
    """
    symbols = [*phonemes, END]
    out, group = [int(frames[0])], list[int]()
    for place, symbol in enumerate(symbols):
        group.append(place)
        if symbol in SILENT:
            continue
        kinds = [symbols[p] if symbols[p] in SILENT or symbols[p] == END else LETTER for p in group]
        weights = np.array([usual.get(kind, 1.0) for kind in kinds])
        total = sum(int(frames[1 + p]) for p in group)
        borders = np.rint(total * np.cumsum(weights) / max(weights.sum(), 1e-9)).astype(int)
        out += np.diff(borders, prepend=0).tolist()
        group = []
    return out
