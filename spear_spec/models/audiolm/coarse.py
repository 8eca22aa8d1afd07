"""audiolm-pytorch's coarse transformer: semantic tokens in, the first codes of the sound out; a `Target`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.models.audiolm.relative import DistanceNet
from spear_spec.models.audiolm.writer import Writer, WriterConfig


@dataclass(frozen=True, kw_only=True)
class CoarseConfig(WriterConfig):
    """Its shape; see `WriterConfig`.

    semantic: tokens of its prefix. unique: tokens that repeat are read once, as the package's wrapper does unless it
    is told otherwise (`unique_consecutive`).
    """

    semantic: int
    unique: bool = True


class CoarseTransformer(Writer):
    """`text_ids` of a request are semantic tokens; the tokens of a prompt stand before them, and its coarse tokens in
    the request's prefix. The end token may come instead of a frame, but not instead of the first.
    """

    def __init__(self, cfg: CoarseConfig) -> None:
        super().__init__(cfg, cfg.semantic)
        self.cfg = cfg
        self.prefix_emb = nn.Embedding(cfg.semantic, cfg.width)
        if cfg.relative_bias:
            self.cross_bias_of = nn.Parameter(torch.zeros(cfg.heads))
            self.distances = DistanceNet(1, cfg.width // 2, cfg.heads, 3)

    def text(self, ids: Sequence[int]) -> list[int]:
        """See `Writer.text`; repeated tokens once, where the shape says so."""
        ids = super().text(ids)
        return [i for i, _ in groupby(ids)] if self.cfg.unique else ids

    def enter_prefix(self, ids: Tensor) -> Tensor:
        return F.embedding((ids - 1).clamp_min(0), self.prefix_emb.weight)

    def prefix_bias(self, length: int, counts: Tensor) -> Tensor:
        here = torch.arange(length, device=counts.device)
        return self.own_bias(here, here, counts)

    def cross_bias(self, here: Tensor, length: int, counts: Tensor) -> Tensor:
        if not self.cfg.relative_bias:
            return self._none(1, length)
        return self.cross_bias_of[None, :, None, None].expand(-1, -1, -1, length)

    def own_bias(self, here: Tensor, there: Tensor, counts: Tensor) -> Tensor:
        if not self.cfg.relative_bias:
            return self._none(here.shape[-1], there.shape[-1])
        distance = (here[..., :, None] - there[..., None, :]).clamp_min(0)  # later ones are masked
        found = self._table(there.shape[-1])[:, distance].unflatten(0, (1, -1))
        return found if distance.ndim == 2 else found[0].transpose(0, 1)

    def _table(self, count: int) -> Tensor:
        """Of at least so many distances, from 0: [H, distances]."""
        known = self.distances.table("all")
        if known is not None and known.shape[1] >= count:
            return known
        steps = torch.arange(max(2 * count, 256), device=self.device, dtype=self.dtype)
        return self.distances.keep("all", self.distances(steps[:, None]).t().contiguous())

    def _none(self, length: int, keys: int) -> Tensor:
        return self.prefix_start.new_zeros(1, 1, length, keys).expand(-1, self.heads, -1, -1)
