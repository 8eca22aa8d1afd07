"""Batches of utterances for the text-to-semantic transformer, and what of them is hidden from it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
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


def batches(
    data: Sequence[Utterance],
    cfg: T2STraining,
    start_id: int,
    eos_id: int,
    space: int,
    rng: random.Random,
    *,
    clock: Clock,
) -> Iterator[Batch]:
    """Endless batches of about batch_tokens, similar lengths together, some clips joined to longer ones."""
    limit = int(cfg.join_seconds * clock.token_rate)
    while True:
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
        groups = group_by_length(pool, lambda u: len(u.tokens) + 1, cfg.batch_tokens)
        rng.shuffle(groups)
        for group in groups:
            yield collate(group, start_id, eos_id)


def history_mask(batch: Batch, cfg: T2STraining, progress: float) -> Tensor:
    """Which of the decoder's inputs are hidden; the start token never is."""
    size = batch.tokens.shape[0]
    top = cfg.history_max_late if progress > 0.8 else cfg.history_max
    share = torch.rand(size, 1) * top
    if progress <= 0.8:
        share = torch.where(torch.rand(size, 1) < cfg.history_all, torch.ones(()), share)
    masked = torch.rand(batch.tokens.shape) < share
    masked[:, 0] = False
    return masked
