"""Key/value cache whose rows have lengths of their own: no padding shuffles when rows accept different counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class KVCache:
    """Preallocated keys (already rotated) and values of every decoder layer.

    Shapes: k, v [L, B, H, T, D]. `lengths` (python list, B entries) counts each row's committed positions; what lies
    behind them is scratch. A forward of n tokens calls `append` once a layer, then `advance(n)` once.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        heads: int,
        capacity: int,
        dim_head: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (layers, batch, heads, max(capacity, 1), dim_head)
        self.k = torch.zeros(shape, dtype=dtype, device=device)
        self.v = torch.zeros(shape, dtype=dtype, device=device)
        self._stores: tuple[Tensor, Tensor] | None = None  # where others have joined: k and v are their first rows
        self.lengths: list[int] = [0] * batch
        self.native: Any = None  # who runs whole steps on this store in C, where its owner has such a thing
        self.pointers: Any = None  # what C has been told of this store (`kernels.past.Pointers`)

    @property
    def batch(self) -> int:
        return self.k.shape[1]

    @property
    def capacity(self) -> int:
        return self.k.shape[3]

    @property
    def longest(self) -> int:
        return max(self.lengths)

    @property
    def uniform(self) -> bool:
        """Whether all rows have the same length."""
        return len(set(self.lengths)) <= 1

    def reserve(self, positions: int) -> None:
        """Grow so that every row can hold `positions`."""
        if positions <= self.capacity:
            return
        capacity = max(positions, 2 * self.capacity)
        for name in ("k", "v"):
            old: Tensor = getattr(self, name)
            new = old.new_zeros((*old.shape[:3], capacity, old.shape[4]))
            new[:, :, :, : old.shape[3]] = old
            setattr(self, name, new)
        self._stores = None

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write k, v [B, H, n, D] behind each row's length; return views [B, H, longest + n, D] of the layer.

        Rows shorter than the longest hold stale entries behind length + n: the caller masks them.
        """
        n = k.shape[2]
        end = self.longest + n
        if self.uniform:
            start = end - n
            self.k[layer, :, :, start:end] = k
            self.v[layer, :, :, start:end] = v
        else:
            for row, start in enumerate(self.lengths):
                self.k[layer, row, :, start : start + n] = k[row]
                self.v[layer, row, :, start : start + n] = v[row]
        return self.k[layer, :, :, :end], self.v[layer, :, :, :end]

    def advance(self, n: int) -> None:
        """Commit the n positions that every layer has written."""
        self.lengths = [length + n for length in self.lengths]

    def crop(self, lengths: list[int]) -> None:
        """Chain rollback: keep the first lengths[b] positions of row b.

        Raises:
            ValueError: a length is negative or longer than what the row holds.
        """
        if len(lengths) != self.batch or any(not 0 <= new <= old for new, old in zip(lengths, self.lengths)):
            raise ValueError(f"cannot crop rows of {self.lengths} positions to {lengths}")
        self.lengths = list(lengths)

    def keep(self, base: list[int], path: Tensor | list[list[int]]) -> None:
        """Tree rollback: of the nodes written behind base[b], keep those of the accepted path, in order.

        Args:
            base: committed length of each row before the tree was written.
            path: per row node indices relative to base, ascending along the path; as a tensor [B, A] padded with -1.

        Raises:
            ValueError: a node that was not written.
        """
        new = []
        for row, start in enumerate(base):
            nodes = [int(i) for i in path[row] if i >= 0]
            if any(start + i >= self.lengths[row] for i in nodes):
                raise ValueError(f"row {row}: a path node lies behind what was written")
            if nodes == list(range(len(nodes))):  # already where it belongs
                new.append(start + len(nodes))
                continue
            index = torch.tensor([start + i for i in nodes], device=self.k.device, dtype=torch.long)
            for store in (self.k, self.v):
                store[:, row, :, start : start + len(nodes)] = store[:, row].index_select(2, index)
            new.append(start + len(nodes))
        self.lengths = new

    def select(self, rows: list[int]) -> None:
        """Only these rows go on, in this order; a row may come more than once (beams fork).

        Rows move within the store, and only what they hold: the store is mostly room to grow. What stays where it is
        costs nothing.
        """
        if len(rows) > self.batch:
            index = torch.tensor(rows, device=self.k.device, dtype=torch.long)
            self.k, self.v, self._stores = self.k.index_select(1, index), self.v.index_select(1, index), None
        else:
            for store in (self.k, self.v):
                # a row that is written over before it is read
                saved = {
                    row: store[:, row, :, : self.lengths[row]].clone()
                    for place, row in enumerate(rows)
                    if row < place and rows[row] != row
                }
                for place, row in enumerate(rows):
                    if place != row:
                        held = saved.get(row)
                        store[:, place, :, : self.lengths[row]] = (
                            store[:, row, :, : self.lengths[row]] if held is None else held
                        )
            self.k, self.v = self.k[:, : len(rows)], self.v[:, : len(rows)]
        self.lengths = [self.lengths[row] for row in rows]

    def join(self, other: KVCache) -> None:
        """Take in the rows of another cache of the same layers, behind the rows that are here.

        Only what rows hold is copied. A store that is too small is replaced by one with room for as many rows again: in
        a batch that rows join one by one, most of them find their place.
        """
        here, there = self.batch, other.batch
        held, theirs = max(self.lengths, default=0), max(other.lengths, default=0)
        rows, room = here + there, max(self.capacity, other.capacity)
        if self._stores is None or self._stores[0].shape[1] < rows or self._stores[0].shape[3] < room:
            shape = (self.k.shape[0], max(rows, 2 * here), self.k.shape[2], room, self.k.shape[4])
            stores = (self.k.new_zeros(shape), self.v.new_zeros(shape))
            for store, old in zip(stores, (self.k, self.v)):
                store[:, :here, :, :held] = old[:, :, :, :held]
            self._stores = stores
        for store, new in zip(self._stores, (other.k, other.v)):
            store[:, here:rows, :, :theirs] = new[:, :, :, :theirs]
        self.k, self.v = (store[:, :rows] for store in self._stores)
        self.lengths = [*self.lengths, *other.lengths]
