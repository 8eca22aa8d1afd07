"""What a draft's law is held against the target's by, position by position."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.training.data.utterances import IGNORE
from spear_spec.training.drafts.settings import DraftTraining

_TRUST = 3.0  # how soon "lk" leaves kl: its share is e^(-3 sum min(p, q)), .05 where the laws are equal
_TINY = 1e-6


class Judge:
    """The loss of one step, see `DraftTraining.loss`."""

    def __init__(self, law: Tensor, cfg: DraftTraining, progress: float) -> None:
        """law [N, V]: the target's logits; progress: share of the run that is over."""
        self.kind, self.law = cfg.loss, law
        self.temperature = cfg.temperature
        late = cfg.overlap_weight if progress > 0.5 else 0.0
        self.overlap = {"tv": 1.0, "mixed": late}.get(cfg.loss, 0.0)
        if self.kind in ("kl", "mixed"):
            self.plain = law.softmax(-1)
        if self.kind in ("ce_tv", "lk") or self.overlap:
            self.sharp = (law / cfg.temperature).softmax(-1)

    def each(self, rows: Tensor, logits: Tensor, following: Tensor) -> Tensor:
        """rows: which of the target's laws; the draft's logits [n, V] there, float32; the tokens that followed [n],
        IGNORE where none is known -> losses [n].
        """
        if self.kind == "ce":
            return F.cross_entropy(logits, following, ignore_index=IGNORE, reduction="none")
        if self.kind in ("ce_tv", "lk"):
            log_q = (logits / self.temperature).log_softmax(-1)
            p = self.sharp[rows]
            accepted = torch.minimum(p, log_q.exp()).sum(-1)
            if self.kind == "ce_tv":
                known = F.cross_entropy(logits, following, ignore_index=IGNORE, reduction="none")
                return 0.1 * known + 0.9 * (1 - accepted)
            share = torch.exp(-_TRUST * accepted.detach())
            return share * -(p * log_q).sum(-1) - (1 - share) * accepted.clamp_min(_TINY).log()
        loss = logits.new_zeros(len(logits))
        if self.overlap < 1:
            loss = (1 - self.overlap) * -(self.plain[rows] * logits.log_softmax(-1)).sum(-1)
        if self.overlap:
            accepted = torch.minimum(self.sharp[rows], (logits / self.temperature).softmax(-1)).sum(-1)
            loss = loss + self.overlap * 4 * (1 - accepted)
        return loss

    def accepted(self, rows: Tensor, logits: Tensor) -> Tensor:
        """The share [n] of the draft's tokens that would be accepted, sum min(p, q) at the run's temperature."""
        p = (self.law[rows] / self.temperature).softmax(-1)
        return torch.minimum(p, (logits / self.temperature).softmax(-1)).sum(-1).clamp(0, 1)


def followed(tokens: Tensor, valid: Tensor) -> Tensor:
    """The token behind each position [B, T], IGNORE where none is known."""
    known = F.pad(valid[:, 1:], (0, 1)) & valid
    return F.pad(tokens[:, 1:], (0, 1)).masked_fill(~known, IGNORE)
