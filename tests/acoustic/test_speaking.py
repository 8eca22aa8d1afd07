"""Tokens on their way to the stage while another thread decodes."""

from __future__ import annotations

import torch
from torch import Tensor

from spear_spec.acoustic.speaking import Voiced
from spear_spec.decoding import Request
from spear_spec.decoding.proposal import DecodeStats
from spear_spec.engine import Utterance
from spear_spec.text import Segment

END = 9


class Recorder:
    """A stage that writes down what it is given."""

    module, lookahead, sample_rate = None, 0, 25

    def __init__(self) -> None:
        self.pushed: list[int] = []

    def open(self, voice: str, rate: float = 1.0, generator: torch.Generator | None = None) -> Recorder:
        return self

    def push(self, tokens: Tensor) -> Tensor:
        self.pushed += tokens.tolist()
        return torch.zeros(len(tokens))

    def finish(self) -> Tensor:
        return torch.zeros(0)


def test_an_end_token_that_is_not_told_yet_is_not_spoken() -> None:
    """A step appends the end token a moment before it says that the utterance has ended; the thread that makes sound
    may look in between."""
    stage = Recorder()
    utterance = Utterance(Request([1]), 0, [1, 2, 3, 4, 5, 6, 7, 8, 1, END], DecodeStats())
    voiced = Voiced(stage, Segment("a", [1]), utterance, "x", torch.Generator())
    assert voiced.due(False)
    voiced.take(64, beside=True)()
    utterance.ended = "eos"
    while voiced.due(True):
        voiced.take(64, beside=True)()
    assert stage.pushed == [1, 2, 3, 4, 5, 6, 7, 8, 1]
    assert voiced.ended == "eos"
