"""Batches of utterances for the text-to-semantic transformer, and what of them is hidden from it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spear_spec.config import Clock
from spear_spec.training.data.utterances import IGNORE, Utterance, group_by_length, join, round_up
from spear_spec.training.t2s.settings import T2STraining


@dataclass
class Batch:
    """Padded utterances: text, text_mask [B, S]; tokens [B, T], the decoder's input, start first; target [B, T], IGNORE
    where padded; align [B, T], IGNORE where unknown.
    """

    text: Tensor
    text_mask: Tensor
    tokens: Tensor
    target: Tensor
    align: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(*(tensor.to(device) for tensor in vars(self).values()))

    def spoken(self, eos_id: int) -> Tensor:
        """[B, T] True where a token is to be predicted at a known position of the text."""
        return (self.align != IGNORE) & (self.target != eos_id) & (self.target != IGNORE)


def collate(items: Sequence[Utterance], start_id: int, eos_id: int) -> Batch:
    """These utterances as one batch, on the CPU."""
    size = len(items)
    s = round_up(max(len(u.text) for u in items))
    t = round_up(max(len(u.tokens) for u in items) + 1)
    text = torch.zeros(size, s, dtype=torch.long)
    tokens = torch.full((size, t), eos_id)
    target, align = torch.full((size, t), IGNORE), torch.full((size, t), IGNORE)
    for i, u in enumerate(items):
        n = len(u.tokens)
        text[i, : len(u.text)] = torch.tensor(u.text)
        tokens[i, 0] = start_id
        tokens[i, 1 : n + 1] = torch.from_numpy(u.tokens)
        target[i, :n] = tokens[i, 1 : n + 1]
        target[i, n] = eos_id
        if u.align is not None:
            align[i, : n + 1] = torch.from_numpy(u.align)
    return Batch(text, text != 0, tokens, target, align)


def groups(
    data: Sequence[Utterance], cfg: T2STraining, space: int, rng: random.Random, *, clock: Clock
) -> list[list[Utterance]]:
    """One epoch: groups of about batch_tokens, similar lengths together, some clips joined to longer ones."""
    limit = int(cfg.join_seconds * clock.token_rate)
    order = list(data)
    rng.shuffle(order)
    pool: list[Utterance] = []
    joined_tokens, all_tokens = 0, 0
    by_speaker: dict[str, list[Utterance]] = {}
    for u in order:
        all_tokens += len(u.tokens)
        if joined_tokens >= cfg.join_share * all_tokens:
            pool.append(u)
            continue
        parts = by_speaker.setdefault(u.speaker, [])
        if sum(len(p.tokens) for p in parts) + len(u.tokens) > limit and parts:
            pool.append(join(parts, space))
            by_speaker[u.speaker] = parts = []
        joined_tokens += len(u.tokens)
        parts.append(u)
    pool.extend(join(parts, space) for parts in by_speaker.values() if parts)
    pool.sort(key=lambda u: len(u.tokens) + rng.uniform(0, 24))
    out = group_by_length(pool, lambda u: len(u.tokens) + 1, cfg.batch_tokens)
    rng.shuffle(out)
    return out


def history_mask(batch: Batch, cfg: T2STraining, progress: float, chance: torch.Generator) -> Tensor:
    """Which of the decoder's inputs are hidden; the start token never is."""
    size = batch.tokens.shape[0]
    top = cfg.history_max_late if progress > 0.8 else cfg.history_max
    share = torch.rand(size, 1, generator=chance) * top
    if progress <= 0.8:
        whole = torch.rand(size, 1, generator=chance) < cfg.history_all
        share = torch.where(whole, torch.ones(()), share)
    masked = torch.rand(batch.tokens.shape, generator=chance) < share
    masked[:, 0] = False
    return masked


@dataclass
class Share:
    """What one process takes of a batch: its rows, the masks of these (see `Trainee.forward`), and the numbers of
    targets, of known positions and of spoken ones in the whole batch (None: the rows are the whole batch).
    """

    batch: Batch
    masked: Tensor
    no_text: Tensor
    counts: tuple[int, int, int] | None = None

    def of(self, rank: int, processes: int, eos_id: int) -> Share:
        """The rows rank, rank + processes, ...; where there are none, one of which nothing is counted."""
        if processes == 1:
            return self
        align = self.batch.align.masked_fill(self.no_text[:, None], IGNORE)
        counts = (
            int((self.batch.target != IGNORE).sum()),
            int((align != IGNORE).sum()),
            int(self.batch.spoken(eos_id).sum()),
        )
        rows = slice(rank, None, processes) if rank < len(self.masked) else slice(0, 1)
        batch = Batch(*(tensor[rows].clone() for tensor in vars(self.batch).values()))
        if rank >= len(self.masked):
            batch.target.fill_(IGNORE)
            batch.align.fill_(IGNORE)
        return Share(batch, self.masked[rows], self.no_text[rows], counts)

    def to(self, device: torch.device) -> Share:
        """The same on a device."""
        return Share(self.batch.to(device), self.masked.to(device), self.no_text.to(device), self.counts)
