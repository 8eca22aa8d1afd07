"""A round: every row drafts, the target scores all drafts in one call, the rule settles them, rows go on or end.

One function of tensors in fixed memory: nothing is read back, no shape depends on a value, nothing is made of lists. So
a CUDA graph can hold it, and on a CPU it is the same function that is called.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.decoding.rounds.draft import Fresh, StaticDraft
from spear_spec.decoding.rounds.fused import ops
from spear_spec.decoding.rounds.laws import Kinds, Law, mixed
from spear_spec.decoding.rounds.rows import CAP, EOS, Rows, longest_draw
from spear_spec.decoding.verifiers.base import SettlingVerifier
from spear_spec.decoding.verifiers.tensors import Settled, at, uniforms_for
from spear_spec.models.memory import DecoderOutput
from spear_spec.runtime.static import StaticStep


@dataclass(frozen=True)
class Round:
    """The round of the first rows. draft None: the autoregressive loop's, one token a row; gamma is 0 then. It may be
    less than the rows have room for.

    kinds: of sampling that its rows have. fused: laws, draws and verification as one kernel each, where there is one.
    """

    rows: Rows
    step: StaticStep
    draft: StaticDraft | None
    rule: SettlingVerifier | None
    gamma: int
    eos: int
    kinds: Kinds
    fused: bool = False

    def __call__(self) -> None:
        """Run it. Rows that are not active keep all they have; what is written of them lies behind what counts, or
        where a row that has left reaches beyond this view, in what was its own.
        """
        rows, step, gamma = self.rows, self.step, self.gamma
        active = rows.active
        width = rows.fresh.shape[1]  # of the longest draft, which the last round's may have been
        base = rows.kept.clamp(max=step.cache.room - width)  # tokens that the target has read
        room = rows.cap - rows.kept
        uniforms = rows.ahead(longest_draw(gamma))
        ids, drafted, q, fine = at(rows.fresh, rows.count - 1)[:, None], torch.zeros_like(base), None, active
        made = ops.FusedLaw if self.fused else Law
        law_of = made(
            rows.how, step.target.vocab_size, torch.promote_types(step.target.dtype, torch.float32), self.kinds
        )
        if self.draft is not None:
            # the call itself adds one token, so a draft that reaches the cap would be thrown away
            limits = (room - 1).clamp(0, gamma).masked_fill(~active, 0)
            before = (base + 1 - rows.count).clamp(min=0)  # tokens that the draft has read
            fresh = Fresh(rows.fresh, rows.count, rows.features, before)
            drawn = self.draft.draw(fresh, limits, uniforms, gamma, law_of)
            ids, drafted, q, fine = torch.cat((ids, drawn.tokens), 1), drawn.counts, drawn.laws, drawn.fine
        output = step.score(ids, base)
        logits = output.logits
        if step.lanes > 1:
            logits = mixed(logits.unflatten(0, (-1, step.lanes)), rows.how.guidance)
        if self.rule is None:  # what the law was is of no interest
            _, token, sums = law_of.draw(logits[:, 0], uniforms, 0)
            self._append(Settled(token[:, None], drafted, torch.ones_like(drafted)), drafted, room, sums.isfinite())
            return
        p, sums = law_of(logits)
        place = torch.arange(gamma + 1, device=ids.device)
        fine = fine & (sums.isfinite() | (place > drafted[:, None])).all(1)
        settled = self._settle(ids[:, 1:], drafted, q, p, uniforms)
        self._feed(output)
        self._append(settled, drafted, room, fine)

    @property
    def shares(self) -> bool:
        """Whether drafts are drawn with the rule's own numbers, see `Verifier`."""
        return bool(getattr(self.rule, "shares", False))

    def _settle(self, tokens: Tensor, counts: Tensor, q: Tensor | None, p: Tensor, uniforms: Tensor) -> Settled:
        assert self.rule is not None
        if self.fused and q is not None and ops.settles(self.rule):
            return ops.settle(self.rule, tokens, counts, q, p, uniforms, shares=self.shares)
        if self.shares:
            return self.rule.settle(tokens, counts, q, p, uniforms)
        own = counts[:, None] + torch.arange(uniforms_for(self.gamma), device=counts.device)
        settled = self.rule.settle(tokens, counts, q, p, uniforms.gather(1, own))
        return settled._replace(used=settled.used + counts)

    def _append(self, settled: Settled, drafted: Tensor, room: Tensor, fine: Tensor) -> None:
        """Cut at an end token or the cap, go on from there, and say what was kept."""
        rows, active, tokens = self.rows, self.rows.active, settled.tokens
        before = ((tokens == self.eos).long().cumsum(1) == 0).sum(1)  # tokens in front of the first end token
        count = torch.minimum(settled.accepted, before) + 1  # no more than there is room: drafts are shorter
        place = torch.arange(tokens.shape[1], device=tokens.device)
        tokens = tokens.masked_fill(place >= count[:, None], -1)
        eos = at(tokens, (count - 1).clamp(min=0)) == self.eos
        ended = eos.long() * EOS + (~eos & (count >= room)).long() * CAP
        accepted = torch.minimum(settled.accepted, count)
        told = torch.stack((count, accepted, drafted, ended, fine.long()), 1)
        tokens = F.pad(tokens, (0, rows.fresh.shape[1] - tokens.shape[1]), value=-1)
        rows.told.copy_(torch.cat((told, tokens), 1).masked_fill(~active[:, None], 0))
        rows.fresh.copy_(torch.where(active[:, None], tokens.clamp(min=0), rows.fresh))
        rows.count.copy_(torch.where(active, count, rows.count))
        rows.kept.add_(count.masked_fill(~active, 0))
        rows.drawn.add_(settled.used.masked_fill(~active, 0))
        rows.active.logical_and_((ended == 0) & fine)

    def _feed(self, output: DecoderOutput) -> None:
        """The target's features at the positions that predicted what is fresh now; what is behind means nothing."""
        if self.draft is None or not self.step.features:
            return
        texts = [layer.unflatten(0, (-1, self.step.lanes))[:, 0] for layer in output.features]
        fed = self.rows.features[:, : self.gamma + 1]
        fed.copy_(torch.where(self.rows.active[:, None, None], self.draft.fuse(texts), fed))
