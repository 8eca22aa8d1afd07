"""Rows begin on the device: text encoded, keys and values of it, all that a round knows of them. Also a function that a
graph can hold, so that the host does not wait when rows join others under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding.chance import uniforms
from spear_spec.decoding.rounds.draft_rows import DraftRows
from spear_spec.decoding.rounds.rows import POOL, Rows
from spear_spec.kernels import native
from spear_spec.models.memory import Memory
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.runtime.static import StaticRuntime

_SLOT, _SEED, _CAP, _TOP_K, _NUMBERS = range(5)  # columns of `numbers` behind the text
_TEMPERATURE, _TOP_P, _GUIDANCE, _REALS = range(4)  # columns of `reals` in front of the uniforms


@dataclass(frozen=True)
class Prefill:
    """Rows without prefix, B at a time, of texts of at most S ids. guided: whether any of them has a second lane.

    numbers int64 [B, S + 4], reals float64 [B, 3 + POOL]: what `pack` says of them. Where there are fewer rows, the
    first of them fills up; it is then written more than once, always the same. table: the encoder's rotations, held
    here: the target replaces them when it needs longer ones, for whomever, and what was captured goes on reading these.
    """

    runtime: StaticRuntime
    drafts: DraftRows | None
    rows: Rows
    numbers: Tensor
    reals: Tensor
    guided: bool
    table: Tensor

    def __call__(self) -> None:
        target, rows = self.runtime.target, self.rows
        assert isinstance(target, TextToSemantic)
        ids, about = self.numbers.split((self.numbers.shape[1] - _NUMBERS, _NUMBERS), 1)
        at = about[:, _SLOT].contiguous()
        mask = ids != 0
        hidden = target.encode_hidden(ids, mask)
        cross = [layer.cross_attn.keys_values(hidden) for layer in target.decoder]
        memory = Memory(hidden, mask, cross, None)
        width = 1 + self.runtime.pairs
        self.runtime.begin(memory, at * width)
        if self.guided:
            self.runtime.begin(Memory(hidden, torch.zeros_like(mask), cross, None), at * width + 1)
        if self.drafts is not None:
            self.drafts.begin(memory, at)
        whole = ((rows.seed, _SEED), (rows.cap, _CAP), (rows.how.top_k, _TOP_K))
        real = ((rows.how.temperature, _TEMPERATURE), (rows.how.top_p, _TOP_P), (rows.how.guidance, _GUIDANCE))
        for given, stores in ((about, whole), (self.reals, real)):
            for store, column in stores:
                store.index_copy_(0, at, given[:, column])
        rows.pool.index_copy_(0, at, self.reals[:, _REALS:])
        for store in (rows.kept, rows.drawn, rows.pooled, rows.fresh, rows.features):
            store.index_fill_(0, at, 0)
        rows.fresh[:, 0].index_fill_(0, at, target.start_id)
        rows.count.index_fill_(0, at, 1)
        rows.active.index_fill_(0, at, True)


def pack(
    texts: Sequence[Sequence[int]],
    slots: Sequence[int],
    seeds: Sequence[int],
    caps: Sequence[int],
    samplings: Sequence[SamplingConfig],
    batch: int,
    width: int,
) -> tuple[Tensor, Tensor]:
    """`numbers` and `reals` of these rows, on the host: batch is B, width S. texts: with their end token."""
    numbers, reals = [], []
    for text, slot, seed, cap, sampling in zip(texts, slots, seeds, caps, samplings, strict=True):
        bits = seed - 2**64 if seed >= 2**63 else seed  # 64 bits of a seed as they are
        numbers.append([*text, *[0] * (width - len(text)), slot, bits, cap, sampling.top_k])
        ahead = native.uniforms(seed, 0, POOL) if native.available() else uniforms(seed, 0, POOL).tolist()
        reals.append([sampling.temperature, sampling.top_p, sampling.guidance, *ahead])
    more = batch - len(numbers)
    return (
        torch.tensor(numbers + numbers[:1] * more, dtype=torch.int64),
        torch.tensor(reals + reals[:1] * more, dtype=torch.float64),
    )
