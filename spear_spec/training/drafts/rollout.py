"""What a draft says at every position of whole utterances at once, for each depth of the draft, as it would at run
time.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.models.drafts.block import BlockDecoder
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.medusa import MedusaHeads
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.ahead import run_ahead, shift
from spear_spec.training.drafts.blocks import block_logits
from spear_spec.training.drafts.observed import DraftBatch


def says(draft: nn.Module, model: TextToSemantic, batch: DraftBatch, steps: int) -> list[tuple[int, Tensor]]:
    """For each depth the first position that it can speak of, and logits [B, T, V] of the law of the token behind
    each position.

    A draft that is fed with nothing of its own (independent, or the head of an early exit) says the same at every
    depth: it has one. Medusa has one for each head, a block decoder one for each of its positions.
    """
    if isinstance(draft, MedusaHeads):
        rows, length, dim = batch.hidden.shape
        ahead = draft(batch.hidden.reshape(-1, dim)).view(-1, rows, length, dim)
        return [(k, shift(model.logits(x), k)) for k, x in enumerate(ahead, 1)]
    if isinstance(draft, BlockDecoder):
        return block_logits(draft, model, batch)
    assert isinstance(draft, DraftDecoder)
    alone = not draft.cfg.target_layers or draft.cfg.feed == "same"
    return list(enumerate(roll_out(draft, model, batch, 1 if alone else steps)))


def roll_out(draft: DraftDecoder, model: TextToSemantic, batch: DraftBatch, steps: int) -> list[Tensor]:
    """Logits [B, T, V] of each roll-out step, all positions at once.

    Step s (0 is the first) at position i is what the draft says after running s tokens on its own. Positions below s
    have no such run.
    """
    cfg, feature = draft.cfg, None
    if cfg.target_layers:
        feature = draft.fuse_target([batch.layer(number) for number in cfg.target_layers])
        feature = feature if cfg.feed == "same" else shift(feature)
    cross_mask = F.pad(batch.memory_mask, (1, 0), value=True)[:, None, None]
    runs = run_ahead(draft, model.embed(batch.tokens), feature, batch.memory, cross_mask, steps)
    return [draft.logits(model, shift(x, step)) for step, x in enumerate(runs)]
