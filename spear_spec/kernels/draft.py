"""The draft's step, its head and whole chains in C (`draft.c`)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_int64, c_void_p

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.errors import ContractError
from spear_spec.kernels import native
from spear_spec.kernels.matrix import Matrix
from spear_spec.kernels.packed import PackedLayer, PackedLinear
from spear_spec.kernels.pointers import pointer, stacked_pointer
from spear_spec.kernels.structures import MAPS, CDraft, CLayer, CMatrix, CPast
from spear_spec.nn.cache import KVCache
from spear_spec.nn.tree import Tree

_FLOAT = torch.float32


class NativeDraft:
    """The weights of one draft as the kernel reads them.

    Pointers of a state are taken anew for each call: they move. Holds weights alone and may be used by several threads
    at once, each with a cache of its own.
    """

    def __init__(self, table: Tensor, enter: PackedLinear, layers: Sequence[PackedLayer], head: PackedLinear) -> None:
        """table [ids, dim]: the token half of the entering projection.

        Everything float32 on the CPU, the maps packed.

        Raises:
            ContractError: weights whose shapes do not fit together, of another dtype or device.
        """
        loaded = native.library()
        self._step, self._logits = loaded.spear_draft_step, loaded.spear_draft_logits
        self._chain = loaded.spear_draft_chain
        self._held: list[object] = []  # what the structures point at
        first = layers[0]
        self._heads, self._dim_head, self._depth = first.heads, first.dim_head, len(layers)
        self._ids, self._dim = table.shape
        dim, width, inner = self._dim, first.heads * first.dim_head, len(first.up_bias) // 2
        sizes = dict(
            zip(MAPS, ((3 * width, dim), (dim, width), (width, dim), (dim, width), (2 * inner, dim), (dim, inner)))
        )
        self._enter, self._head = self._matrix(enter, dim, dim), self._matrix(head, None, dim)
        self._size = int(self._head.out)
        self._layers = (CLayer * len(layers))(
            *[
                CLayer(
                    *[self._matrix(getattr(layer, name), *sizes[name]) for name in MAPS],
                    self._at(layer.up_bias, (2 * inner,), _FLOAT, "a bias"),
                    self._at(layer.down_bias, (dim,), _FLOAT, "a bias"),
                )
                for layer in layers
            ]
        )
        self._draft = CDraft(
            dim,
            first.heads,
            first.dim_head,
            inner,
            len(layers),
            self._ids,
            self._at(table, table.shape, _FLOAT, "the table of tokens"),
            ctypes.pointer(self._enter),
            self._layers,
        )

    def _at(self, weight: Tensor, shape: tuple[int, ...], dtype: torch.dtype, name: str) -> int:
        weight = weight.detach().contiguous()
        self._held.append(weight)
        return pointer(weight, shape, dtype, name)

    def _matrix(self, packed: PackedLinear, out: int | None, inputs: int) -> CMatrix:
        codes, scale = packed.rounded()
        matrix = Matrix.of_codes(codes, scale)
        if matrix.shape != (len(codes) if out is None else out, inputs):
            raise ContractError(f"8-bit weights are {list(matrix.shape)}, they must be {[out, inputs]}")
        self._held.append(matrix)
        return matrix.struct

    def step(
        self,
        tokens: Tensor,
        features: Tensor,
        cache: KVCache,
        cross: list[tuple[Tensor, Tensor]],
        cross_mask: Tensor | None,
        angles: Tensor,
        tree: Tree | None,
        counts: list[int] | None = None,
    ) -> Tensor:
        """tokens [B, n], features [B, n, D] -> hidden [B, n, D]; writes keys and values, does not advance the cache.

        The cache must have room. cross: k, v [B, H, S, dim_head] of each layer; cross_mask [B, 1, 1, S]; angles:
        complex [positions, dim_head / 2]; tree as in `cached_positions`. counts [B]: tokens of each row that are
        there; the rest is padding and gives 0.

        Raises:
            ContractError: a tensor of another shape, dtype or device, no room in the cache, an unknown token.
        """
        batch, count = tokens.shape if tokens.ndim == 2 else (0, 0)
        if not batch or not count:
            raise ContractError(f"the draft's step reads tokens [B, n], not {list(tokens.shape)}")
        if counts is not None and (len(counts) != batch or not all(0 <= n <= count for n in counts)):
            raise ContractError(f"rows of at most {count} tokens cannot hold {counts}")
        nodes, sees, depth = 0, None, None
        if tree is not None:
            nodes = tree.depth.shape[-1]
            if tree.mask.shape != (batch, nodes, nodes) or tree.depth.shape != (batch, nodes) or nodes < count:
                raise ContractError(
                    f"a tree's mask {list(tree.mask.shape)} and depths {list(tree.depth.shape)} do not fit "
                    f"{count} new nodes in {batch} rows"
                )
            sees, depth = tree.mask[:, -count:].contiguous(), tree.depth[:, -count:].contiguous()
        tokens, features = tokens.contiguous(), features.contiguous()
        past, _held = self._past(batch, count, nodes, cache, cross, cross_mask, angles)
        features_at = pointer(features, (batch, count, self._dim), _FLOAT, "features")
        hidden = torch.empty_like(features)
        status = self._step(
            self._draft,
            batch,
            count,
            pointer(tokens, (batch, count), torch.int64, "tokens"),
            features_at,
            past,
            nodes,
            None if sees is None else pointer(sees, (batch, count, nodes), torch.bool, "the mask of a tree"),
            None if depth is None else pointer(depth, (batch, count), torch.int64, "the depths of a tree"),
            None if counts is None else (c_int64 * batch)(*counts),
            hidden.data_ptr(),
        )
        native.check(status, "the draft's step")
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [R, D] -> logits [R, V].

        Raises:
            ContractError: another shape, dtype or device.
        """
        hidden = hidden.contiguous()
        rows = hidden.shape[0]
        at = pointer(hidden, (rows, self._dim), _FLOAT, "hidden states")
        logits = hidden.new_empty(rows, self._size)
        if rows:
            native.check(self._logits(self._head, rows, at, logits.data_ptr()), "the draft's head")
        return logits

    def chain(
        self,
        hidden: Tensor,
        limits: list[int],
        uniforms: list[list[float]],
        sampling: SamplingConfig | Sequence[SamplingConfig],
        eos: int,
        cache: KVCache,
        cross: list[tuple[Tensor, Tensor]],
        cross_mask: Tensor | None,
        angles: Tensor,
        entropy: list[float] | None = None,
        least: list[float] | None = None,
    ) -> tuple[list[list[int]], Tensor | None]:
        """Draw up to limits[b] tokens of row b from hidden [B, 1, D], each from the law after the one before; nothing
        follows `eos`.

        uniforms [B][max(limits)], each in [0, 1): what the draws use. sampling: of all rows, or one for each. entropy
        [B]: a row stops before a law of more nats; least [B]: and after a token of less chance. Returns the tokens and
        their laws [B, longest, V], None if there are none. The cache must have room; it gets keys and values behind its
        lengths and is not advanced. The rest as in `step`.

        Raises:
            ContractError: as `step`, or a list of another length.
            NumericsError: the draft gives NaN or infinity.
        """
        batch, steps = len(limits), max(limits, default=0)
        if steps < 1 or [len(row) for row in uniforms] != [steps] * batch:
            raise ContractError(f"chains of {limits} tokens need {max(steps, 1)} uniforms a row")
        if any(bound is not None and len(bound) != batch for bound in (entropy, least)):
            raise ContractError(f"{batch} rows need as many bounds to stop at")
        how, how_step = native.samplings(sampling, batch)
        hidden = hidden.clone(memory_format=torch.contiguous_format)  # it will be overwritten
        hidden_at = pointer(hidden, (batch, 1, self._dim), _FLOAT, "hidden states")
        past, _held = self._past(batch, steps, 0, cache, cross, cross_mask, angles)
        tokens, counts = (c_int64 * (batch * steps))(), (c_int64 * batch)()
        laws = hidden.new_empty(batch, steps, self._size)
        status = self._chain(
            self._draft,
            self._head,
            how,
            how_step,
            batch,
            steps,
            (c_int64 * batch)(*limits),
            eos,
            (c_double * (batch * steps))(*[u for row in uniforms for u in row]),
            None if entropy is None else (c_double * batch)(*entropy),
            None if least is None else (c_double * batch)(*least),
            hidden_at,
            past,
            tokens,
            counts,
            laws.data_ptr(),
        )
        native.check(status, "the draft's chain")
        longest = max(counts)
        drawn = [tokens[row * steps : row * steps + count] for row, count in enumerate(counts)]
        return drawn, laws[:, :longest] if longest else None

    def _past(
        self,
        batch: int,
        count: int,
        nodes: int,
        cache: KVCache,
        cross: list[tuple[Tensor, Tensor]],
        mask: Tensor | None,
        angles: Tensor,
    ) -> tuple[CPast, list[Tensor]]:
        """What the kernel is told of the rows' past and of their text; and tensors that must live until it has
        returned. `count` positions are written behind each row, of which `nodes` (0: none) are a tree's last.
        """
        lengths, capacity = cache.lengths, cache.capacity
        written = nodes - count if nodes else 0  # nodes of the tree that lie in the cache already
        if len(lengths) != batch or min(lengths) < max(written, 0) or written < 0:
            raise ContractError(f"rows of {lengths} positions do not hold what {batch} rows need")
        reached, turns = max(lengths) + count, angles.shape[0]
        if reached > capacity or reached > turns:
            raise ContractError(f"{reached} positions do not fit into {capacity}, with {turns} rotations")
        if len(cross) != self._depth:
            raise ContractError(f"a draft of {self._depth} layers needs the text of each, not of {len(cross)}")
        held = [x.contiguous() for pair in cross for x in pair]
        memory = held[0].shape[2] if held[0].ndim == 4 else 0
        if not memory:
            raise ContractError(f"keys of the text are [B, H, S, dim_head] with S above 0, not {list(held[0].shape)}")
        text = (batch, self._heads, memory, self._dim_head)
        store = (self._depth, batch, self._heads, capacity, self._dim_head)
        keys = stacked_pointer(cache.k, store, _FLOAT, "the cache of keys")
        values = stacked_pointer(cache.v, store, _FLOAT, "the cache of values")
        if cache.k.stride(0) != cache.v.stride(0):
            raise ContractError("keys and values of the cache must lie alike")
        mask_at = None
        texts = (c_void_p * len(held))(*[pointer(x, text, _FLOAT, "keys or values of the text") for x in held])
        if mask is not None:
            held.append(mask := mask.contiguous())
            mask_at = pointer(mask, (batch, 1, 1, memory), torch.bool, "the mask of the text")
        past = CPast(
            (c_int64 * batch)(*lengths),
            pointer(angles, (turns, self._dim_head // 2), torch.complex64, "rotations"),
            keys,
            values,
            capacity,
            cache.k.stride(0),
            texts,
            memory,
            mask_at,
        )
        return past, held
