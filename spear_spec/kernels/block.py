"""The block decoder in C (`block.c`): reading settled tokens, one pass, and whole drafts."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_double, c_int64
from dataclasses import dataclass

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.errors import ContractError
from spear_spec.kernels import native
from spear_spec.kernels.draft import fused
from spear_spec.kernels.matrix import Matrix, Movable, side_by_side
from spear_spec.kernels.packed import PackedLayer, PackedLinear
from spear_spec.kernels.past import Pointers
from spear_spec.kernels.pointers import pointer
from spear_spec.kernels.rounded import RoundedLinear, Tiles
from spear_spec.kernels.structures import MAPS, CBlock, CBlockLayer, CBytes
from spear_spec.nn.cache import KVCache

_FLOAT = torch.float32
Cross = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class BlockWeights:
    """Weights of a block decoder, see `BlockRunner`: table [ids, D], enter [D, D], the maps of each layer, gains of
    norms folded in, positions [block, D], head [V, D], gate [rank + 1, D] and its bias, before [ids, rank], after
    [V, rank], fuse [D, features x D].
    """

    table: Tensor
    enter: RoundedLinear
    layers: Sequence[PackedLayer[RoundedLinear]]
    positions: Tensor
    head: RoundedLinear
    gate: RoundedLinear
    gate_bias: Tensor
    before: Tensor
    after: RoundedLinear
    fuse: PackedLinear
    window: int


class NativeBlock:
    """The weights of one block decoder as the kernel reads them. Threads may share it, each with a cache of its own."""

    def __init__(self, weights: BlockWeights) -> None:
        """Everything on the CPU, what is not a map in float32.

        Raises:
            ContractError: weights whose shapes do not fit together, of another dtype or device.
        """
        loaded = native.library()
        self._read, self._pass = loaded.spear_block_read, loaded.spear_block_pass
        self._follow, self._chain = loaded.spear_block_follow, loaded.spear_block_chain
        self._fuse = Matrix.of_codes(*weights.fuse.rounded())
        self._held: list[object] = []  # what the structures point at
        self.ids, self.dim = weights.table.shape
        first = weights.layers[0]
        self.heads, self.dim_head, self.depth = first.heads, first.dim_head, len(weights.layers)
        self.block, self.window, self.rank = len(weights.positions), weights.window, weights.before.shape[1]
        self.size = weights.head.shape[0]
        self._sizes = (self.depth, self.heads, self.heads, self.dim_head)
        dim, width, inner = self.dim, self.heads * self.dim_head, first.down.shape[1]
        sizes = ((3 * width, dim), (dim, width), (width, dim), (dim, width), (2 * inner, dim), (dim, inner))
        expected = dict(zip(MAPS, sizes))
        maps = [
            [self._tiles(getattr(layer, name), shape, name) for name, shape in expected.items()]
            for layer in weights.layers
        ]
        enter_ = self._tiles(weights.enter, (dim, dim), "the entering map")
        rest = [
            self._tiles(weights.head, (self.size, dim), "the head"),
            self._tiles(weights.gate, (self.rank + 1, dim), "the gate"),
            self._tiles(weights.after, (self.size, self.rank), "what follows the token before"),
        ]
        matrices: list[Movable] = [self._fuse, enter_, *(tiles for line in maps for tiles in line), *rest]
        side_by_side(matrices)  # before structures are copied
        self._held += matrices
        self._layers = (CBlockLayer * self.depth)(
            *[
                CBlockLayer(
                    self._past(line[0], layer.to_qkv, width),
                    *[tiles.struct for tiles in line],
                    self._at(layer.up_bias, (2 * inner,), "a bias"),
                    self._at(layer.down_bias, (dim,), "a bias"),
                )
                for layer, line in zip(weights.layers, maps)
            ]
        )
        self._maps = [enter_.struct, *(tiles.struct for tiles in rest)]
        enter, head, gate, after = map(ctypes.pointer, self._maps)
        self._block = CBlock(
            *(dim, self.heads, self.dim_head, inner, self.depth, self.ids, self.block, self.window, self.rank),
            self._at(weights.table, (self.ids, dim), "the table of tokens"),
            enter,
            self._layers,
            self._at(weights.positions, (self.block, dim), "positions"),
            head,
            gate,
            self._at(weights.gate_bias, (self.rank + 1,), "a bias"),
            self._at(weights.before, (self.ids, self.rank), "the token before"),
            after,
        )

    def _at(self, weight: Tensor, shape: tuple[int, ...], name: str) -> int:
        weight = weight.detach().contiguous()
        self._held.append(weight)
        return pointer(weight, shape, _FLOAT, name)

    @staticmethod
    def _tiles(weight: RoundedLinear, shape: tuple[int, ...], name: str) -> Tiles:
        if weight.shape != shape:
            raise ContractError(f"{name} is {list(weight.shape)}, it must be {list(shape)}")
        return weight.packed()

    def _past(self, tiles: Tiles, to_qkv: RoundedLinear, width: int) -> CBytes:
        """What makes keys and values of a context: the layer's own map without queries."""
        found = tiles.behind(width)
        if found is None:
            own = to_qkv.packed(width)
            self._held.append(own)
            found = own.struct
        return found

    def fuse(self, features: Sequence[Tensor], count: int) -> Tensor:
        """The first `count` positions of the target's features, [B, T, D] each -> [B, count, D].

        Raises:
            ContractError: another number of features, shape, dtype or device.
        """
        return fused(self._fuse.struct, features, count)

    def read(
        self,
        tokens: Tensor,
        features: Tensor,
        cache: KVCache,
        cross: Cross,
        cross_mask: Tensor | None,
        angles: Tensor,
        counts: list[int] | None = None,
    ) -> Tensor:
        """tokens [B, n], features [B, n, D] -> contexts [B, n, D]; writes keys and values, does not advance the cache.

        The cache must have room. counts [B]: tokens of each row that are there; the rest is padding and gives 0.

        Raises:
            ContractError: a tensor of another shape, dtype or device, no room in the cache, an unknown token.
        """
        batch, count = tokens.shape if tokens.ndim == 2 else (0, 0)
        if not batch or not count:
            raise ContractError(f"the draft reads tokens [B, n], not {list(tokens.shape)}")
        if counts is not None and (len(counts) != batch or not all(0 <= n <= count for n in counts)):
            raise ContractError(f"rows of at most {count} tokens cannot hold {counts}")
        tokens, features = tokens.contiguous(), features.contiguous()
        past = Pointers.of(cache).past(cache, cross, cross_mask, angles, self._sizes, batch, count)
        features_at = pointer(features, (batch, count, self.dim), _FLOAT, "features")
        contexts = torch.empty_like(features)
        status = self._read(
            self._block,
            batch,
            count,
            pointer(tokens, (batch, count), torch.int64, "tokens"),
            features_at,
            past,
            None if counts is None else (c_int64 * batch)(*counts),
            contexts.data_ptr(),
        )
        native.check(status, "the block decoder")
        return contexts

    def ahead(
        self,
        contexts: Tensor,
        counts: Sequence[int],
        cache: KVCache,
        cross: Cross,
        cross_mask: Tensor | None,
        angles: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass behind contexts [B, 1, D] of counts[b] positions: the logits [B, K, V] that do not look at the token
        before, gates [B, K, rank] and chances [B, K], zero where there is no position. The cache must have room.

        Raises:
            ContractError: as `read`, or counts below 1 or above the block.
        """
        batch, steps = len(counts), max(counts, default=0)
        self._check_counts(counts)
        contexts = contexts.contiguous()
        at = pointer(contexts, (batch, 1, self.dim), _FLOAT, "contexts")
        past = Pointers.of(cache).past(cache, cross, cross_mask, angles, self._sizes, batch, steps)
        logits = contexts.new_zeros(batch, steps, self.size)
        gate, sure = contexts.new_zeros(batch, steps, self.rank), contexts.new_zeros(batch, steps)
        status = self._pass(
            self._block, batch, steps, (c_int64 * batch)(*counts), at, past, logits.data_ptr(), gate.data_ptr(),
            sure.data_ptr(),
        )  # fmt: skip
        native.check(status, "the block decoder's pass")
        return logits, gate, sure

    def follow(self, logits: Tensor, gate: Tensor, before: Tensor) -> Tensor:
        """logits [R, V] and gate [R, rank] of a position, the tokens before it [R] -> logits [R, V].

        Raises:
            ContractError: as `read`.
        """
        rows = len(before)
        logits, gate, before = logits.contiguous(), gate.contiguous(), before.contiguous()
        out = torch.empty_like(logits)
        status = self._follow(
            self._block,
            rows,
            pointer(logits, (rows, self.size), _FLOAT, "logits"),
            pointer(gate, (rows, self.rank), _FLOAT, "gates"),
            pointer(before, (rows,), torch.int64, "tokens"),
            out.data_ptr(),
        )
        native.check(status, "the block decoder")
        return out

    def chain(
        self,
        contexts: Tensor,
        newest: list[int],
        limits: list[int],
        uniforms: list[list[float]],
        sampling: SamplingConfig | Sequence[SamplingConfig],
        eos: int,
        cache: KVCache,
        cross: Cross,
        cross_mask: Tensor | None,
        angles: Tensor,
        entropy: list[float] | None = None,
        least: list[float] | None = None,
        cost: float | None = None,
    ) -> tuple[list[list[int]], Tensor | None]:
        """One pass behind contexts [B, 1, D] of the newest tokens, and up to limits[b] draws from left to right;
        nothing follows `eos`.

        uniforms, sampling, entropy, least and the result: see `NativeDraft.chain`. cost: a row drafts as many tokens as
        promise most by the pass's own chances, where one more costs so much of a call; None: as many as it may. The
        cache must have room; it gets keys and values behind its lengths and is not advanced.

        Raises:
            ContractError: as `ahead`, or a list of another length. NumericsError: the draft gives NaN or infinity.
        """
        batch, steps = len(limits), max(limits, default=0)
        self._check_counts(limits)
        if len(newest) != batch or [len(row) for row in uniforms] != [steps] * batch:
            raise ContractError(f"drafts of {limits} tokens need as many newest tokens, and {steps} uniforms a row")
        if any(bound is not None and len(bound) != batch for bound in (entropy, least)):
            raise ContractError(f"{batch} rows need as many bounds to stop at")
        how, how_step = native.samplings(sampling, batch)
        contexts = contexts.contiguous()
        at = pointer(contexts, (batch, 1, self.dim), _FLOAT, "contexts")
        past = Pointers.of(cache).past(cache, cross, cross_mask, angles, self._sizes, batch, steps)
        tokens, counts = (c_int64 * (batch * steps))(), (c_int64 * batch)()
        laws = contexts.new_zeros(batch, steps, self.size) if batch > 1 else contexts.new_empty(1, steps, self.size)
        status = self._chain(
            self._block,
            how,
            how_step,
            batch,
            steps,
            (c_int64 * batch)(*limits),
            eos,
            (c_double * (batch * steps))(*[u for row in uniforms for u in row]),
            None if entropy is None else (c_double * batch)(*entropy),
            None if least is None else (c_double * batch)(*least),
            -1.0 if cost is None else cost,
            at,
            (c_int64 * batch)(*newest),
            past,
            tokens,
            counts,
            laws.data_ptr(),
        )
        native.check(status, "the block decoder's draft")
        longest = max(counts)
        drawn = [tokens[row * steps : row * steps + count] for row, count in enumerate(counts)]
        return drawn, laws[:, :longest] if longest else None

    def _check_counts(self, counts: Sequence[int]) -> None:
        if not counts or not all(0 < count <= self.block for count in counts):
            raise ContractError(f"a pass has 1 to {self.block} positions a row, not {list(counts)}")
