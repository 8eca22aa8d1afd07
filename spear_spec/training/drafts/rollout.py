"""What a draft says at every position of whole utterances at once, for each depth of the draft, as it would at run
time.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.medusa import MedusaHeads
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.attention import rotate
from spear_spec.training.drafts.observed import DraftBatch, shift


def says(draft: nn.Module, model: TextToSemantic, batch: DraftBatch, steps: int) -> list[tuple[int, Tensor]]:
    """For each depth the first position that it can speak of, and logits [B, T, V] of the law of the token behind
    each position.

    A draft that is fed with nothing of its own (independent, or the head of an early exit) says the same at every
    depth:
    it has one. Medusa has one for each head.
    """
    if isinstance(draft, MedusaHeads):
        rows, length, dim = batch.hidden.shape
        ahead = draft(batch.hidden.reshape(-1, dim)).view(-1, rows, length, dim)
        return [(k, shift(model.logits(x), k)) for k, x in enumerate(ahead, 1)]
    assert isinstance(draft, DraftDecoder)
    alone = not draft.cfg.target_layers or draft.cfg.feed == "same"
    return list(enumerate(roll_out(draft, model, batch, 1 if alone else steps)))


def roll_out(draft: DraftDecoder, model: TextToSemantic, batch: DraftBatch, steps: int) -> list[Tensor]:
    """Logits [B, T, V] of each roll-out step, all positions at once.

    Step s at position i is what the draft says after running s - 1 tokens on its own: it sees true-feature keys up to
    position i - s + 1 (with `window` that one alone) and, between there and i, the keys of its earlier steps.
    """
    embedded, cfg = model.embed(batch.tokens), draft.cfg
    feature = None
    if cfg.target_layers:
        feature = draft.fuse_target([batch.layer(number) for number in cfg.target_layers])
        feature = feature if cfg.feed == "same" else shift(feature)
    cross_mask = F.pad(batch.memory_mask, (1, 0), value=True)[:, None, None]
    length = batch.tokens.shape[1]
    table = draft.rotary(length)[:length]
    at = torch.arange(length)
    crosses = [layer.cross_attn.keys_values(batch.memory) for layer in draft.layers]  # type: ignore[union-attr, operator]
    first: list[tuple[Tensor, Tensor]] = []  # true-feature keys and values of each layer
    later: list[list[tuple[Tensor, Tensor]]] = [[] for _ in draft.layers]  # those of steps 2, 3, ...
    out = []
    for step in range(steps):
        x = draft.enter_vectors(embedded, feature)
        for index, layer in enumerate(draft.layers):
            attn = layer.self_attn
            heads, dim = int(attn.heads), int(attn.dim_head)  # type: ignore[arg-type, union-attr]
            qkv = attn.to_qkv(attn.norm(x)).view(*x.shape[:2], 3 * heads, dim)  # type: ignore[arg-type, operator, union-attr]
            turned = rotate(qkv[:, :, : 2 * heads], table)
            q, k, v = (y.transpose(1, 2) for y in (turned[:, :, :heads], turned[:, :, heads:], qkv[:, :, 2 * heads :]))
            if step == 0:
                first.append((k, v))
            else:
                later[index].append((k, v))
            q = q * dim**-0.5  # type: ignore[operator]
            hidden_from = at[None, :] > at[:, None] - step
            if cfg.window:
                hidden_from = hidden_from | (at[None, :] < at[:, None] - step)
            scores = (q @ first[index][0].transpose(-1, -2)).masked_fill(hidden_from, -1e4)
            own = later[index]
            extra = []
            for back, (key, _) in enumerate(reversed(own)):  # the key of this step, of the one before at i - 1, ...
                column = (q * F.pad(key, (0, 0, back, -back) if back else (0, 0, 0, 0))).sum(-1, keepdim=True)
                extra.append(column.masked_fill((at < back)[:, None], -1e4))
            weights = torch.cat([scores, *extra], -1).softmax(-1).to(v.dtype)
            mixed = weights[..., :length] @ first[index][1]
            for back, (_, value) in enumerate(reversed(own)):
                column = weights[..., length + back : length + back + 1]
                mixed = mixed + column * (F.pad(value, (0, 0, back, -back)) if back else value)
            x = x + attn.to_out(mixed.transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))  # type: ignore[operator, union-attr]
            x = x + layer.cross_attn(x, *crosses[index], cross_mask)  # type: ignore[operator]
            x = x + layer.ff(x)  # type: ignore[operator]
        out.append(draft.logits(model, x))
        feature = shift(x)
    return out
