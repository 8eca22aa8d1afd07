"""A block decoder in training: passes behind many positions of whole utterances at once, and their loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.models.drafts.block import BlockDecoder
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.ahead import shift
from spear_spec.training.data.utterances import IGNORE
from spear_spec.training.drafts.losses import Judge
from spear_spec.training.drafts.observed import DraftBatch
from spear_spec.training.drafts.settings import DraftTraining
from spear_spec.training.precision import mixed

_SURE = 0.1  # weight of the chances' loss


class SeeBlocks:
    """How self-attention looks in one layer: queries [B, H, S x K, D] of the blocks behind S positions, on the
    contexts' keys and values [B, H, T, D] and on those of their own block.
    """

    def __init__(self, keys: Tensor, values: Tensor, hidden: Tensor) -> None:
        """hidden [S, T]: contexts that the blocks behind each start do not see."""
        self.keys, self.values, self.hidden = keys, values, hidden

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        starts = len(self.hidden)
        blocks = [x.unflatten(2, (starts, -1)) for x in (q * q.shape[-1] ** -0.5, k, v)]
        q, k, v = blocks
        past = torch.einsum("bhskd,bhtd->bhskt", q, self.keys).masked_fill(self.hidden[:, None], -1e4)
        weights = torch.cat((past, q @ k.transpose(-1, -2)), -1).softmax(-1).to(v.dtype)
        length = self.keys.shape[2]
        seen = torch.einsum("bhskt,bhtd->bhskd", weights[..., :length], self.values) + weights[..., length:] @ v
        return seen.flatten(2, 3)


def run_blocks(draft: BlockDecoder, model: TextToSemantic, batch: DraftBatch, starts: Tensor) -> Tensor:
    """What leaves the layers [B, S, K, D] of the blocks behind the tokens at these positions [S]."""
    cfg = draft.cfg
    features = shift(draft.fuse_target([batch.layer(number) for number in cfg.target_layers]))
    contexts = draft.contexts(model.embed(batch.tokens), features)
    length, count = contexts.shape[1], len(starts)
    table = draft.rotary(length + cfg.block)
    ahead = torch.arange(1, cfg.block + 1, device=starts.device)
    turns = table[(starts[:, None] + ahead).flatten()]
    place = torch.arange(length, device=starts.device)
    hidden = (place > starts[:, None]) | (place <= starts[:, None] - cfg.window)
    cross_mask = F.pad(batch.memory_mask, (1, 0), value=True)[:, None, None]
    x = (contexts[:, starts, None] + draft.positions).flatten(1, 2)
    for layer in draft.layers:
        _, keys, values = layer.self_attn.project(contexts, table[:length])
        cross = layer.cross_attn.keys_values(batch.memory)
        x = layer(x, turns, None, cross, cross_mask, past=SeeBlocks(keys, values, hidden))
    return x.unflatten(1, (count, cfg.block))


def block_logits(draft: BlockDecoder, model: TextToSemantic, batch: DraftBatch) -> list[tuple[int, Tensor]]:
    """For each position of a block the first token that it can speak of, and logits [B, T, V] of the law of the token
    behind each position.
    """
    length = batch.tokens.shape[1]
    hidden = run_blocks(draft, model, batch, torch.arange(length, device=batch.tokens.device))
    out = []
    for k in range(draft.cfg.block):
        own = shift(hidden[:, :, k], k)
        out.append((k, draft.logits(model, own) + draft.follow(own, batch.tokens)))
    return out


def block_pass(
    draft: BlockDecoder, model: TextToSemantic, batch: DraftBatch, starts: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All that the blocks behind these positions say of tokens that there are: logits [N, V], logits [N] of the chance
    of being accepted, the number [N] of the law that each is held against among the batch's valid positions, and the
    position in its block (0 is the first) [N].
    """
    hidden = run_blocks(draft, model, batch, starts)
    rows, length = batch.tokens.shape
    at = starts[:, None] + torch.arange(draft.cfg.block, device=starts.device)  # [S, K]: laws of the token behind it
    inside = at.clamp(max=length - 1)
    keep = batch.valid[:, inside] & (at < length)
    numbers = (batch.valid.flatten().cumsum(0) - 1).view(rows, length)[:, inside]
    kept, before = hidden[keep], batch.tokens[:, inside][keep]
    normed = draft.norm(kept)
    logits = draft.logits(model, kept) + draft.follow(kept, before)
    depth = torch.arange(draft.cfg.block, device=starts.device).expand_as(keep)[keep]
    return logits, draft.sure(normed)[:, 0], numbers[keep], depth


def block_loss(
    draft: BlockDecoder,
    model: TextToSemantic,
    batch: DraftBatch,
    judge: Judge,
    following: Tensor,
    cfg: DraftTraining,
    step: int,
) -> Tensor:
    """The loss of the blocks behind every `stride`-th position, from another first one each step: the judge's at each
    position, weighted by `rollout_decay` to the power of its depth, and the cross-entropy of the chances against the
    share sum min(p, q) that would be accepted.

    following [N]: the token behind each valid position of the batch, or IGNORE.
    """
    starts = torch.arange(step % cfg.stride, batch.tokens.shape[1], cfg.stride, device=batch.tokens.device)
    with mixed(model.device):
        logits, sure, numbers, depth = block_pass(draft, model, batch, starts)
    logits, after = logits.float(), following[numbers]
    weight = cfg.rollout_decay**depth
    if cfg.loss == "ce":
        weight = weight * (after != IGNORE)
    loss = (weight * judge.each(numbers, logits, after)).sum() / weight.sum().clamp_min(1)
    with torch.no_grad():
        accepted = judge.accepted(numbers, logits)
    return loss + _SURE * F.binary_cross_entropy_with_logits(sure.float(), accepted)
