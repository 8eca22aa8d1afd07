"""From an utterance that is being decoded to its sound: tokens go to a stream of the stage in chunks, as they come."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from spear_spec.acoustic.contract import AcousticStage, AcousticStream
from spear_spec.audio import FloatArray
from spear_spec.decoding.chance import SENTENCE, SOUND, derive
from spear_spec.engine import Utterance
from spear_spec.text.front_end import Segment

log = logging.getLogger("spear_spec")

FIRST_CHUNK = 8  # tokens (.32 s) at a time to the stage until something is heard; then chunks double up to
LARGEST_CHUNK = 64


def sentence_seed(seed: int, index: int) -> int:
    """The seed of a text's sentence."""
    return derive(seed, index, SENTENCE)


def sentence_noise(seed: int, index: int) -> torch.Generator:
    """All chance in the sound of a text's sentence."""
    return torch.Generator().manual_seed(derive(seed, index, SOUND) >> 1)


class Voiced:
    """One sentence on its way from tokens to samples: the silence before it, then chunk after chunk.

    Chunks must be made in the order in which they are taken, never two at a time. The samples do not depend on how the
    tokens fell into chunks.

    ended: None until the last chunk has been taken, then why the utterance ended.

    Raises:
        ConfigError: a speaker or a rate that the stage cannot do.
    """

    def __init__(
        self,
        stage: AcousticStage,
        segment: Segment,
        utterance: Utterance,
        speaker: str,
        noise: torch.Generator,
        rate: float | None = None,
    ) -> None:
        """rate: of speaking; None: the segment's."""
        self.utterance = utterance
        self.ended: str | None = None
        self._pause = int(segment.pause_s * stage.sample_rate)
        self._stream = stage.open(speaker, segment.rate if rate is None else rate, noise)
        self._fed, self._chunk, self._taken = 0, FIRST_CHUNK, False
        # nothing comes out before the lookahead
        self._wanted = float("inf") if stage.lookahead is None else FIRST_CHUNK + stage.lookahead

    def due(self, heard: bool) -> bool:
        """Whether the next chunk can be taken. heard: something of the text has been; chunks grow from then on.

        Call it when the chunk before has been made.
        """
        if self._taken:
            self._chunk = min(2 * self._chunk, LARGEST_CHUNK) if heard else self._chunk
            self._wanted, self._taken = self._chunk, False
        utterance = self.utterance
        if self.ended is not None:
            return False
        return bool(self._pause) or utterance.ended is not None or len(utterance.tokens) - self._fed >= self._wanted

    def take(self, most: int | None = None, *, beside: bool = False) -> Callable[[], FloatArray]:
        """What makes the next chunk's samples float32 [T], at most this many tokens of them; `due` must be true.

        beside: another thread is decoding. The newest token then waits: it may be the end token of a step that has not
        said yet that the utterance has ended.
        """
        if self._pause:
            silence, self._pause = self._pause, 0
            return lambda: np.zeros(silence, dtype=np.float32)
        ended = self.utterance.ended  # before the tokens are looked at: another thread may be decoding
        left = (self.utterance.tokens if ended is None else self.utterance.speech)[self._fed :]
        if beside and ended is None:
            left = left[:-1]
        tokens = left if most is None else left[:most]
        self._fed += len(tokens)
        last = ended is not None and len(tokens) == len(left)
        if last:
            self.ended = ended
        elif ended is None:
            self._taken = True
        return partial(_pushed, self._stream, torch.tensor(tokens, dtype=torch.int64, device="cpu"), last=last)


def warn_if_cut(voiced: Voiced) -> None:
    """Say so where a sentence did not end by itself."""
    if voiced.ended not in (None, "eos"):
        log.warning(
            "a sentence was cut off after %d tokens (%s): try another seed or a higher max_tokens",
            len(voiced.utterance.tokens),
            voiced.ended,
        )


def _pushed(stream: AcousticStream, tokens: Tensor, *, last: bool) -> FloatArray:
    samples = stream.push(tokens)
    return (torch.cat([samples, stream.finish()]) if last else samples).numpy()
