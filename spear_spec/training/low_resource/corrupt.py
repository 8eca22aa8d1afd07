"""Semantic tokens as a source of their own: whole, or with most of them deleted (SPEAR-TTS, arXiv 2302.03540).

In denoising pretraining the encoder reads what is left of an utterance and the decoder writes all of it. Which encoder
position stands for which token is known exactly, so cross-attention can be supervised without any text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from spear_spec.errors import ConfigError
from spear_spec.training.data.utterances import Utterance

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """Ids of an encoder that reads semantic tokens 0 to tokens - 1: 0 pads, token t is t + 1, `begin` stands where a
    text has its speaker, `space` between joined clips, `end` last.
    """

    tokens: int

    @property
    def begin(self) -> int:
        return self.tokens + 1

    @property
    def space(self) -> int:
        return self.tokens + 2

    @property
    def end(self) -> int:
        """The text end of `TextToSemantic`: as many as there are other ids."""
        return self.tokens + 3

    def write(self, tokens: Sequence[int] | Ids) -> list[int]:
        """A whole source: begin, the tokens, end."""
        return [self.begin, *(int(token) + 1 for token in tokens), self.end]


def survivors(count: int, share: float, rng: np.random.Generator) -> Ids:
    """Places, in order, of the tokens that stay when each of `count` is deleted by itself with probability `share`; at
    least one stays.
    """
    kept = np.flatnonzero(rng.random(count) >= share)
    return kept if len(kept) or not count else rng.integers(count, size=1)


def nearest(kept: Ids, count: int) -> Ids:
    """For each of `count` places the index into `kept` of the nearest place that stayed, the earlier one of two."""
    return np.searchsorted((kept[:-1] + kept[1:]) / 2, np.arange(count), side="left")


def deleted(item: Utterance, source: Source, share: float, rng: np.random.Generator) -> Utterance:
    """The utterance with what is left of its own tokens in place of its text.

    align: a token that stayed belongs to its own encoder position, a deleted one to the nearest that stayed, the end to
    the end.
    """
    kept = survivors(len(item.tokens), share, rng)
    text = source.write(item.tokens[kept])
    align = np.append(1 + nearest(kept, len(item.tokens)), len(text) - 1)
    return Utterance(text, item.tokens, align, item.speaker)


class Deleted(Sequence[Utterance]):
    """Utterances whose sources are drawn anew each time they are read.

    Raises:
        ConfigError: share is no probability below 1.
    """

    def __init__(self, items: Sequence[Utterance], source: Source, share: float, seed: int) -> None:
        if not 0 <= share < 1:
            raise ConfigError(f"the share of tokens that are deleted must lie from 0 to below 1, not {share}")
        self.items, self.source, self.share = items, source, share
        self.rng = np.random.default_rng(seed)

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Utterance]: ...

    def __getitem__(self, index: int | slice) -> Utterance | Sequence[Utterance]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return deleted(self.items[index], self.source, self.share, self.rng)

    def __iter__(self) -> Iterator[Utterance]:
        return (self[i] for i in range(len(self)))
