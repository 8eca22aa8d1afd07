"""A step of the target on memory that stays where it is: rows have slots, and what a step does needs no host.

Buffers grow between steps only (`room`), rows and positions by powers of two; `version` counts that, for whoever holds
views of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.errors import ConfigError, ContractError
from spear_spec.models.contract import Target
from spear_spec.models.memory import DecoderOutput, Memory
from spear_spec.models.stack import DecoderStack
from spear_spec.nn.cache import KVCache
from spear_spec.nn.static import StaticCache
from spear_spec.runtime.eager import EagerRuntime
from spear_spec.runtime.lanes import Lanes

_SLOTS = 64  # of text, the null slots among them: a multiple, so that masks are aligned


def bucket(count: int, least: int = 1) -> int:
    """The smallest power of two times `least` that is not below count."""
    size = least
    while size < count:
        size *= 2
    return size


@dataclass(frozen=True)
class Text:
    """Cross-attention of rows in fixed memory: k, v [L, B, H, S, D], and bias [B, 1, 1, S], which closes what is no
    text.
    """

    k: Tensor
    v: Tensor
    bias: Tensor

    @classmethod
    def like(cls, memory: Memory, lanes: int, slots: int) -> Text:
        """Room for so many lanes of texts of so many slots."""
        k, v = memory.cross[0]
        layers = len(memory.cross)
        bias = k.new_full((lanes, 1, 1, slots), -torch.inf)
        bias[..., 0] = 0.0  # rows that nobody has must see something
        k, v = (x.new_zeros(layers, lanes, x.shape[1], slots, x.shape[3]) for x in (k, v))
        return cls(k, v, bias)

    @property
    def slots(self) -> int:
        return self.k.shape[3]

    def put(self, memory: Memory, at: Tensor) -> None:
        """The rows of a memory into the lanes `at`."""
        width = memory.cross[0][0].shape[2]
        for layer, pair in enumerate(memory.cross):
            for store, new in zip((self.k[layer], self.v[layer]), pair):
                store.index_fill_(0, at, 0.0)
                store[:, :, :width].index_copy_(0, at, new)
        closed = F.pad(F.pad(~memory.mask, (memory.null_slots, 0), value=False), (0, self.slots - width), value=True)
        bias = torch.zeros_like(closed, dtype=self.bias.dtype).masked_fill_(closed, -torch.inf)
        self.bias.index_copy_(0, at, bias[:, None, None])

    def take(self, other: Text, lanes: slice) -> None:
        """What a smaller one holds, into these lanes."""
        self.k[:, lanes, :, : other.slots], self.v[:, lanes, :, : other.slots] = other.k, other.v
        self.bias[lanes, ..., : other.slots] = other.bias

    def view(self, lanes: slice, null_slots: int, condition: Tensor | None = None) -> Memory:
        """These lanes as what layers attend to; hidden states and text mask are not kept."""
        cross = [(k[lanes], v[lanes]) for k, v in zip(self.k, self.v)]
        bias = self.bias[lanes]
        nothing = self.k.new_zeros(len(bias), 0, 1)
        return Memory(nothing, nothing[..., 0].bool(), cross, bias, null_slots, condition)


@dataclass(frozen=True)
class StaticStep:
    """A view of the first rows: the target's forward on it. lanes: of each row, 2 where any of them is guided."""

    target: Target
    memory: Memory
    cache: StaticCache
    lanes: int
    features: tuple[int, ...]

    def score(self, ids: Tensor, lengths: Tensor) -> DecoderOutput:
        """Tokens [R, n] behind what each row has read, lengths int64 [R]: output by lane, [R * lanes, n, ...]."""
        self.cache.lengths = spread(lengths, self.lanes)
        return self.target(spread(ids, self.lanes), self.memory, self.cache, features=self.features)


def spread(rows: Tensor, lanes: int) -> Tensor:
    """Rows [R, ...], each `lanes` times: [R * lanes, ...]."""
    return rows if lanes == 1 else rows[:, None].expand(-1, lanes, *rows.shape[1:]).flatten(0, 1)


class StaticRuntime:
    """What a session needs of a `Runtime` (`admit`, `leave`) over fixed memory, and views to run rounds on.

    A row has a slot from `admit` until it leaves; slot s has lane s, or where `pairs` is set the lanes 2 s (with its
    text) and 2 s + 1 (without). slots: by place. arrived: the rows that were admitted last, for whoever has more to
    write of them.
    """

    on_tensors = True
    memory: Memory
    cache: Any
    output: DecoderOutput | None = None
    depths: list[int] | None = None

    def __init__(self, target: Target) -> None:
        """Raises ConfigError: the target is none whose layers can run on fixed memory."""
        if not isinstance(target, DecoderStack) or not isinstance(target.new_cache(1, 1), KVCache):
            raise ConfigError(
                f"runtime graphs runs stacks of decoder layers, and {type(target).__name__} is none: use runtime eager"
            )
        self.target: Target = target
        self.features: tuple[int, ...] = ()
        self.slots: list[int] = []
        self.pairs = False
        self.version = 0
        self.rows = self.positions = 0
        self.arrived: Arrived | None = None
        self.lanes = Lanes()
        self._k: Tensor
        self._v: Tensor
        self._text: Text | None = None
        self._condition: Tensor | None = None
        self._table: Tensor
        self._null_slots = 1

    # --- room -------------------------------------------------------------------------------------------------------

    def free(self, count: int) -> list[int]:
        """The lowest slots that nobody has."""
        taken, found, slot = set(self.slots), list[int](), 0
        while len(found) < count:
            if slot not in taken:
                found.append(slot)
            slot += 1
        return found

    def room(self, memory: Memory, positions: int, guided: bool) -> None:
        """See to it that the rows of a memory find slots, and each row `positions` positions."""
        rows = bucket(max(max(self.free(memory.batch)) + 1, self.rows))
        positions = bucket(max(positions, self.positions), 64)
        width = memory.cross[0][0].shape[2]
        slots = max(-(-width // _SLOTS) * _SLOTS, self.slots_of_text)
        pairs = self.pairs or guided
        old = self._text
        if old is not None and (rows, positions, slots, pairs) == (self.rows, self.positions, old.slots, self.pairs):
            return
        lanes = rows * (1 + pairs)
        like: Any = self.target.new_cache(1, 1)
        shape = (like.k.shape[0], lanes, like.k.shape[2], positions, like.k.shape[4])
        k, v = like.k.new_zeros(shape), like.v.new_zeros(shape)
        text = Text.like(memory, lanes, slots)
        condition = None if memory.condition is None else memory.condition.new_zeros(lanes, *memory.condition.shape[1:])
        if old is not None:
            known = self._k.shape[1]
            step = 1 + (pairs and not self.pairs)  # lanes move apart when second ones come between
            here = slice(0, known * step, step)
            k[:, here, :, : self.positions], v[:, here, :, : self.positions] = self._k, self._v
            text.take(old, here)
            if condition is not None and self._condition is not None:
                condition[here] = self._condition
        self._k, self._v, self._text, self._condition = k, v, text, condition
        self.rows, self.positions, self.pairs = rows, positions, pairs
        self._table = self.target.positions(positions)  # type: ignore[attr-defined]
        self._null_slots = memory.null_slots
        self.version += 1

    @property
    def slots_of_text(self) -> int:
        """Room of each row's text, the null slots included."""
        return 0 if self._text is None else self._text.slots

    def view(self, rows: int, positions: int, guided: bool) -> StaticStep:
        """The first so many slots, at most so many positions of each; guided: both lanes."""
        assert self._text is not None
        lanes = slice(0, rows * (1 + self.pairs), 1 + (self.pairs and not guided))
        condition = None if self._condition is None else self._condition[lanes]
        cache = StaticCache(self._k[:, lanes, :, :positions], self._v[:, lanes, :, :positions], self._table)
        memory = self._text.view(lanes, self._null_slots, condition)
        return StaticStep(self.target, memory, cache, 1 + guided, self.features)

    # --- rows come and go -------------------------------------------------------------------------------------------

    def admit(self, memory: Memory, guided: Sequence[bool], prefixes: Sequence[Sequence[int]]) -> None:
        """Rows take the lowest free slots (`room` has seen to it that there are); prefixes are read but for their last
        token.
        """
        slots = self.free(memory.batch)
        reader = EagerRuntime(self.target)
        reader.features = self.features
        reader.admit(memory, guided, prefixes)
        width = 1 + self.pairs
        lanes = [slots[place] * width + free for place, free in zip(reader.lanes.places, reader.lanes.free)]
        self._put(reader.memory, reader.cache, lanes)
        self.slots += slots
        self.arrived = Arrived(slots, memory, prefixes, reader.output, reader.lanes.texts)

    def _put(self, memory: Memory, cache: Any, lanes: Sequence[int]) -> None:
        assert self._text is not None
        device = self._k.device
        at = torch.tensor(lanes, dtype=torch.int64, device=device)
        self._text.put(memory, at)
        if self._condition is not None and memory.condition is not None:
            self._condition.index_copy_(0, at, memory.condition)
        put_cache(cache, (self._k, self._v), at)

    def fits(self, rows: int, positions: int, slots: int, guided: bool) -> bool:
        """Whether `room` has nothing to do for so many more rows."""
        most = max(self.free(rows)) + 1
        return (
            most <= self.rows
            and positions <= self.positions
            and slots <= self.slots_of_text
            and (self.pairs or not guided)
        )

    def begin(self, memory: Memory, at: Tensor) -> None:
        """The rows of a memory begin in the lanes `at`, with nothing read. Whoever calls it takes the slots."""
        assert self._text is not None
        self._text.put(memory, at)
        for store in (self._k, self._v):
            store.index_fill_(1, at, 0.0)

    def leave(self, stay: Sequence[int]) -> None:
        """Only the rows at these places go on; the others' slots are free."""
        self.slots = [self.slots[place] for place in stay]

    def score(self, *_: object, **__: object) -> NoReturn:
        """Rounds are whole: there is nothing to score in between."""
        raise ContractError("this runtime runs whole rounds")

    keep = score


@dataclass(frozen=True)
class Arrived:
    """Rows that have just been admitted: slots and prefixes by row, their texts, and what the target said of the
    prefixes (by lane, texts[b] is row b's; position i predicted token i of start and prefix).
    """

    slots: list[int]
    memory: Memory
    prefixes: Sequence[Sequence[int]]
    output: DecoderOutput | None
    texts: list[int]


def put_cache(cache: KVCache, stores: tuple[Tensor, Tensor], at: Tensor) -> None:
    """What each row of a cache has read into rows `at` of k and v [L, B, H, C, D]; what is behind becomes zero, lest
    NaN of a row that was there before be multiplied by 0.
    """
    used = cache.longest
    for store, new in zip(stores, (cache.k, cache.v)):
        store.index_fill_(1, at, 0.0)
        if used:
            store[:, :, :, :used].index_copy_(1, at, new[:, :, :, :used])
