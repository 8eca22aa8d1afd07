"""A whole round of decoding in C (`round.c`): draft chain, score, law, verdict."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.errors import ContractError
from spear_spec.kernels import native
from spear_spec.kernels.draft import NativeDraft
from spear_spec.kernels.judge import RULES
from spear_spec.kernels.past import Pointers
from spear_spec.kernels.pointers import pointer
from spear_spec.kernels.step import NativeStack
from spear_spec.kernels.structures import CRound
from spear_spec.nn.cache import KVCache

_FLOAT = torch.float32
_OWN = ("tokens", "drafted", "accepted", "last", "used")  # what C writes, by row


@dataclass(frozen=True)
class Past:
    """What a decoder has read: its cache, the text's k, v [B, H, S, dim_head] of each layer and their mask
    [B, 1, 1, S], rotations complex [positions, dim_head / 2].
    """

    cache: KVCache
    cross: list[tuple[Tensor, Tensor]]
    mask: Tensor | None
    angles: Tensor


@dataclass(frozen=True)
class Reading:
    """What a draft is to read and to write: at most limits[b] tokens behind the fresh ones of row b, which it has not
    read. features: of the positions that predicted these, [B, T, D] each, or none.
    """

    limits: Sequence[int]
    fresh: Sequence[Sequence[int]]
    features: Sequence[Tensor]
    past: Past


@dataclass(frozen=True)
class Round:
    """By row: drafts, how much of them is kept, the recovered or bonus token, uniforms used. hidden [B, n, D], logits
    [B, n, V] and features as of `NativeStep.run`, where n is one more than the longest draft.
    """

    drafts: list[list[int]]
    accepted: list[int]
    last: list[int]
    used: list[int]
    hidden: Tensor
    logits: Tensor
    features: list[Tensor]


class NativeRound:
    """Rounds of one stack, with a draft or without. Holds what C writes to: one session's."""

    def __init__(self, stack: NativeStack, draft: NativeDraft | None = None, rule: str = RULES[0]) -> None:
        """rule: one of `RULES` but "coupled", whose draft is drawn with the rule's own numbers."""
        self._stack, self._draft = stack, draft
        self._run = native.library().spear_round
        self._round = round_ = CRound(target=ctypes.pointer(stack.struct), rule=RULES.index(rule))
        self._held: dict[str, object] = {}
        self._shape = (0, 0)
        self._samplings: Sequence[SamplingConfig] = ()
        if draft is not None:
            draft.enter_round(round_)

    def run(
        self,
        newest: Sequence[int],
        samplings: Sequence[SamplingConfig],
        uniforms: Sequence[Sequence[float]],
        eos: int,
        past: Past,
        features: Sequence[int] = (),
        reading: Reading | None = None,
    ) -> Round:
        """One round behind each row's newest token; writes keys and values, does not advance the caches, which must
        have room for what is read and for the longest draft.

        samplings: one a row, another list where they are others. uniforms [B][2 longest limit + 1]: the rows' next
        ones. features: layers whose output is kept (1 is the first).

        Raises:
            ContractError: a list of another length, a tensor of another shape, dtype or device, no room, an unknown
                token. NumericsError: NaN or infinity.
        """
        stack, round_ = self._stack, self._round
        batch, steps = len(newest), 0 if reading is None else max(reading.limits)
        if len(uniforms) != batch or any(len(line) != 2 * steps + 1 for line in uniforms):
            raise ContractError(f"rounds of {steps} draft tokens need {2 * steps + 1} uniforms of each of {batch} rows")
        if self._shape != (batch, steps):
            self._shape = (batch, steps)
            sizes = (max(batch * steps, 1), batch, batch, batch, batch)
            self._set(**{name: (c_int64 * size)() for name, size in zip(_OWN, sizes)})
            round_.batch, round_.steps = batch, steps
        if self._samplings is not samplings:
            how, round_.how_step = native.samplings(samplings, batch)
            self._set(how=how)
            self._samplings = samplings
        if reading is not None:
            self._read(reading, batch, steps)
        most = steps + 1
        sizes_of = (stack.depth, stack.heads, stack.kv_heads, stack.dim_head)
        own = Pointers.of(past.cache).past(past.cache, past.cross, past.mask, past.angles, sizes_of, batch, most)
        widths = [stack.vocabulary, stack.dim, *[stack.dim] * len(features)]
        room = torch.empty(batch * most * sum(widths), dtype=_FLOAT, device="cpu")
        places, at = [], 0
        for width in widths:
            places.append(at)
            at += batch * most * width
        start = room.data_ptr()
        kept = (c_void_p * stack.depth)()
        for layer, place in zip(features, places[2:], strict=True):
            kept[layer - 1] = start + 4 * place
        round_.logits, round_.hidden = start, start + 4 * places[1]
        round_.threads, round_.eos = torch.get_num_threads(), eos
        self._set(
            past=ctypes.pointer(own),
            kept=kept,
            newest=(c_int64 * batch)(*newest),
            uniforms=(c_double * (batch * (2 * steps + 1)))(*[u for line in uniforms for u in line]),
        )
        native.check(self._run(round_), "a round")
        count = round_.longest + 1
        logits, hidden, *layers = [
            room.as_strided((batch, count, width), (count * width, width, 1), place)
            for width, place in zip(widths, places)
        ]
        tokens, drafted, accepted, last, used = (self._held[name][:] for name in _OWN)  # type: ignore[index]
        drafts = [tokens[row * steps : row * steps + drafted[row]] for row in range(batch)]
        return Round(drafts, accepted, last, used, hidden, logits, layers)

    def _read(self, reading: Reading, batch: int, steps: int) -> None:
        """What belongs to the draft."""
        round_, draft, past = self._round, self._draft, reading.past
        counts = [len(row) for row in reading.fresh]
        longest = max(counts)
        if draft is None or len(reading.limits) != batch or len(counts) != batch or not min(counts):
            raise ContractError("a draft reads at least one token of every row, each with a limit")
        read = Pointers.of(past.cache).past(
            past.cache, past.cross, past.mask, past.angles, draft.sizes, batch, longest + steps
        )
        padded = [token for row in reading.fresh for token in (*row, *[0] * (longest - len(row)))]
        places = None
        if reading.features:
            first = reading.features[0]
            draft.check_features(reading.features, longest)
            held = [x.contiguous() for x in reading.features]
            places = (c_void_p * len(held))(*[pointer(x, first.shape, _FLOAT, "features") for x in held])
            self._held["features of the target"] = held
            round_.parts, round_.length = len(held), first.shape[1]
        round_.count = longest
        self._set(
            limits=(c_int64 * batch)(*reading.limits),
            fresh=(c_int64 * (batch * longest))(*padded),
            counts=(c_int64 * batch)(*counts),
            features=places,
            read=ctypes.pointer(read),
            reached=read.lengths,
        )

    def _set(self, **fields: object) -> None:
        """Fields of the structure, which must live until C has returned."""
        for name, value in fields.items():
            setattr(self._round, name, value)
        self._held.update(fields)
