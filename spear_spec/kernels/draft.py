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
from spear_spec.kernels.matrix import Matrix, side_by_side
from spear_spec.kernels.packed import PackedLayer, PackedLinear
from spear_spec.kernels.past import Pointers, tree_pointers
from spear_spec.kernels.pointers import pointer
from spear_spec.kernels.structures import MAPS, CDraft, CLayer, CMatrix, CRound
from spear_spec.nn.cache import KVCache
from spear_spec.nn.tree import Tree

_FLOAT = torch.float32


class NativeDraft:
    """The weights of one draft as the kernel reads them.

    Pointers of a state are taken anew for each call: they move. Holds weights alone and may be used by several threads
    at once, each with a cache of its own.
    """

    def __init__(
        self,
        table: Tensor,
        enter: PackedLinear,
        layers: Sequence[PackedLayer],
        head: PackedLinear,
        fuse: PackedLinear | None = None,
    ) -> None:
        """table [ids, dim]: the token half of the entering projection; fuse [dim, features x dim], of a draft that is
        fed.

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
        self.sizes = (self._depth, self._heads, self._heads, self._dim_head)
        self._ids, self._dim = table.shape
        dim, width, inner = self._dim, first.heads * first.dim_head, len(first.up_bias) // 2
        sizes = dict(
            zip(MAPS, ((3 * width, dim), (dim, width), (width, dim), (dim, width), (2 * inner, dim), (dim, inner)))
        )
        enter_, head_ = self._matrix(enter, dim, dim), self._matrix(head, None, dim)
        maps = [[self._matrix(getattr(layer, name), *sizes[name]) for name in MAPS] for layer in layers]
        fused_ = None if fuse is None else self._matrix(fuse, dim, fuse.rounded()[0].shape[1])
        matrices = [*([] if fused_ is None else [fused_]), enter_, *(matrix for line in maps for matrix in line), head_]
        side_by_side(matrices)  # before structures are copied
        self._held += matrices
        self._enter, self._head, self._size = enter_.struct, head_.struct, int(head_.struct.out)
        self._fuse = None if fused_ is None else fused_.struct
        self._layers = (CLayer * len(layers))(
            *[
                CLayer(
                    *[matrix.struct for matrix in line],
                    self._at(layer.up_bias, (2 * inner,), _FLOAT, "a bias"),
                    self._at(layer.down_bias, (dim,), _FLOAT, "a bias"),
                )
                for layer, line in zip(layers, maps)
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

    @staticmethod
    def _matrix(packed: PackedLinear, out: int | None, inputs: int) -> Matrix:
        codes, scale = packed.rounded()
        matrix = Matrix.of_codes(codes, scale)
        if matrix.shape != (len(codes) if out is None else out, inputs):
            raise ContractError(f"8-bit weights are {list(matrix.shape)}, they must be {[out, inputs]}")
        return matrix

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
        nodes, sees, depth, _held = tree_pointers(tree, batch, count)
        tokens, features = tokens.contiguous(), features.contiguous()
        past = Pointers.of(cache).past(cache, cross, cross_mask, angles, self.sizes, batch, count, nodes)
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
            sees,
            depth,
            None if counts is None else (c_int64 * batch)(*counts),
            hidden.data_ptr(),
        )
        native.check(status, "the draft's step")
        return hidden

    def fuse(self, features: Sequence[Tensor], count: int) -> Tensor:
        """The first `count` positions of the target's features, [B, T, D] each -> what the layer is fed [B, count, D].

        Raises:
            ContractError: another number of features, shape, dtype or device.
        """
        if self._fuse is None:
            raise ContractError("this draft is not fed with features")
        return fused(self._fuse, features, count)

    def check_features(self, sizes: tuple[int, ...], batch: int, count: int) -> None:
        """Whether features of these sizes (how many, B, T, D) give `count` positions of each row through `fuse`.

        Raises:
            ContractError: they do not.
        """
        if self._fuse is None:
            raise ContractError("this draft is not fed with features")
        check_features(self._fuse, sizes, batch, count)

    def enter_round(self, round_: CRound) -> None:
        """Say of which draft the rounds of `round.py` are."""
        round_.draft, round_.head = ctypes.pointer(self._draft), ctypes.pointer(self._head)
        if self._fuse is not None:
            round_.fuse = ctypes.pointer(self._fuse)

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
        past = Pointers.of(cache).past(cache, cross, cross_mask, angles, self.sizes, batch, steps)
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


def fused(matrix: CMatrix, features: Sequence[Tensor], count: int) -> Tensor:
    """The first `count` positions of the target's features, [B, T, D] each, through a draft's `fuse` [D, features x D]
    -> [B, count, D].

    Raises:
        ContractError: another number of features, shape, dtype or device.
    """
    batch, length, dim = features[0].shape
    check_features(matrix, (len(features), batch, length, dim), batch, count)
    held = [x.contiguous() for x in features]
    places = (c_void_p * len(held))(*[pointer(x, (batch, length, dim), _FLOAT, "features") for x in held])
    out = torch.empty(batch, count, dim, dtype=_FLOAT, device="cpu")
    status = native.library().spear_draft_fuse(matrix, len(held), dim, batch, count, length, places, out.data_ptr())
    native.check(status, "the draft's features")
    return out


def check_features(matrix: CMatrix, sizes: tuple[int, ...], batch: int, count: int) -> None:
    """Whether features of these sizes (how many, B, T, D) give `count` positions of each row through this `fuse`.

    Raises:
        ContractError: they do not.
    """
    many, rows, length, dim = sizes
    if many * dim != matrix.in_ or dim != matrix.out or count > length or rows != batch:
        raise ContractError(f"{many} features [{rows}, {length}, {dim}] do not give {count} of this draft")
