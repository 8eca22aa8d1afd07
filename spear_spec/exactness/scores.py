"""Generated tokens against the target's law: a randomised probability integral transform under several orders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding.sampling import probabilities
from spear_spec.exactness.reference import Reference
from spear_spec.exactness.uniformity import (
    ALPHA,
    FEWEST,
    UNIFORM_CHECKS,
    never_check,
    pairs_check,
    shift_check,
    uniform_checks,
)

TRIES = "by token: tries"
MORE_CHECKS = 6  # of utterances that want to be whole
# Laws may differ at the edges of their filters by this share.
_EDGE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.2}


class Scores:
    """Transformed tokens u in [0, 1) of each utterance, under each order of the vocabulary."""

    def __init__(self, sampling: SamplingConfig, generator: torch.Generator, whole: bool = False) -> None:
        """whole: utterances are drawn again where they leave out words, and every try is scored."""
        self.sampling, self.generator, self._whole = sampling, generator, whole
        self.count = 0
        self._parts: dict[str, list[NDArray[np.float64]]] = {}
        self._excluded: list[NDArray[np.bool_]] = []
        self._firsts: list[int] = []  # parts that are the first of their utterance
        self._again: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
        self._before: tuple[int, int, NDArray[np.float64]] | None = None
        self._filtered = sampling.top_p < 1 or sampling.top_k > 0

    def add(
        self, reference: Reference, tokens: list[int], q: Tensor | None = None, begun: int = 0, number: int = 0
    ) -> NDArray[np.float64]:
        """One whole utterance; q [T, V]: what its drafter said before each token, where the reference does not know.

        begun: so many of the tokens were there before and are not scored again, as this is another try of the utterance
        before, drawn with its stream of this number. Returns the laws [T, V] of the tokens.
        """
        logits, known = reference.logits(tokens)
        q = known if q is None else q
        p = probabilities(logits, self.sampling).double().cpu()
        orders = {"by probability": -p}
        if q is not None:
            # what the target excludes stands at the end; it carries no mass, so its place changes nothing
            orders["by draft/target"] = torch.where(p > 0, q.double().cpu() / p, torch.inf)
        orders["by token"] = torch.arange(p.shape[1], dtype=torch.float64).expand_as(p)
        at = torch.tensor(tokens)[:, None]
        v = torch.rand(len(tokens), generator=self.generator, dtype=torch.float64)
        for name, key in orders.items():
            order = key.argsort(dim=-1, stable=True)
            mass = p.gather(-1, order)
            place = (order == at).double().argmax(-1, keepdim=True)
            before = (mass.cumsum(-1) - mass).gather(-1, place)[:, 0]
            u = (before + v * p.gather(-1, at)[:, 0]).clamp(0, 1 - 1e-12)
            self._parts.setdefault(name, []).append(u.numpy()[begun:])
        if self._filtered:
            self._excluded.append(_excluded(logits, p, self.sampling, reference.model.dtype, at)[begun:])
        self.count += len(tokens) - begun
        self._beside_the_try_before(begun, number)
        return np.asarray(p.numpy())

    def _beside_the_try_before(self, begun: int, number: int) -> None:
        """Note tokens at the same places of this try and of the one before it, of the same utterance; that one failed,
        so its values need not be uniform.
        """
        part = self._parts["by token"]
        if not number and not begun:
            self._firsts.append(len(part) - 1)
        elif self._before is not None and number != self._before[0]:
            earlier, values = self._before[1:]
            first = max(earlier, begun)
            one, other = values[first - earlier :], part[-1][first - begun :]
            both = min(len(one), len(other))
            if both > 0:
                self._again.append((one[:both], other[:both]))
        self._before = (number, begun, part[-1])

    @property
    def level(self) -> float:
        """What Holm leaves to one of the checks of the whole run."""
        return ALPHA / (UNIFORM_CHECKS * len(self._parts) + 3 + (MORE_CHECKS if self._whole else 0))

    def checks(self, wanted: int) -> list[dict[str, Any]]:
        """Rows of verify/1, not yet adjusted, from the first `wanted` tokens: a fixed number, so that when generation
        stopped tells nothing."""
        level = self.level
        checks = []
        for name, parts in self._parts.items():
            checks += uniform_checks(name, np.concatenate(parts)[:wanted], level)
        first, second = self._beside(wanted)
        if len(first) >= FEWEST // 2:
            checks.append(pairs_check("by token: utterances", first, second, level))
        if self._again:
            first, second = (np.concatenate(side)[: wanted // 4] for side in zip(*self._again))
            if len(first) >= FEWEST // 2:
                checks.append(shift_check(TRIES, first, second, level))
        if self._filtered:
            checks.append(
                never_check("outside the filters", int(np.concatenate(self._excluded)[:wanted].sum()), wanted)
            )
        return checks

    def _beside(self, wanted: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Tokens at the same place of two utterances of one text, decoded beside or soon after each other (random
        streams that are shared or start again make the two the same)."""
        parts = [self._parts["by token"][at] for at in self._firsts]
        twins = [pair for at in range(0, len(parts), 4) for pair in zip(parts[at : at + 2], parts[at + 2 : at + 4])]
        shared = [(one[: len(other)], other[: len(one)]) for one, other in twins]
        if not shared:
            return np.zeros(0), np.zeros(0)
        first, second = (np.concatenate(side)[: wanted // 4] for side in zip(*shared))
        return first, second


def _excluded(logits: Tensor, p: Tensor, sampling: SamplingConfig, dtype: torch.dtype, at: Tensor) -> NDArray[np.bool_]:
    """Which tokens at [T, 1] the filters exclude, by more than rounding can move their edge."""
    edge = _EDGE.get(dtype, 1e-3)
    full = probabilities(logits, replace(sampling, top_k=0, top_p=1.0)).double().cpu()
    wider = probabilities(logits, replace(sampling, top_p=min(1.0, sampling.top_p + edge))).double().cpu()
    least = torch.where(wider > 0, full, torch.inf).amin(-1)
    return ((p.gather(-1, at)[:, 0] == 0) & (full.gather(-1, at)[:, 0] < (1 - edge) * least)).numpy()
