"""What a transformer leaves for those that decode with it: the encoded text, and what it computed of some tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.nn.cache import KVCache
from spear_spec.nn.static import StaticCache
from spear_spec.nn.tree import Tree


@dataclass
class Memory:
    """What the encoder leaves for the decoders: computed once a sentence, shared by the target and every draft.

    hidden [B, S, D]; mask [B, S], True where there is text; cross: per decoder layer k, v [B, H, N + S, dim_head] with
    N null slots first (`null_slots`: 1, or 0 for a transformer that knows no text-free lane); cross_mask
    [B, 1, 1, N + S], or None when every row uses every position. condition [B, 1, D]: a vector that the target adds to
    every token that it reads (a speaking rate), None where there is nothing of the kind.
    """

    hidden: Tensor
    mask: Tensor
    cross: list[tuple[Tensor, Tensor]]
    cross_mask: Tensor | None
    null_slots: int = 1
    condition: Tensor | None = None

    @classmethod
    def of(
        cls,
        hidden: Tensor,
        mask: Tensor,
        cross: list[tuple[Tensor, Tensor]],
        null_slots: int = 1,
        condition: Tensor | None = None,
    ) -> Memory:
        """The same with the attention mask that follows from the text mask [B, S]."""
        return cls(hidden, mask, cross, cross_mask(mask, null_slots), null_slots, condition)

    @property
    def batch(self) -> int:
        return self.hidden.shape[0]

    def select(self, rows: Sequence[int]) -> Memory:
        """These rows, in this order; a row may come more than once."""
        index = torch.tensor(list(rows), device=self.hidden.device, dtype=torch.long)
        cross = [(k.index_select(0, index), v.index_select(0, index)) for k, v in self.cross]
        condition = None if self.condition is None else self.condition[index]
        return Memory.of(self.hidden[index], self.mask[index], cross, self.null_slots, condition)

    def join(self, other: Memory) -> Memory:
        """These rows and, behind them, those of another; the shorter texts are padded."""
        length = max(self.mask.shape[1], other.mask.shape[1])
        one, two = (memory._padded(length) for memory in (self, other))
        cross = [(torch.cat((k, m)), torch.cat((v, w))) for (k, v), (m, w) in zip(one.cross, two.cross)]
        hidden, mask = torch.cat((one.hidden, two.hidden)), torch.cat((one.mask, two.mask))
        both = None if one.condition is None or two.condition is None else torch.cat((one.condition, two.condition))
        return Memory.of(hidden, mask, cross, self.null_slots, both)

    def _padded(self, length: int) -> Memory:
        more = length - self.mask.shape[1]
        if not more:
            return self
        cross = [(F.pad(k, (0, 0, 0, more)), F.pad(v, (0, 0, 0, more))) for k, v in self.cross]
        hidden, mask = F.pad(self.hidden, (0, 0, 0, more)), F.pad(self.mask, (0, more))
        return Memory.of(hidden, mask, cross, self.null_slots, self.condition)

    def trimmed(self) -> Memory:
        """Without the positions that no row uses any more: the longest text may have left."""
        length = int(self.mask.any(0).sum()) if self.batch else 0
        if length == self.mask.shape[1]:
            return self
        slots = self.null_slots + length
        cross = [(k[:, :, :slots], v[:, :, :slots]) for k, v in self.cross]
        return Memory.of(self.hidden[:, :length], self.mask[:, :length], cross, self.null_slots, self.condition)

    def without_text(self, lanes: Sequence[bool]) -> Memory:
        """The same rows, those that are marked without their text (only the null slot open)."""
        free = torch.tensor(list(lanes), device=self.mask.device, dtype=torch.bool)
        return Memory.of(self.hidden, self.mask & ~free[:, None], self.cross, self.null_slots, self.condition)

    def unconditional(self) -> Memory:
        """The same rows without their text: only the null slot is left (the second lane of guidance)."""
        slots = self.null_slots
        cross = [(k[:, :, :slots], v[:, :, :slots]) for k, v in self.cross]
        return Memory(self.hidden[:, :0], self.mask[:, :0], cross, None, slots, self.condition)


def cross_mask(mask: Tensor, null_slots: int = 1) -> Tensor | None:
    """Text mask [B, S] to attention mask [B, 1, 1, N + S] with the null slots open; None when nothing is masked."""
    return None if bool(mask.all()) else F.pad(mask, (null_slots, 0), value=True)[:, None, None]


@dataclass
class DecoderOutput:
    """logits [B, T, V]; hidden [B, T, D] after the last norm; features: the residual stream [B, T, D] after each
    layer asked for.
    """

    logits: Tensor
    hidden: Tensor
    features: list[Tensor]

    def select(self, rows: Sequence[int]) -> DecoderOutput:
        """These rows, in this order."""
        index = torch.tensor(list(rows), device=self.logits.device, dtype=torch.long)
        return self._each(lambda x: x[index])

    def join(self, other: DecoderOutput) -> DecoderOutput:
        """These rows and, behind them, those of another; the shorter ones are padded with zeros."""
        length = max(self.logits.shape[1], other.logits.shape[1])

        def both(x: Tensor, y: Tensor) -> Tensor:
            return torch.cat([F.pad(z, (0, 0, 0, length - z.shape[1])) for z in (x, y)])

        features = [both(x, y) for x, y in zip(self.features, other.features)]
        return DecoderOutput(both(self.logits, other.logits), both(self.hidden, other.hidden), features)

    def at(self, positions: Tensor) -> DecoderOutput:
        """These positions [B, A] of each row, in this order."""
        rows = torch.arange(len(positions), device=positions.device)[:, None]
        return self._each(lambda x: x[rows, positions])

    def _each(self, take: Callable[[Tensor], Tensor]) -> DecoderOutput:
        return DecoderOutput(take(self.logits), take(self.hidden), [take(feature) for feature in self.features])


@dataclass(frozen=True)
class Skip:
    """Sublayers (by layer, 0 is the first) that a draft leaves out; self- and cross-attention of a layer count as
    one.
    """

    attention: frozenset[int] = frozenset()
    feed_forward: frozenset[int] = frozenset()


def cached_positions(
    table: Tensor, cache: KVCache | StaticCache, length: int, tree: Tree | None
) -> tuple[Tensor, Tensor | None, bool]:
    """Rotations and mask for `length` new tokens behind each row of a cache.

    tree: of the new tokens, or of more nodes, of which the new tokens are the last and the others were written before
    them, behind each row's committed prefix.
    """
    if isinstance(cache, StaticCache):
        assert tree is None, "trees are not run in fixed memory"
        return cache.places(length)
    longest = cache.longest
    if tree is None and cache.uniform:
        here = table[longest : longest + length]
        if length == 1:
            return here, None, False
        if longest == 0:
            return here, None, True
        return here, torch.ones(length, longest + length, dtype=torch.bool, device=table.device).tril(longest), False
    device = table.device
    start = torch.tensor(cache.lengths, device=device)[:, None]
    slot = torch.arange(longest + length, device=device)
    own = slot[None] - start  # index among the row's new tokens
    if tree is None:
        offset = torch.arange(length, device=device)
        return table[start + offset], (own[:, None, :] <= offset[None, :, None])[:, None], False
    nodes = tree.mask.shape[-1]
    first = start - (nodes - length)  # where each row's tree begins
    own = own + (nodes - length)
    block, depth = tree.mask[:, -length:], tree.depth[:, -length:]
    if cache.uniform:
        begin = longest + length - nodes
        mask = F.pad(block, (begin, 0), value=True)
    else:
        inside = (own >= 0) & (own < nodes)
        seen = torch.gather(block, 2, own.clamp(0, nodes - 1)[:, None, :].expand(-1, length, -1))
        mask = torch.where(inside[:, None, :], seen, (own < 0)[:, None, :])
    return table[first + depth], mask[:, None], False
