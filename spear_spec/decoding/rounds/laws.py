"""Logits to laws with settings that are tensors: fixed shapes, nothing read back. Else `sampling.probabilities`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.runtime.lanes import guide


@dataclass(frozen=True)
class Settings:
    """The sampling of each row: temperature, top_p and guidance float64 [R], top_k int64 [R]."""

    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    guidance: Tensor

    @classmethod
    def of(cls, samplings: Sequence[SamplingConfig], device: torch.device | str = "cpu") -> Settings:
        """Settings of these rows."""

        def line(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64, device=device)

        return cls(
            line([s.temperature for s in samplings]),
            torch.tensor([s.top_k for s in samplings], dtype=torch.int64, device=device),
            line([s.top_p for s in samplings]),
            line([s.guidance for s in samplings]),
        )

    @classmethod
    def empty(cls, rows: int, device: torch.device | str) -> Settings:
        """Settings of rows that nobody has; every law is the softmax."""
        plain = SamplingConfig(temperature=1.0, top_p=1.0)
        return cls.of([plain] * rows, device)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.temperature, self.top_k, self.top_p, self.guidance)

    def first(self, rows: int) -> Settings:
        """Of the first rows, the same memory."""
        return Settings(*(tensor[:rows] for tensor in self.tensors))


def filters(sampling: SamplingConfig) -> bool:
    """Whether top-k or top-p can take anything away, so that a law has to be sorted."""
    return sampling.temperature > 0 and (sampling.top_k > 0 or sampling.top_p < 1)


def laws(logits: Tensor, how: Settings, *, filtered: bool = True) -> tuple[Tensor, Tensor]:
    """The law that each token is drawn from: temperature, then top-k, then top-p, with each row's own settings.

    As `probabilities` to 1e-6, ties and crossing token included; running sums in float64, as C makes them.

    Args:
        logits: [R, ..., V]. filtered: False promises that no row's `filters` do anything: nothing is sorted.

    Returns:
        laws [R, ..., V], float64 where logits are, else float32; fine [R, ...] bool, False where a logit is NaN or
        infinite: that law means nothing, and whoever reads it must say so later.
    """
    x = logits if logits.dtype == torch.float64 else logits.float()
    fine = x.isfinite().all(-1)

    def by_row(values: Tensor) -> Tensor:
        return values.view(-1, *[1] * (x.ndim - 1))

    temperature, greedy = by_row(how.temperature).to(x.dtype), by_row(how.temperature == 0)
    best = x.argmax(-1, keepdim=True)
    warm = (x - x.gather(-1, best)) / temperature.masked_fill(greedy, 1.0)  # in this order it cannot overflow upwards
    law = torch.softmax(warm, -1)
    if filtered:
        law = law * (law >= _threshold(law, by_row(how.top_k), by_row(how.top_p)))
        law = law / law.sum(-1, keepdim=True)
    place = torch.arange(x.shape[-1], device=x.device)
    return torch.where(greedy, (place == best).to(law.dtype), law), fine


def _threshold(law: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """The smallest probability that survives, [..., 1]; top_k, top_p [R, 1, ...]: see `sampling._threshold`.

    Top-p is of the mass that top-k leaves, ties with the last of the k not counted. What is off keeps everything: all
    V tokens, and a mass of which no running sum falls short.
    """
    size = law.shape[-1]
    values = law.sort(-1, descending=True).values
    most = torch.where(top_k > 0, top_k, size).clamp(max=size)
    sums = values.cumsum(-1, dtype=torch.float64)
    mass = torch.where(top_k > 0, sums.gather(-1, (most - 1).expand(*law.shape[:-1], 1)), 1.0) * top_p
    before = torch.where(top_p < 1, (sums <= mass).sum(-1, keepdim=True), size)
    return values.gather(-1, torch.minimum(before, most - 1))


def mixed(logits: Tensor, guidance: Tensor) -> Tensor:
    """Guided logits [R, ..., V] of logits [R, 2, ..., V], with the text and without; a row of guidance 1 keeps its own,
    whatever its other lane holds: `Lanes.mix`.
    """
    text, null = logits.unbind(1)
    scale = guidance.to(logits.dtype).view(-1, *[1] * (text.ndim - 1))
    return torch.where(scale == 1, text, guide(text, null, scale))
