"""The text's encoder in C (`encoder.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_int64, c_void_p
from dataclasses import dataclass

import torch
from torch import Tensor

from spear_spec.errors import ContractError
from spear_spec.kernels import native
from spear_spec.kernels.matrix import Matrix, side_by_side
from spear_spec.kernels.pointers import pointer
from spear_spec.kernels.structures import CEncoder, CEncoderLayer, CMatrix

_FLOAT = torch.float32
_MAPS = ("to_qkv", "self_out", "up", "down")
_VECTORS = ("self_gain", "forward_gain", "up_bias", "down_bias")
Cross = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class EncodingLayer:
    """Weights of one encoder layer, float32: maps [out, in], gains of the norms before self-attention and feed-forward
    [dim], biases.
    """

    to_qkv: Tensor
    self_out: Tensor
    up: Tensor
    down: Tensor
    self_gain: Tensor
    forward_gain: Tensor
    up_bias: Tensor
    down_bias: Tensor


class NativeEncoder:
    """The encoder of one target. Holds weights alone: threads may share it."""

    def __init__(
        self,
        layers: Sequence[EncodingLayer],
        table: Tensor,
        gain: Tensor,
        readers: Sequence[tuple[Tensor, Tensor]],
        *,
        heads: int,
        dim_head: int,
    ) -> None:
        """table [ids, dim]: vectors of the symbols; gain [dim]: of the last norm; readers: of each decoder layer the
        map to keys and values [2 heads dim_head, dim] and the null key and value [2, heads, 1, dim_head].

        Raises:
            ContractError: weights whose shapes do not fit together, of another dtype or device.
        """
        self._call = native.library().spear_encode
        self._held: list[object] = []  # what the structures point at
        ids, dim = table.shape
        inner, width = layers[0].down.shape[1], heads * dim_head
        shapes = dict(zip(_MAPS, ((3 * width, dim), (dim, width), (2 * inner, dim), (dim, inner))))
        lengths = dict(zip(_VECTORS, (dim, dim, 2 * inner, dim)))
        for layer in layers:
            for name, shape in shapes.items():
                if getattr(layer, name).shape != shape:
                    raise ContractError(f"{name} is {list(getattr(layer, name).shape)}, it must be {list(shape)}")
        if any(to_kv.shape != (2 * width, dim) for to_kv, _ in readers):
            raise ContractError(f"maps to keys and values must be {[2 * width, dim]}")
        maps = [[Matrix(getattr(layer, name)) for name in _MAPS] for layer in layers]
        to_kv = [Matrix(weight) for weight, _ in readers]
        matrices = [*(matrix for line in maps for matrix in line), *to_kv]
        side_by_side(matrices)  # before structures are copied
        self._held += matrices
        self._layers = (CEncoderLayer * len(layers))(
            *[
                CEncoderLayer(
                    *[matrix.struct for matrix in line],
                    *[self._at(getattr(layer, name), (lengths[name],), name) for name in _VECTORS],
                )
                for layer, line in zip(layers, maps)
            ]
        )
        self._kv = (CMatrix * len(to_kv))(*[matrix.struct for matrix in to_kv])
        self._nulls = (c_void_p * len(readers))(
            *[self._at(null, (2, heads, 1, dim_head), "a null key and value") for _, null in readers]
        )
        self._sizes = (dim, heads, dim_head)
        self._encoder = CEncoder(
            *(dim, heads, dim_head, inner, len(layers), ids, len(readers)),
            self._at(table, (ids, dim), "the table of symbols"),
            self._layers,
            self._at(gain, (dim,), "a gain"),
            self._kv,
            self._nulls,
        )

    def _at(self, weight: Tensor, shape: tuple[int, ...], name: str) -> int:
        weight = weight.detach().contiguous()
        self._held.append(weight)
        return pointer(weight, shape, _FLOAT, name)

    def run(self, ids: Tensor, counts: Sequence[int], angles: Tensor) -> tuple[Tensor, Cross]:
        """ids int64 [B, S], of which counts[b] are text -> hidden [B, S, D], zero behind the text, and k, v
        [B, H, 1 + S, dim_head] of each decoder layer, null first. angles: complex [at least S, dim_head / 2].

        Raises:
            ContractError: a tensor of another shape, dtype or device, an unknown symbol.
        """
        batch, length = ids.shape if ids.ndim == 2 else (0, 0)
        if not batch or not length or len(counts) != batch or not all(0 <= count <= length for count in counts):
            raise ContractError(f"texts [B, S] with lengths up to S, not {list(ids.shape)} with {list(counts)}")
        dim, heads, dim_head = self._sizes
        if angles.shape[0] < length:
            raise ContractError(f"{length} symbols need as many rotations, not {angles.shape[0]}")
        ids = ids.contiguous()
        hidden = torch.empty(batch, length, dim, dtype=_FLOAT, device="cpu")
        shape = (len(self._kv), 2, batch, heads, 1 + length, dim_head)
        store = torch.empty(shape, dtype=_FLOAT, device="cpu")
        size = 4 * store[0, 0].numel()
        places = (c_void_p * (2 * len(self._kv)))(*[store.data_ptr() + at * size for at in range(2 * len(self._kv))])
        status = self._call(
            torch.get_num_threads(),
            self._encoder,
            batch,
            length,
            pointer(ids, (batch, length), torch.int64, "texts"),
            (c_int64 * batch)(*counts),
            pointer(angles, (angles.shape[0], dim_head // 2), torch.complex64, "rotations"),
            hidden.data_ptr(),
            places,
        )
        native.check(status, "the encoder")
        return hidden, [(k, v) for k, v in (pair.unbind(0) for pair in store.unbind(0))]
