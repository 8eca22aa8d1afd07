"""A whole round of decoding in C (`round.c`): draft chain, score, law, verdict."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_int64, c_void_p
from dataclasses import dataclass
from typing import Any

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
from spear_spec.kernels.structures import CPast, CRound
from spear_spec.nn.cache import KVCache

_FLOAT = torch.float32
_ROWS = ("newest", "limits", "counts", "drafted", "accepted", "last", "used")  # a number for each row


@dataclass(slots=True)
class Past:
    """What a decoder has read: its cache, the text's k, v [B, H, S, dim_head] of each layer and their mask
    [B, 1, 1, S], rotations complex [positions, dim_head / 2].
    """

    cache: KVCache
    cross: list[tuple[Tensor, Tensor]]
    mask: Tensor | None
    angles: Tensor


@dataclass(slots=True)
class Reading:
    """What a draft is to read and to write: at most limits[b] tokens behind the fresh ones of row b, which it has not
    read. features: of the positions that predicted these, [B, T, D] each, or the round that made them, or None.
    """

    limits: Sequence[int]
    fresh: Sequence[Sequence[int]]
    features: Sequence[Tensor] | Round | None
    past: Past


@dataclass(slots=True)
class Round:
    """By row: drafts, how much of them is kept, the recovered or bonus token, uniforms used.

    room: logits [B, n, V], hidden [B, n, D] and features [B, n, D] as of `NativeStep.run`, where n is one more than the
    longest draft; each begins at its place and is as wide.
    """

    drafts: list[list[int]]
    accepted: list[int]
    last: list[int]
    used: list[int]
    room: Tensor
    places: list[int]
    widths: list[int]
    batch: int
    count: int

    def tensors(self) -> list[Tensor]:
        """Logits, hidden and features."""
        batch, count = self.batch, self.count
        return [
            self.room.as_strided((batch, count, width), (count * width, width, 1), place)
            for width, place in zip(self.widths, self.places)
        ]


class _Held:
    """What C was told of a decoder's past. A store, a text or rotations are replaced and never changed in size, so what
    was checked holds while they are the same objects.
    """

    def __init__(self) -> None:
        self.of: tuple[object, ...] = ()
        self.most = 0
        self.lengths: Any = (c_int64 * 0)()
        self.struct = CPast()

    def __call__(self, past: Past, sizes: tuple[int, int, int, int], batch: int, count: int) -> bool:
        """`count` new positions behind each row; whether the structure is another one now.

        Raises:
            ContractError: see `Pointers.past`.
        """
        cache, of = past.cache, self.of
        lengths = cache.lengths
        if (
            of
            and of[0] is cache.k
            and of[1] is cache.v
            and of[2] is past.cross
            and of[3] is past.mask
            and of[4] is past.angles
            and len(self.lengths) == batch == len(lengths)
            and max(lengths) + count <= self.most
        ):
            self.lengths[:] = lengths
            return False
        self.struct = Pointers.of(cache).past(cache, past.cross, past.mask, past.angles, sizes, batch, count)
        self.of = (cache.k, cache.v, past.cross, past.mask, past.angles, cache.pointers)
        self.most = min(cache.capacity, past.angles.shape[0])
        self.struct.lengths = self.lengths = (c_int64 * batch)(*lengths)
        return True


class NativeRound:
    """Rounds of one stack, with a draft or without. Holds what C reads and writes: one session's."""

    def __init__(self, stack: NativeStack, draft: NativeDraft | None = None, rule: str = RULES[0]) -> None:
        """rule: one of `RULES` but "coupled", whose draft is drawn with the rule's own numbers."""
        self._stack, self._draft = stack, draft
        self._run = native.library().spear_round
        self._round = round_ = CRound(target=ctypes.pointer(stack.struct), rule=RULES.index(rule))
        self._sizes = (stack.depth, stack.heads, stack.kv_heads, stack.dim_head)
        self._kept = (c_void_p * stack.depth)()
        round_.kept = self._kept
        self._past, self._read = _Held(), _Held()
        self._own: dict[str, Any] = {}  # arrays
        self._uniforms: Any = (c_double * 0)()
        self._shape = (0, -1)
        self._samplings: Sequence[SamplingConfig] = ()
        self._how: object = None
        self._features: object = None
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
                token or layer. NumericsError: NaN or infinity.
        """
        stack, round_ = self._stack, self._round
        stack.check_features(features, stack.depth)
        batch, steps = len(newest), 0 if reading is None else max(reading.limits)
        if len(uniforms) != batch or any(len(line) != 2 * steps + 1 for line in uniforms):
            raise ContractError(f"rounds of {steps} draft tokens need {2 * steps + 1} uniforms of each of {batch} rows")
        if self._shape != (batch, steps):
            self._shape = (batch, steps)
            self._uniforms = (c_double * (batch * (2 * steps + 1)))()
            round_.uniforms, round_.batch, round_.steps = self._uniforms, batch, steps
            for name in _ROWS:
                self._array(name, batch)
            self._array("tokens", max(batch * steps, 1))
        own = self._own
        own["newest"][:] = newest
        self._uniforms[:] = uniforms[0] if batch == 1 else [u for line in uniforms for u in line]
        if self._samplings is not samplings:
            self._how, round_.how_step = native.samplings(samplings, batch)
            round_.how = self._how
            self._samplings = samplings
        if self._past(past, self._sizes, batch, steps + 1):
            round_.past = ctypes.pointer(self._past.struct)
        if reading is not None:
            self._enter(reading, batch, steps)
        widths = [stack.vocabulary, stack.dim, *[stack.dim] * len(features)]
        most = batch * (steps + 1)
        room = torch.empty(most * sum(widths), dtype=_FLOAT, device="cpu")
        start, places, at = room.data_ptr(), [], 0
        for width in widths:
            places.append(at)
            at += most * width
        ctypes.memset(self._kept, 0, ctypes.sizeof(self._kept))  # the room of a round before is no longer there
        for layer, place in zip(features, places[2:], strict=True):
            self._kept[layer - 1] = start + 4 * place
        round_.logits, round_.hidden = start, start + 4 * places[1]
        round_.threads, round_.eos = torch.get_num_threads(), eos
        native.check(self._run(round_), "a round")
        drafted, tokens = own["drafted"], own["tokens"]
        drafts = [tokens[row * steps : row * steps + drafted[row]] for row in range(batch)]
        return Round(
            drafts, own["accepted"][:], own["last"][:], own["used"][:], room, places, widths, batch, round_.longest + 1
        )

    def _enter(self, reading: Reading, batch: int, steps: int) -> None:
        """What belongs to the draft."""
        round_, draft, said = self._round, self._draft, reading.features
        counts = [len(row) for row in reading.fresh]
        longest = max(counts)
        if draft is None or len(reading.limits) != batch or len(counts) != batch or not min(counts):
            raise ContractError("a draft reads at least one token of every row, each with a limit")
        if self._read(reading.past, draft.sizes, batch, longest + steps):
            round_.read, round_.reached = ctypes.pointer(self._read.struct), self._read.lengths
        if said is None:
            round_.features = None
        else:
            if isinstance(said, Round):
                start, size = said.room.data_ptr(), said.count
                addresses = [start + 4 * place for place in said.places[2:]]
                draft.check_features((len(addresses), said.batch, size, said.widths[1]), batch, longest)
                held: object = said.room
            else:
                size = said[0].shape[1]
                draft.check_features((len(said), *said[0].shape), batch, longest)
                held = whole = [x.contiguous() for x in said]
                addresses = [pointer(x, said[0].shape, _FLOAT, "features") for x in whole]
            places = (c_void_p * len(addresses))(*addresses)
            self._features = (places, held)  # until C has returned
            round_.features, round_.parts, round_.length = places, len(addresses), size
        round_.count = longest
        self._own["limits"][:] = reading.limits
        self._own["counts"][:] = counts
        if len(self._own.get("fresh", ())) < batch * longest:
            self._array("fresh", batch * max(longest, steps + 1))
        self._own["fresh"][: batch * longest] = [
            token for row in reading.fresh for token in (*row, *[0] * (longest - len(row)))
        ]

    def _array(self, name: str, size: int) -> None:
        """Room for numbers, which C is told of."""
        self._own[name] = own = (c_int64 * size)()
        setattr(self._round, name, own)
