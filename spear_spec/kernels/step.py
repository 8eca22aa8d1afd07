"""The target's step in C (`step.c`): weights as the kernel reads them, and the calls on a cache."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_uint8, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from spear_spec.errors import ContractError
from spear_spec.kernels import native
from spear_spec.kernels.matrix import Matrix, side_by_side
from spear_spec.kernels.past import Pointers, tree_pointers
from spear_spec.kernels.pointers import pointer
from spear_spec.kernels.structures import CTarget, CTargetLayer
from spear_spec.nn.cache import KVCache
from spear_spec.nn.tree import Tree

_FLOAT = torch.float32
_MAPS = ("to_qkv", "self_out", "to_q", "cross_out", "up", "down")
_VECTORS = ("self_gain", "cross_gain", "forward_gain", "up_bias", "down_bias")


@dataclass(frozen=True)
class StepLayer:
    """Weights of one decoder layer, float32: maps [out, in], gains of the norms before self-attention, cross-attention
    and feed-forward [dim], biases.
    """

    to_qkv: Tensor
    self_out: Tensor
    to_q: Tensor
    cross_out: Tensor
    up: Tensor
    down: Tensor
    self_gain: Tensor
    cross_gain: Tensor
    forward_gain: Tensor
    up_bias: Tensor
    down_bias: Tensor


class NativeStack:
    """The decoder layers and head of one target. Holds weights alone: threads may share it, each with its own cache."""

    def __init__(
        self,
        layers: Sequence[StepLayer],
        table: Tensor,
        gain: Tensor,
        head: Tensor,
        *,
        heads: int,
        kv_heads: int,
        dim_head: int,
    ) -> None:
        """table [V + 1, dim]: vectors of the tokens and the start; gain [dim]: of the last norm; head [V, dim].

        Raises:
            ContractError: weights whose shapes do not fit together, of another dtype or device.
        """
        self.call = native.library().spear_target_step
        self._held: list[object] = []  # what the structures point at
        ids, dim = table.shape
        inner, width = layers[0].down.shape[1], heads * dim_head
        sizes = ((width + 2 * kv_heads * dim_head, dim), (dim, width), (width, dim), (dim, width))
        expected = dict(zip(_MAPS, (*sizes, (2 * inner, dim), (dim, inner))))
        lengths = dict(zip(_VECTORS, (dim, dim, dim, 2 * inner, dim)))
        for layer in layers:
            for name, shape in expected.items():
                if getattr(layer, name).shape != shape:
                    raise ContractError(f"{name} is {list(getattr(layer, name).shape)}, it must be {list(shape)}")
        if head.shape[1] != dim:
            raise ContractError(f"the head reads {head.shape[1]} numbers, the layers give {dim}")
        maps = [[Matrix(getattr(layer, name)) for name in _MAPS] for layer in layers]
        last = Matrix(head)
        matrices = [*(matrix for line in maps for matrix in line), last]
        side_by_side(matrices)  # before structures are copied
        self._held += matrices
        self.bytes = sum(matrix.bytes for matrix in matrices)
        made = []
        for layer, line in zip(layers, maps):
            vectors = [self._at(getattr(layer, name), (lengths[name],), name) for name in _VECTORS]
            made.append(CTargetLayer(*[matrix.struct for matrix in line], *vectors))
        self._layers = (CTargetLayer * len(made))(*made)
        self._head = last.struct
        self.dim, self.depth, self.vocabulary = dim, len(layers), len(head)
        self.heads, self.kv_heads, self.dim_head = heads, kv_heads, dim_head
        self.struct = CTarget(
            *(dim, heads, kv_heads, dim_head, inner, len(layers), ids),
            self._at(table, (ids, dim), "the table of tokens"),
            self._layers,
            self._at(gain, (dim,), "a gain"),
            ctypes.pointer(self._head),
        )

    def _at(self, weight: Tensor, shape: tuple[int, ...], name: str) -> int:
        weight = weight.detach().contiguous()
        self._held.append(weight)
        return pointer(weight, shape, _FLOAT, name)

    @staticmethod
    def check_features(features: Sequence[int], last: int, first: int = 0) -> None:
        """Whether layers first + 1 to last (1 is the first) give these.

        Raises:
            ContractError: they do not, or not each once.
        """
        if not all(first < layer <= last for layer in features) or len(set(features)) < len(features):
            raise ContractError(f"features after layers {list(features)} are asked of layers {first + 1} to {last}")


class NativeStep:
    """Steps of one stack on one cache."""

    def __init__(self, stack: NativeStack) -> None:
        self.stack = stack

    def run(
        self,
        entering: Tensor,
        cross: list[tuple[Tensor, Tensor]],
        cross_mask: Tensor | None,
        cache: KVCache,
        angles: Tensor,
        first: int,
        last: int,
        tree: Tree | None = None,
        features: Sequence[int] = (),
        skip: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None, list[Tensor]]:
        """Layers first to last - 1 on new tokens behind each row's length: the residual stream x [B, n, D]; hidden
        [B, n, D] and logits [B, n, V] where last is the depth; the stream after each of `features` (1 is the first
        layer). Writes keys and values, does not advance the cache, which must have room.

        entering: tokens [B, n], or the stream [B, n, D] that layer `first` reads. cross: k, v [B, H, S, dim_head] of
        each layer; cross_mask [B, 1, 1, S]; angles: complex [positions, dim_head / 2]; tree of the new tokens and
        nodes before them, as in `cached_positions`. skip: a layer each, bit 0: without attention, 1: without
        feed-forward.

        Raises:
            ContractError: a tensor of another shape, dtype or device, no room in the cache, an unknown token or layer.
        """
        stack = self.stack
        stack.check_features(features, last, first)
        batch, count = entering.shape[:2]
        shape = (batch, count, stack.dim)
        if entering.ndim == 2:
            tokens: Tensor | None = entering.contiguous()
            x = torch.empty(shape, dtype=_FLOAT, device="cpu")
        else:
            tokens, x = None, entering.clone(memory_format=torch.contiguous_format)
        nodes, sees, depth, _held = tree_pointers(tree, batch, count)
        if not count:
            raise ContractError("a step needs a token")
        sizes = (stack.depth, stack.heads, stack.kv_heads, stack.dim_head)
        past = Pointers.of(cache).past(cache, cross, cross_mask, angles, sizes, batch, count, nodes)
        kept = [torch.empty(shape, dtype=_FLOAT, device="cpu") for _ in features]
        wanted = None
        if kept:
            wanted = (c_void_p * stack.depth)()
            for layer, where in zip(features, kept):
                wanted[layer - 1] = where.data_ptr()
        hidden = logits = None
        if last == stack.depth:
            hidden = torch.empty(shape, dtype=_FLOAT, device="cpu")
            logits = torch.empty(batch, count, stack.vocabulary, dtype=_FLOAT, device="cpu")
        status = stack.call(
            torch.get_num_threads(),
            stack.struct,
            first,
            last,
            batch,
            count,
            None if tokens is None else pointer(tokens, (batch, count), torch.int64, "tokens"),
            pointer(x, shape, _FLOAT, "the residual stream"),
            past,
            nodes,
            sees,
            depth,
            None if skip is None else (c_uint8 * stack.depth)(*skip),
            wanted,
            None if hidden is None else hidden.data_ptr(),
            None if logits is None else logits.data_ptr(),
        )
        native.check(status, "the target's step")
        return x, hidden, logits, kept
