"""From an utterance that is being decoded to its sound: tokens go to a stream of the stage in chunks, as they come."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from spear_spec.acoustic.contract import AcousticStage, AcousticStream, Heard
from spear_spec.acoustic.speed import open_at
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
        ConfigError: a speaker or a rate that the stage cannot do. MissingExtraError: see `check_speed`.
    """

    def __init__(
        self,
        stage: AcousticStage,
        segment: Segment,
        utterance: Utterance,
        voice: str | Heard,
        noise: torch.Generator,
        speed: float = 1.0,
    ) -> None:
        """voice: as `AcousticStage.open`. speed: of the speech, times the segment's rate, and of the silence."""
        self.utterance = utterance
        self.ended: str | None = None
        self._pause = int(segment.pause_s / speed * stage.sample_rate)
        self._stream = open_at(stage, voice, segment.rate * speed, noise)
        self._fed, self._chunk, self._taken = 0, FIRST_CHUNK, False
        self._count, self._why = 0, utterance.ended  # what has been seen of the utterance
        # nothing comes out before the lookahead
        self._wanted = float("inf") if stage.lookahead is None else FIRST_CHUNK + stage.lookahead

    def see(self) -> None:
        """Look at the utterance again; between steps of its engine only: within one, tokens are ahead of `ended`."""
        self._count, self._why = len(self.utterance.speech), self.utterance.ended

    def due(self, heard: bool, hurry: bool = False) -> bool:
        """Whether the next chunk can be taken. heard: something of the text has been, chunks grow from then on.
        hurry: a small one is enough, the listener runs dry.

        Call it when the chunk before has been made.
        """
        if self._taken:
            self._chunk = min(2 * self._chunk, LARGEST_CHUNK) if heard else self._chunk
            self._wanted, self._taken = self._chunk, False
        if self.ended is not None:
            return False
        wanted = min(self._wanted, FIRST_CHUNK) if hurry and self._fed else self._wanted
        return bool(self._pause) or self._why is not None or self._count - self._fed >= wanted

    @property
    def silent(self) -> bool:
        """Whether the next chunk is the silence before the sentence."""
        return bool(self._pause)

    def take(self, most: int | None = None) -> Callable[[], FloatArray]:
        """What makes the next chunk's samples float32 [T], at most this many tokens of them; `due` must be true."""
        if self._pause:
            silence, self._pause = self._pause, 0
            return lambda: np.zeros(silence, dtype=np.float32)
        ended = self._why
        left = self._count - self._fed
        tokens = self.utterance.tokens[self._fed : self._fed + (left if most is None else min(left, most))]
        self._fed += len(tokens)
        last = ended is not None and len(tokens) == left
        if last:
            self.ended = ended
        elif ended is None:
            self._taken = True
        return partial(_pushed, self._stream, torch.tensor(tokens, dtype=torch.int64, device="cpu"), last=last)


def in_one_go(voiced: Voiced) -> tuple[FloatArray, FloatArray]:
    """The silence before an utterance that has ended, and its speech: float32 [T] each."""
    voiced.see()
    silence, speech = [np.zeros(0, dtype=np.float32)], [np.zeros(0, dtype=np.float32)]
    while voiced.due(heard=True):
        into = silence if voiced.silent else speech
        into.append(voiced.take()())
    return np.concatenate(silence), np.concatenate(speech)


def warn_if_cut(utterance: Utterance) -> None:
    """Say so where a sentence did not end by itself."""
    if utterance.ended not in (None, "eos"):
        log.warning(
            "a sentence was cut off after %d tokens (%s): try another seed or a higher max_tokens",
            len(utterance.tokens),
            utterance.ended,
        )


def _pushed(stream: AcousticStream, tokens: Tensor, *, last: bool) -> FloatArray:
    samples = stream.push(tokens)
    return (torch.cat([samples, stream.finish()]) if last else samples).numpy()
