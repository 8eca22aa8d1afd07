"""Rows of a batch and what is scored for them: a lane with the text and, where there is guidance, one without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def guide(conditional: Tensor, unconditional: Tensor, scale: float | Tensor) -> Tensor:
    """Classifier-free guidance: null + (text - null) * scale (spear-tts-pytorch's `cond_scale`)."""
    return unconditional + (conditional - unconditional) * scale


@dataclass
class Lanes:
    """places: whose lane each is, by place in the batch; free: whether it runs without the text.

    A place has one lane with its text and at most one without. Lanes stand in any order: those of rows that join come
    behind all others.
    """

    places: list[int] = field(default_factory=list)
    free: list[bool] = field(default_factory=list)

    @classmethod
    def of(cls, guided: Sequence[bool]) -> Lanes:
        """Lanes of new rows: all texts, then those without text of the rows that are guided."""
        second = [place for place, both in enumerate(guided) if both]
        return cls([*range(len(guided)), *second], [False] * len(guided) + [True] * len(second))

    @property
    def plain(self) -> bool:
        """Whether lanes and places are the same."""
        return not any(self.free)

    @property
    def texts(self) -> list[int]:
        """The lane with the text, by place."""
        found = [0] * (len(self.places) - sum(self.free))
        for lane, (place, free) in enumerate(zip(self.places, self.free)):
            if not free:
                found[place] = lane
        return found

    @property
    def seconds(self) -> dict[int, int]:
        """The lane without text, by place, of the places that have one."""
        return {place: lane for lane, (place, free) in enumerate(zip(self.places, self.free)) if free}

    def spread(self, rows: Sequence[T]) -> list[T]:
        """What belongs to places, for each lane."""
        return [rows[place] for place in self.places]

    def expand(self, rows: Tensor) -> Tensor:
        """Rows [B, ...] by place, for each lane."""
        if self.plain:
            return rows
        return rows[torch.tensor(self.places, device=rows.device, dtype=torch.int64)]

    def mix(self, logits: Tensor, scales: Sequence[float]) -> Tensor:
        """Guided logits [B, ...] of logits by lane, with each row's own scale."""
        if self.plain:
            return logits
        seconds, texts = self.seconds, self.texts
        device = logits.device
        mixed = logits[torch.tensor(texts, device=device, dtype=torch.int64)]
        places = torch.tensor(list(seconds), device=device, dtype=torch.int64)
        null = logits[torch.tensor(list(seconds.values()), device=device, dtype=torch.int64)]
        scale = torch.tensor([scales[place] for place in seconds], dtype=logits.dtype, device=device)
        mixed[places] = guide(mixed[places], null, scale.view(-1, *[1] * (logits.ndim - 1)))
        return mixed

    def join(self, other: Lanes) -> Lanes:
        """These, and those of the rows that stand behind."""
        count = len(self.places) - sum(self.free)
        return Lanes([*self.places, *(place + count for place in other.places)], [*self.free, *other.free])

    def branch(self, places: Sequence[int]) -> list[int]:
        """These places go on, in any order and more than once; returns their lanes, texts first."""
        texts, seconds = self.texts, self.seconds
        second = [at for at, place in enumerate(places) if place in seconds]
        self.places = [*range(len(places)), *second]
        self.free = [False] * len(places) + [True] * len(second)
        return [*(texts[place] for place in places), *(seconds[places[at]] for at in second)]

    def leave(self, stay: Sequence[int]) -> list[int]:
        """Only these places go on; returns the lanes that stay, in order."""
        new = {place: at for at, place in enumerate(stay)}
        lanes = [lane for lane, place in enumerate(self.places) if place in new]
        self.free = [self.free[lane] for lane in lanes]
        self.places = [new[self.places[lane]] for lane in lanes]
        return lanes
