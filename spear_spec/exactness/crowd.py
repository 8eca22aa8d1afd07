"""Utterances to score, out of a running batch that is as restless as a server's."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle

from spear_spec.config import SamplingConfig
from spear_spec.decoding import Request
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.decoding.request import Whole
from spear_spec.engine import Decoder, Utterance

_STRANGERS = 0.2  # share of rows that are not scored
_WAIT = 0.3  # chance that a free place stays free for another step
_CANCELLED = 0.05  # a step, of a stranger


def crowd(
    decoder: Decoder,
    sentences: list[list[int]],
    *,
    batch: int,
    seed: int,
    cap: int | None,
    whole: Callable[[Sequence[int]], Whole] | None = None,
) -> Iterator[Utterance]:
    """Utterances that have ended, without end, in the order in which they were admitted: when one ended tells nothing.
    whole: what is wanted of their words.

    Texts come as a b a b c d c d ..., so that in a batch stand texts of several lengths and the same text twice (see
    `Scores`). With a batch of two or more, texts are admitted at random steps, and among them are strangers, which are
    not scored: rows of another sampling, many of which are cancelled on the way. Whether they do so is drawn without
    looking at any token.
    """
    luck = random.Random(seed)
    once = cycle(sentences)
    endless = (text for one, two in zip(once, once) for text in (one, two, one, two))
    engine = decoder.engine()
    scored: deque[Utterance] = deque()
    strangers: list[Utterance] = []
    number = 0
    while True:
        requests: list[tuple[Request, bool]] = []
        for _ in range(batch - sum(u.ended is None for u in (*scored, *strangers))):
            if batch > 1 and engine.running and luck.random() < _WAIT:
                continue
            strange = batch > 1 and luck.random() < _STRANGERS
            sampling = _other(decoder.sampling, luck) if strange else decoder.sampling
            text = luck.choice(sentences) if strange else next(endless)
            wanted = None if whole is None else whole(text)
            seed_of_it = derive(seed, number, SENTENCE)
            requests.append((Request(text, seed=seed_of_it, sampling=sampling, cap=cap, whole=wanted), strange))
            number += 1
        for (_, strange), utterance in zip(requests, engine.admit([request for request, _ in requests])):
            (strangers if strange else scored).append(utterance)
        gone = [u for u in strangers if u.ended is None and luck.random() < _CANCELLED]
        engine.release(gone)
        strangers = [u for u in strangers if u.ended is None]
        if engine.running:
            engine.step()
        while scored and scored[0].ended is not None:
            yield scored.popleft()


def _other(sampling: SamplingConfig, luck: random.Random) -> SamplingConfig:
    """Another sampling, guided or not as this one is: a text-free lane more would tell nothing."""
    return replace(sampling, temperature=luck.choice((0.0, 0.4, 1.3)), top_k=luck.choice((0, 3)), top_p=1.0)
