"""How likely a text is, given semantic tokens: by a back-translator, and by the CTC that is trained beside it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from spear_spec.decoding.request import encode
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.data.ctc import UPSAMPLE, PhonemeCTC


@torch.no_grad()
def likelihood(model: TextToSemantic, texts: Sequence[Sequence[int]], written: Sequence[Sequence[int]]) -> list[float]:
    """Mean log-probability of each row's tokens and of the end token behind them, given its text (ids without end)."""
    memory = encode(model, texts)
    width = max(map(len, written)) + 1
    rows = [[model.start_id, *row, *[model.eos_id] * (width - 1 - len(row))] for row in written]
    law = model(torch.tensor(rows), memory).logits.float().log_softmax(-1)
    out = []
    for row, scores in zip(written, law):
        target = torch.tensor([*row, model.eos_id])
        out.append(float(scores[: len(target)].gather(-1, target[:, None]).mean()))
    return out


@torch.no_grad()
def ctc_likelihood(model: PhonemeCTC, tokens: Tensor, phonemes: str) -> float:
    """Log-probability of the phones given tokens [T] by the CTC, for each phone; minus infinity where they cannot be
    written in so many tokens.
    """
    wanted = model.encode(phonemes)
    if not len(wanted) or not len(tokens):
        return float("-inf")
    law = model.eval()(tokens.long()[None]).transpose(0, 1)
    sizes = torch.tensor([UPSAMPLE * len(tokens)]), torch.tensor([len(wanted)])
    return -float(F.ctc_loss(law, wanted[None], *sizes, reduction="sum")) / len(wanted)
