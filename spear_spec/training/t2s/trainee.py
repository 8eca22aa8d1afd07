"""The transformer with what only training needs, its losses, and what it is judged by on held-out speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.attention import seeing
from spear_spec.training.data.utterances import IGNORE, Utterance
from spear_spec.training.precision import mixed
from spear_spec.training.t2s.batches import Batch, collate


@dataclass
class View:
    """What further losses (joint.py) see of the target's pass over a batch.

    target [B, T]: the token that position i predicts, negative where there is none. feature [B, T, D] leaves the last
    layer, hidden [B, T, D] the norm behind it; memory [B, S, D] and cross_mask [B, 1, 1, S + 1] as cross-attention
    takes them; embedded [B, T, D]: the true tokens' vectors, none of them hidden; table [V, D]: the tied embedding.
    """

    target: Tensor
    feature: Tensor
    hidden: Tensor
    memory: Tensor
    cross_mask: Tensor
    embedded: Tensor
    table: Tensor

    def detach(self) -> View:
        """The same values; no gradient goes back through them."""
        return View(*(getattr(self, f.name).detach() for f in fields(self)))


Ahead = Callable[[View], dict[str, Tensor]]


def mean_loss(logits: Tensor, goal: Tensor, count: int | None = None) -> Tensor:
    """Cross-entropy of logits [N, C] on goal [N], IGNORE left out: its sum over `count`, by default the number of
    goals. There may be none, since a batch can hold no text at all: 0 then, not NaN.
    """
    total = F.cross_entropy(logits, goal, ignore_index=IGNORE, reduction="sum")
    return total / ((goal != IGNORE).sum().clamp(min=1) if count is None else max(1, count))


class Watched:
    """Cross-attention under a bias, whose first heads' raw scores are pulled to the text position spoken (an `Attend`).

    goal [B, T]: that position, IGNORE where unknown; text_mask [B, S]. `term` is the loss that it leaves.
    """

    def __init__(self, bias: Tensor, heads: int, goal: Tensor, text_mask: Tensor, count: int | None = None) -> None:
        """count: of known positions, by which the sum is divided; None: those of `goal`."""
        self.look, self.heads, self.goal, self.text_mask, self.count = seeing(bias), heads, goal, text_mask, count
        self.term = bias.new_zeros(())

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q[:, : self.heads] @ k[:, : self.heads, 1:].transpose(-1, -2) * q.shape[-1] ** -0.5
        scores = scores.float().masked_fill(~self.text_mask[:, None, None], -1e4)
        goal = self.goal[:, None].expand(-1, self.heads, -1)
        known = None if self.count is None else self.heads * self.count
        self.term = mean_loss(scores.flatten(0, 2), goal.flatten(), known)
        return self.look(q, k, v)


class Trainee(nn.Module):
    """The model with what only training needs: the history mask vector and the encoder's auxiliary head."""

    def __init__(self, model: TextToSemantic) -> None:
        super().__init__()
        self.model = model
        # never zero: the norm of a zero vector has no gradient
        self.history = nn.Parameter(torch.randn(model.cfg.dim) * model.cfg.dim**-0.5)
        self.auxiliary = nn.Linear(model.cfg.dim, model.cfg.num_semantic_token_ids)

    def forward(
        self,
        batch: Batch,
        masked: Tensor | None,
        no_text: Tensor | None,
        align: tuple[tuple[int, ...], int] | None,
        ahead: Ahead | None = None,
        counts: tuple[int, int, int] | None = None,
    ) -> dict[str, Tensor]:
        """The losses of a batch.

        masked [B, T] True where the decoder's input is hidden; no_text [B] True where the text is; align: layers,
        heads; ahead: further losses (see joint.py); counts: what the sums are divided by where the batch is a share of
        a larger one (see `batches.Share`).
        """
        m = self.model
        targets, known, voiced = counts or (None, None, None)
        hidden = m.encode_hidden(batch.text, batch.text_mask)
        open_text = batch.text_mask if no_text is None else batch.text_mask & ~no_text[:, None]
        cross_mask = F.pad(open_text, (1, 0), value=True)
        x = m.embed(batch.tokens)
        if masked is not None:
            x = torch.where(masked[..., None], self.history.to(x.dtype), x)
        table = m.rotary(x.shape[1])[: x.shape[1]]
        dtype = torch.bfloat16 if torch.is_autocast_enabled(x.device.type) else x.dtype
        bias = torch.zeros(cross_mask.shape, dtype=dtype, device=x.device)
        bias = bias.masked_fill(~cross_mask, -1e4)[:, None, None]
        losses: dict[str, Tensor] = {}
        goal = batch.align if no_text is None else batch.align.masked_fill(no_text[:, None], IGNORE)
        watched = () if align is None else align[0]
        for index, layer in enumerate(m.decoder):
            look = None
            if align is not None and index in watched:
                look = Watched(bias, align[1], goal, batch.text_mask, known)
            cross = layer.cross_attn.keys_values(hidden)
            x = layer(x, table, None, cross, bias, causal=True, text=look)
            if look is not None:
                losses["align"] = losses.get("align", 0) + look.term / len(watched)
        # No position is picked out by a mask: how many there are would have to be waited for on a GPU.
        target = batch.target.flatten()
        last = m.decoder_norm(x)
        logits = m.logits(last.flatten(0, 1)).float()
        losses["nll"] = mean_loss(logits, target, targets)
        losses["accuracy"] = ((logits.argmax(-1) == target).sum() / (target != IGNORE).sum().clamp(min=1)).detach()
        if align is not None:
            spoken = batch.spoken(m.eos_id)
            place = batch.align.clamp(min=0)[..., None].expand(-1, -1, hidden.shape[-1])
            said = self.auxiliary(hidden.gather(1, place)).float().flatten(0, 1)
            goal = batch.target.masked_fill(~spoken, IGNORE).flatten()
            losses["auxiliary"] = mean_loss(said, goal, voiced)
        if ahead is not None:
            losses |= ahead(View(batch.target, x, last, hidden, bias, m.embed(batch.tokens), m.semantic_emb.weight))
        return losses


@torch.no_grad()
def evaluate(trainee: Trainee, held_out: Sequence[Utterance], ahead: Ahead | None = None) -> dict[str, float]:
    """Held-out NLL and accuracy without history masking, the text gap (other sentence of the same voice), and
    further losses.
    """
    trainee.eval()
    model = trainee.model
    total: dict[str, float] = {}
    count = 0
    for i in range(0, len(held_out), 20):
        group = held_out[i : i + 20]
        batch = collate(group, model.start_id, model.eos_id).to(model.device)
        n = int((batch.target != IGNORE).sum())
        with mixed(model.device):
            right = trainee(batch, None, None, None, ahead)
        batch.text, batch.text_mask = batch.text.roll(2, 0), batch.text_mask.roll(2, 0)
        with mixed(model.device):
            wrong = trainee(batch, None, None, None)
        for key, value in {**right, "wrong": wrong["nll"]}.items():
            total[key] = total.get(key, 0.0) + n * value.item()
        count += n
    trainee.train()
    out = {k: v / count for k, v in total.items()}
    gap = out.pop("wrong") - out["nll"]
    return {"nll": out.pop("nll"), "accuracy": out.pop("accuracy"), "gap": gap, **out}
