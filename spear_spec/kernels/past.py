"""What a step in C is told of the past of its rows and of their text (`struct past`)."""

from __future__ import annotations

from ctypes import c_int64, c_void_p

import torch
from torch import Tensor

from spear_spec.errors import ContractError
from spear_spec.kernels.pointers import pointer, stacked_pointer
from spear_spec.kernels.structures import CPast
from spear_spec.nn.cache import KVCache
from spear_spec.nn.tree import Tree

_FLOAT = torch.float32
_Cross = list[tuple[Tensor, Tensor]]
_Text = tuple[_Cross, Tensor | None, object, int, int | None, list[Tensor]]  # as given; addresses; what they name


class Pointers:
    """Addresses for the steps on one cache. What was checked is not checked again while it stays the same object: store
    and text are replaced when rows come and go, never changed in size.
    """

    def __init__(self) -> None:
        self._store: tuple[Tensor, Tensor, int, int, int] | None = None
        self._text: _Text | None = None
        self._turns: tuple[Tensor, int] | None = None

    @classmethod
    def of(cls, cache: KVCache) -> Pointers:
        """Those of a cache, kept with it."""
        if cache.pointers is None:
            cache.pointers = cls()
        found: Pointers = cache.pointers
        return found

    def past(
        self,
        cache: KVCache,
        cross: list[tuple[Tensor, Tensor]],
        mask: Tensor | None,
        angles: Tensor,
        sizes: tuple[int, int, int, int],
        batch: int,
        count: int,
        nodes: int = 0,
    ) -> CPast:
        """For `count` new positions behind each row, of which `nodes` (0: none) are a tree's last. It holds while this
        object, the cache's store and the text live.

        cross: k, v [B, H, S, dim_head] of each layer; mask [B, 1, 1, S]; angles: complex [positions, dim_head / 2];
        sizes: depth, heads of the text, heads of the store, dim_head.

        Raises:
            ContractError: a tensor of another shape, dtype, device or layout, no room in the cache.
        """
        depth, heads, kv_heads, dim_head = sizes
        lengths, capacity = cache.lengths, cache.capacity
        written = nodes - count if nodes else 0  # nodes of the tree that lie in the cache already
        if len(lengths) != batch or min(lengths) < max(written, 0) or written < 0:
            raise ContractError(f"rows of {lengths} positions do not hold what {batch} rows need")
        reached, turns = max(lengths) + count, angles.shape[0]
        if reached > capacity or reached > turns:
            raise ContractError(f"{reached} positions do not fit into {capacity}, with {turns} rotations")
        if self._store is None or self._store[0] is not cache.k or self._store[1] is not cache.v:
            store = (depth, batch, kv_heads, capacity, dim_head)
            keys = stacked_pointer(cache.k, store, _FLOAT, "the cache of keys")
            values = stacked_pointer(cache.v, store, _FLOAT, "the cache of values")
            if cache.k.stride(0) != cache.v.stride(0):
                raise ContractError("keys and values of the cache must lie alike")
            self._store = (cache.k, cache.v, keys, values, cache.k.stride(0))
        if self._text is None or self._text[1] is not mask or not _same(self._text[0], cross):
            self._text = _look(cross, mask, depth, (batch, heads, dim_head))
        if self._turns is None or self._turns[0] is not angles:
            self._turns = (angles, pointer(angles, (turns, dim_head // 2), torch.complex64, "rotations"))
        _, _, keys, values, step = self._store
        _, _, texts, memory, mask_at, _ = self._text
        own = (c_int64 * batch)(*lengths)
        return CPast(own, self._turns[1], keys, values, capacity, step, texts, memory, mask_at)


def _same(known: _Cross, cross: _Cross) -> bool:
    """Whether these are the very same tensors."""
    return len(known) == len(cross) and all(a[0] is b[0] and a[1] is b[1] for a, b in zip(known, cross))


def _look(cross: list[tuple[Tensor, Tensor]], mask: Tensor | None, depth: int, sizes: tuple[int, int, int]) -> _Text:
    batch, heads, dim_head = sizes
    if len(cross) != depth:
        raise ContractError(f"{depth} layers need the text of each, not of {len(cross)}")
    held = [x.contiguous() for pair in cross for x in pair]
    memory = held[0].shape[2] if held[0].ndim == 4 else 0
    if not memory:
        raise ContractError(f"keys of the text are [B, H, S, dim_head] with S above 0, not {list(held[0].shape)}")
    shape = (batch, heads, memory, dim_head)
    texts = (c_void_p * len(held))(*[pointer(x, shape, _FLOAT, "keys or values of the text") for x in held])
    mask_at = None
    if mask is not None:
        held.append(own := mask.contiguous())
        mask_at = pointer(own, (batch, 1, 1, memory), torch.bool, "the mask of the text")
    return list(cross), mask, texts, memory, mask_at, held


def tree_pointers(tree: Tree | None, batch: int, count: int) -> tuple[int, int | None, int | None, tuple[Tensor, ...]]:
    """A tree whose last `count` nodes a step reads, as C is told of it: nodes, the addresses of its mask and depths for
    these, and the tensors that must live until C has returned. No tree: 0 and nothing.

    Raises:
        ContractError: a mask or depths of another shape, dtype or device.
    """
    if tree is None:
        return 0, None, None, ()
    nodes = tree.depth.shape[-1]
    if tree.mask.shape != (batch, nodes, nodes) or tree.depth.shape != (batch, nodes) or nodes < count:
        raise ContractError(
            f"a tree's mask {list(tree.mask.shape)} and depths {list(tree.depth.shape)} do not fit "
            f"{count} new nodes in {batch} rows"
        )
    sees, depth = tree.mask[:, -count:].contiguous(), tree.depth[:, -count:].contiguous()
    mask_at = pointer(sees, (batch, count, nodes), torch.bool, "the mask of a tree")
    return nodes, mask_at, pointer(depth, (batch, count), torch.int64, "the depths of a tree"), (sees, depth)
