"""Logits to laws with settings that are tensors: fixed shapes, nothing read back. Else `sampling.probabilities`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding.verifiers.tensors import categorical
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


FROZEN = 1e-37  # temperatures up to here are 0: in float32 they would be, or nearly


class Kinds(NamedTuple):
    """Which settings any of some rows has: what none of them has costs no operations."""

    top_k: bool = True
    top_p: bool = True
    greedy: bool = True

    @classmethod
    def of(cls, samplings: Sequence[SamplingConfig]) -> Kinds:
        """Of these rows; at temperature 0 there is nothing to filter."""
        warm = [sampling for sampling in samplings if sampling.temperature > FROZEN]
        return cls(
            any(sampling.top_k > 0 for sampling in warm),
            any(sampling.top_p < 1 for sampling in warm),
            len(warm) < len(samplings),
        )


class Law:
    """Logits to the law that each token is drawn from: temperature, then top-k, then top-p, by each row's own settings.

    As `probabilities` to 1e-6, ties and crossing token included; running sums in float64, as C makes them. Made once a
    round, so that what depends on the settings alone is computed once.
    """

    def __init__(self, how: Settings, vocabulary: int, dtype: torch.dtype, kinds: Kinds = Kinds()) -> None:  # noqa: B008
        """dtype: of the laws, float32 or float64. kinds: what it does not have, no row of `how` may have."""
        self.kinds, self.dtype = kinds, dtype
        self._place = torch.arange(vocabulary, device=how.temperature.device)
        self._greedy = how.temperature <= FROZEN
        self._temperature = how.temperature.masked_fill(self._greedy, 1.0).to(dtype)
        self._some = how.top_k > 0
        self._last = torch.where(self._some, how.top_k, vocabulary).clamp(max=vocabulary) - 1  # of the k, from 0
        self._mass = how.top_p.masked_fill(how.top_p >= 1, 2.0)  # no sum comes near it

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """logits [R, ..., V] -> laws [R, ..., V], and [R, ...] a number that is finite only where all logits are: a law
        of others means nothing, and whoever reads it must say so later.
        """
        x = logits.to(self.dtype)
        top, best = x.max(-1, keepdim=True)
        warm = (x - top) / self._by_row(self._temperature, x)  # in this order it cannot overflow upwards
        law = torch.softmax(warm, -1)
        if self.kinds.top_k or self.kinds.top_p:
            law = law * (law >= self._threshold(law))
            law = law / law.sum(-1, keepdim=True)
        if self.kinds.greedy:
            law = torch.where(self._by_row(self._greedy, x), (self._place == best).to(law.dtype), law)
        return law, x.sum(-1)

    def draw(self, logits: Tensor, uniforms: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """The law of logits [R, V], the token int64 [R] that number `number` of each row's uniforms float64 [R, N]
        draws from it, and the number that tells whether it is any.
        """
        law, total = self(logits)
        return law, categorical(law, uniforms[:, number]), total

    def _by_row(self, values: Tensor, like: Tensor) -> Tensor:
        return values.view(-1, *[1] * (like.ndim - 1))

    def _threshold(self, law: Tensor) -> Tensor:
        """The smallest probability that survives, [..., 1]: see `sampling._threshold`.

        Top-p is of the mass that top-k leaves, ties with the last of the k not counted. What is off keeps everything.
        """
        values = law.sort(-1, descending=True).values
        sums = values.cumsum(-1, dtype=torch.float64)
        mass = self._by_row(self._mass, law)
        if not self.kinds.top_k:
            before = (sums <= mass).sum(-1, keepdim=True)
            return values.gather(-1, before.clamp_(max=law.shape[-1] - 1))
        last = self._by_row(self._last, law).expand(*law.shape[:-1], 1)
        mass = torch.where(self._by_row(self._some, law), sums.gather(-1, last) * mass, mass)
        before = (sums <= mass).sum(-1, keepdim=True)
        return values.gather(-1, torch.minimum(before, last))


def mixed(logits: Tensor, guidance: Tensor) -> Tensor:
    """Guided logits [R, ..., V] of logits [R, 2, ..., V], with the text and without; a row of guidance 1 keeps its own,
    whatever its other lane holds: `Lanes.mix`.
    """
    text, null = logits.unbind(1)
    scale = guidance.to(logits.dtype).view(-1, *[1] * (text.ndim - 1))
    return torch.where(scale == 1, text, guide(text, null, scale))
