"""What audiolm-pytorch adds to the scores of attention: small networks of distances."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

import torch
from torch import Tensor, nn

from spear_spec.models.seen import Seen


class DistanceNet(nn.Module):
    """Numbers of a distance (or of several) to one number a head: `inputs` -> `heads`, SiLU between the layers."""

    def __init__(self, inputs: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        sizes = [inputs, *[width] * layers]
        parts: list[nn.Module] = []
        for one, two in zip(sizes, sizes[1:]):
            parts += [nn.Linear(one, two), nn.SiLU()]
        self.net = nn.Sequential(*parts, nn.Linear(width, heads))
        self._known: dict[Hashable, Tensor] = {}
        self._seen: list[Seen] = []

    def forward(self, x: Tensor) -> Tensor:
        """x [..., inputs] -> [..., heads]."""
        return self.net(x)

    def table(self, key: Hashable, inputs: Iterable[Tensor] | None = None) -> Tensor | None:
        """What `keep` has kept under this key, if the weights are what they were."""
        weights = list(self.parameters())
        if torch.is_grad_enabled() or not all(map(Seen.still, self._seen, weights)):
            self._known, self._seen = {}, []
        return self._known.get(key)

    def keep(self, key: Hashable, table: Tensor) -> Tensor:
        """Keep a table, but for one with gradients."""
        if not torch.is_grad_enabled():
            self._seen = self._seen or [Seen.of(weight) for weight in self.parameters()]
            self._known[key] = table
        return table
