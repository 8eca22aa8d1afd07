"""Key/value rows in memory that stays where it is, with lengths on the device: nothing of it is known to the host."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor


class StaticCache:
    """What a `KVCache` is to attention layers, of fixed size. Made anew for every size of view; holds no memory itself.

    k, v [L, B, H, C, D]; table [at least C, ...]: what each position is given (`DecoderStack.positions`), held here
    because a captured graph goes on reading it. `lengths` int64 [B], set before every forward: what each row has read.
    New tokens go behind it and are forgotten by not counting them, so nothing is ever cropped. Whoever sets it sees to
    it that lengths and new tokens stay within C.

    Masks are sums, not booleans: those are turned into sums by every layer.
    """

    longest = 0  # of what a caller may count on; `places` has its own table
    native = None  # no kernel in C runs on it

    def __init__(self, k: Tensor, v: Tensor, table: Tensor) -> None:
        self.k, self.v, self.table = k, v, table
        self.lengths: Tensor
        self._at: Tensor
        self._slots = torch.arange(self.room, device=k.device)
        self._open, self._closed = k.new_zeros(()), k.new_full((), -torch.inf)

    @property
    def room(self) -> int:
        """Positions of each row."""
        return self.k.shape[3]

    def reserve(self, positions: int) -> None:
        """There is as much room as there is."""

    def advance(self, n: int) -> None:
        """Lengths are set, not counted here."""

    def places(self, length: int) -> tuple[Tensor, Tensor, bool]:
        """As `cached_positions`: what `length` new tokens a row are given, [B, n, ...], and their mask [B, 1, n, C]."""
        here = self.coming(length)
        mask = torch.where(self._slots > here[..., None], self._closed, self._open)
        return self.table[here], mask[:, None], False

    def coming(self, length: int) -> Tensor:
        """Where `length` new tokens a row go, [B, n]: what `append` writes next goes there."""
        _, batch, heads, _, width = self.k.shape
        here = self.lengths[:, None] + self._slots[:length]
        self._at = here[:, None, :, None].expand(batch, heads, length, width)
        return here

    def within(self, first: Tensor, end: Tensor) -> Tensor:
        """A mask [B, 1, 1, C] that shows each row its positions from first [B] to before end [B]."""
        seen = (self._slots >= first[:, None]) & (self._slots < end[:, None])
        return torch.where(seen, self._open, self._closed)[:, None, None]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v [B, H, n, D] behind each row's length; the whole layer [B, H, C, D], what is not there masked."""
        mine, other = self.k[layer], self.v[layer]
        mine.scatter_(2, self._at, k)
        other.scatter_(2, self._at, v)
        return mine, other

    def _never(self, *_: object) -> NoReturn:
        raise NotImplementedError("rows of fixed memory are not moved")

    crop = keep = select = join = _never
