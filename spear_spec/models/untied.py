"""What transformers share whose tokens enter by one table (`token_emb`) and leave by another (`to_logits`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Untied:
    """See `Target`."""

    token_emb: nn.Embedding
    to_logits: nn.Linear

    @property
    def device(self) -> torch.device:
        return self.to_logits.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.to_logits.weight.dtype

    @property
    def embedding(self) -> Tensor:
        """Vectors of the tokens and, last, of the start: [V + 1, D]. That of an end token is never read."""
        return self.token_emb.weight

    @property
    def head(self) -> Tensor:
        """The linear part of `logits` [V, D], which drafts share."""
        return self.to_logits.weight

    def shared(self) -> tuple[Tensor, ...]:
        """The weights that `embedding` and `head` are."""
        return (self.token_emb.weight, self.to_logits.weight)
