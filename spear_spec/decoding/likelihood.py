"""How likely a target finds tokens that were spoken."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from spear_spec.decoding.request import encode
from spear_spec.decoding.session import exact_math
from spear_spec.errors import NumericsError
from spear_spec.models.contract import Target


def mean_log_probability(target: Target, ids: Sequence[int], tokens: Sequence[int]) -> float:
    """The mean over `tokens` (those of an `Utterance`, its end token included) of log p(token | text, those before) in
    nats, by the target's own law: no guidance, temperature or filter. Without tokens -inf.

    One forward of the whole sequence without a cache, whoever drafted: a function of the tokens alone.

    Raises:
        TextError: ids that the target does not know. NumericsError: NaN.
    """
    if not tokens:
        return float("-inf")
    memory = encode(target, [ids])
    with exact_math(target):
        read = torch.tensor([[target.start_id, *tokens[:-1]]], dtype=torch.int64, device=target.device)
        logits = target(read, memory).logits[0]
        wide = logits if logits.dtype == torch.float64 else logits.float()
        kept = torch.tensor(tokens, dtype=torch.int64, device=target.device)[:, None]
        mean = float(torch.log_softmax(wide, -1).gather(-1, kept).double().mean())
    if mean != mean:
        raise NumericsError
    return mean
