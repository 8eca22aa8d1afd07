"""audiolm-pytorch's fine transformer: coarse tokens in, the remaining codes of each frame out; a `Target`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.errors import TextError
from spear_spec.models.audiolm.relative import DistanceNet
from spear_spec.models.audiolm.writer import Writer, WriterConfig


@dataclass(frozen=True, kw_only=True)
class FineConfig(WriterConfig):
    """Its shape; see `WriterConfig`. coarse: quantizers that it reads."""

    coarse: int


class FineTransformer(Writer):
    """`text_ids` of a request are the coarse target's tokens, whole frames of them: quantizer q's code c is
    q * codebook + c. It never ends by itself: a request's cap is its frames times `quantizers`.

    A code depends on those before it in its frame, so a frame takes as many steps as it has quantizers.

    What is added to a score depends on how far two tokens lie apart in frames and in quantizers, and (a trait of the
    package) on how many frames there are in all: it numbers the distances from the largest negative one.
    """

    ends = False

    def __init__(self, cfg: FineConfig) -> None:
        super().__init__(cfg, cfg.coarse * cfg.codebook)
        self.cfg = cfg
        self.prefix_emb = nn.Embedding(cfg.coarse * cfg.codebook, cfg.width)
        if cfg.relative_bias:
            self.start_bias = nn.Parameter(torch.zeros(cfg.heads))
            self.distances = DistanceNet(2, cfg.width // 2, cfg.heads, 2)

    def text(self, ids: Sequence[int]) -> list[int]:
        """See `Writer.text`.

        Raises:
            TextError: also where it is no whole frames, or a token of another quantizer than its place's.
        """
        cfg = self.cfg
        if len(ids) % cfg.coarse or any(i // cfg.codebook != place % cfg.coarse for place, i in enumerate(ids)):
            raise TextError(f"coarse tokens must be whole frames of {cfg.coarse} quantizers, in their order")
        return super().text(ids)

    def enter_prefix(self, ids: Tensor) -> Tensor:
        return F.embedding((ids - 1).clamp_min(0), self.prefix_emb.weight)

    def prefix_bias(self, length: int, counts: Tensor) -> Tensor:
        read = self._read(length, counts)
        return self._bias_of(read, read, counts)

    def cross_bias(self, here: Tensor, length: int, counts: Tensor) -> Tensor:
        return self._bias_of(self._written(here), self._read(length, counts), counts)

    def own_bias(self, here: Tensor, there: Tensor, counts: Tensor) -> Tensor:
        return self._bias_of(self._written(here), self._written(there), counts)

    def _read(self, length: int, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Frame (-1: the start) and quantizer of each place of the prefix."""
        place = torch.arange(length, device=counts.device) - 1
        return self._frames(place, self.cfg.coarse, 0)

    def _written(self, here: Tensor) -> tuple[Tensor, Tensor]:
        return self._frames(here - 1, self.cfg.quantizers, self.cfg.coarse)

    @staticmethod
    def _frames(place: Tensor, quantizers: int, first: int) -> tuple[Tensor, Tensor]:
        return torch.where(place < 0, -1, place // quantizers), torch.where(place < 0, 0, place % quantizers + first)

    def _bias_of(self, queries: tuple[Tensor, Tensor], keys: tuple[Tensor, Tensor], counts: Tensor) -> Tensor:
        """[1 or B, H, T, K]."""
        cfg = self.cfg
        (frame, quantizer), (other, another) = queries, keys
        apart = frame.clamp_min(0)[..., :, None] - other.clamp_min(0)[..., None, :]
        across = quantizer[..., :, None] - another[..., None, :]
        if not cfg.relative_bias:
            return self.prefix_start.new_zeros(1, 1, *apart.shape[-2:]).expand(-1, self.heads, -1, -1)
        starts = (frame < 0)[..., :, None] | (other < 0)[..., None, :]
        kinds = cfg.coarse + cfg.quantizers
        frames = [max((count - 1) // cfg.coarse, 1) for count in counts.tolist()]
        if len(set(frames)) == 1:
            frames = frames[:1]
        batch = max(len(frames), len(apart) if apart.ndim == 3 else 1)
        apart, across, starts = (x.expand(batch, *x.shape[-2:]) for x in (apart, across, starts))
        found = []
        for row in range(batch):
            count = frames[row if len(frames) > 1 else 0]
            beyond = apart[row].clamp(1 - count, count - 1)  # drafts and padding that a cap cuts off may lie there
            index = (beyond + count - 1) * (2 * kinds - 1) + across[row] + kinds - 1
            found.append(self._table(count)[index])
        bias = torch.stack(found).permute(0, 3, 1, 2)
        return torch.where(starts[:, None], self.start_bias[None, :, None, None], bias)

    def _table(self, frames: int) -> Tensor:
        """Of all distances of so many frames: [(2 frames - 1) (2 kinds - 1), H]."""
        known = self.distances.table(frames)
        if known is not None:
            return known
        kinds = self.cfg.coarse + self.cfg.quantizers
        steps, across = (torch.arange(2 * n - 1, device=self.device, dtype=self.dtype) for n in (frames, kinds))
        return self.distances.keep(frames, self.distances(torch.cartesian_prod(steps, across)))
