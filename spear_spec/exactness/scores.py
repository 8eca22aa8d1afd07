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
from spear_spec.exactness.uniformity import ALPHA, FEWEST, UNIFORM_CHECKS, never_check, pairs_check, uniform_checks

# Laws may differ at the edges of their filters by this share.
_EDGE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 0.03, torch.bfloat16: 0.2}


class Scores:
    """Transformed tokens u in [0, 1) of each utterance, under each order of the vocabulary."""

    def __init__(self, sampling: SamplingConfig, generator: torch.Generator) -> None:
        self.sampling, self.generator = sampling, generator
        self.count = 0
        self._parts: dict[str, list[NDArray[np.float64]]] = {}
        self._excluded: list[NDArray[np.bool_]] = []
        self._filtered = sampling.top_p < 1 or sampling.top_k > 0

    def add(self, reference: Reference, tokens: list[int], q: Tensor | None = None) -> None:
        """One whole utterance; q [T, V]: what its drafter said before each token, where the reference does not know."""
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
            self._parts.setdefault(name, []).append(u.numpy())
        if self._filtered:
            self._excluded.append(_excluded(logits, p, self.sampling, reference.model.dtype, at))
        self.count += len(tokens)

    def checks(self, wanted: int) -> list[dict[str, Any]]:
        """Rows of verify/1, not yet adjusted, from the first `wanted` tokens: a fixed number, so that when generation
        stopped tells nothing."""
        level = ALPHA / (
            UNIFORM_CHECKS * len(self._parts) + 3
        )  # what Holm leaves to one of the checks of the whole run
        checks = []
        for name, parts in self._parts.items():
            checks += uniform_checks(name, np.concatenate(parts)[:wanted], level)
        first, second = self._beside(wanted)
        if len(first) >= FEWEST // 2:
            checks.append(pairs_check("by token: utterances", first, second, level))
        if self._filtered:
            checks.append(
                never_check("outside the filters", int(np.concatenate(self._excluded)[:wanted].sum()), wanted)
            )
        return checks

    def _beside(self, wanted: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Tokens at the same place of two utterances of one text, decoded beside or soon after each other (random
        streams that are shared or start again make the two the same)."""
        parts = self._parts["by token"]
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
