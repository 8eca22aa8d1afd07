"""Tables of speakers, for a model that goes on from one of other speakers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rows_for(table: Tensor, theirs: Sequence[str], ours: Sequence[str]) -> Tensor:
    """Rows [len(ours), D] out of the table [len(theirs), D]: who is known by name keeps their row, a new speaker begins
    as the mean of the known.
    """
    known, mean = list(theirs), table.mean(0)
    return torch.stack([table[known.index(name)] if name in known else mean for name in ours])
