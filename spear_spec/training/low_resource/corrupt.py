"""Semantic tokens as a source of their own: whole, or with most of them deleted (SPEAR-TTS, arXiv 2302.03540).

In denoising pretraining the encoder reads what is left of an utterance and the decoder writes all of it. Which encoder
position stands for which token is known exactly, so cross-attention can be supervised without any text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def thinned(item: Utterance, source: Source, share: float, rng: np.random.Generator) -> Utterance:
    """An utterance whose text is a source, with this share of the source's tokens deleted.

    What pointed at a token that is gone points at the nearest that stayed.
    """
    kept = survivors(len(item.text) - 2, share, rng)
    text = source.write(np.array(item.text[1:-1])[kept] - 1)
    align = item.align
    if align is not None:
        places = np.array([0, *(1 + nearest(kept, len(item.text) - 2)), len(text) - 1])
        align = places[align]
    return Utterance(text, item.tokens, align, item.speaker)


def draw(items: Sequence[Utterance], source: Source, share: float, seed: int) -> list[Utterance]:
    """`deleted` of each utterance, by the seed alone.

    Raises:
        ConfigError: share is no probability below 1.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"the share of tokens that are deleted must lie from 0 to below 1, not {share}")
    rng = np.random.default_rng(seed)
    return [deleted(item, source, share, rng) for item in items]
