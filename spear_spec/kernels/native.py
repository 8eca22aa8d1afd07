"""The draft's step, its head, laws and whole chains in C (`native.c`, `law.c`), for builds that had a compiler;
without it
everything runs on torch.

Loaded by ctypes rather than imported: the C file then needs no Python headers and one build serves every Python.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Sequence
from ctypes import POINTER, Structure, c_double, c_float, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.errors import NumericsError
from spear_spec.kernels.packed import PackedLayer, PackedLinear
from spear_spec.nn.cache import KVCache
from spear_spec.nn.tree import Tree

log = logging.getLogger("spear_spec")

SWITCH = "SPEAR_SPEC_NATIVE"  # environment: "0" keeps the kernel out
_VERSION, _PANEL = 2, 64  # as in native.c
_MAPS = ("to_qkv", "self_out", "to_q", "cross_out", "up", "down")


def available() -> bool:
    """Whether the kernel can be used; `reason` says why not."""
    return reason() is None


def reason() -> str | None:
    """Why the kernel cannot be used, in one line; None if it can."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    return _load()[1]


@cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or why there is none. Tried once a process."""
    library, why = _open(Path(__file__).parent)
    log.debug("native draft step: %s", why or "loaded")
    return library, why


def _open(folder: Path) -> tuple[ctypes.CDLL | None, str | None]:
    built = sorted(folder.glob("_native*.so"))
    if not built:
        return None, "not built: the package was installed without a working C compiler"
    try:
        library = ctypes.CDLL(str(built[0]))
        version = library.spear_native_version()
    except (OSError, AttributeError) as error:
        return None, f"{built[0].name} cannot be loaded: {error}"
    if version != _VERSION:
        return None, f"{built[0].name} was built from another version of native.c: install the package again"
    library.spear_draft_step.argtypes = _STEP
    library.spear_draft_logits.argtypes = [c_void_p, c_int64, c_void_p, c_void_p]
    library.spear_laws.argtypes = [POINTER(_Sampling), c_int64, c_int64, c_void_p, c_void_p]
    library.spear_draft_chain.argtypes = _CHAIN
    return library, None


class _Linear(Structure):
    _fields_ = [("codes", c_void_p), ("scale", c_void_p), ("in_", c_int64), ("out", c_int64)]


class _Layer(Structure):
    _fields_ = [*((name, _Linear) for name in _MAPS), ("up_bias", c_void_p), ("down_bias", c_void_p)]


class _Draft(Structure):
    _fields_ = [
        *((name, c_int64) for name in ("dim", "heads", "dim_head", "inner", "depth", "ids")),
        ("table", c_void_p),
        ("enter", POINTER(_Linear)),
        ("layers", POINTER(_Layer)),
    ]


class _Sampling(Structure):
    _fields_ = [("temperature", c_float), ("top_p", c_double), ("top_k", c_int64)]


_PAST: list[Any] = [
    POINTER(c_int64),
    c_void_p,
    c_void_p,
    c_void_p,
    c_int64,
    c_int64,
    POINTER(c_void_p),
    c_int64,
    c_void_p,
]  # see `_past`
_STEP: list[Any] = [
    c_void_p,
    c_int64,
    c_int64,
    c_void_p,
    c_void_p,
    *_PAST,
    c_int64,
    c_void_p,
    c_void_p,
    POINTER(c_int64),
    c_void_p,
]
_CHAIN: list[Any] = [
    c_void_p,
    c_void_p,
    POINTER(_Sampling),
    c_int64,
    c_int64,
    POINTER(c_int64),
    c_int64,
    POINTER(c_double),
    POINTER(c_double),
    POINTER(c_double),
    c_void_p,
    *_PAST,
    POINTER(c_int64),
    POINTER(c_int64),
    c_void_p,
]


def _check(status: int, what: str) -> None:
    """Raise what a call's return value stands for."""
    if status == 1:
        raise MemoryError(what)
    if status == 2:
        raise IndexError("a token id that the draft does not have")
    if status == 3:
        raise NumericsError


def law_of(logits: Tensor, sampling: SamplingConfig) -> Tensor:
    """`decoding.sampling.probabilities` of float32 logits on the CPU, [..., V] -> [..., V].

    Raises:
        NumericsError: a logit is NaN or infinite.
    """
    library, why = _load()
    if library is None:
        raise RuntimeError(why)
    logits = logits.contiguous()
    out = torch.empty_like(logits)
    size = logits.shape[-1]
    _check(
        library.spear_laws(_how(sampling), logits.numel() // size, size, logits.data_ptr(), out.data_ptr()),
        "laws of tokens",
    )
    return out


def _how(sampling: SamplingConfig) -> _Sampling:
    return _Sampling(sampling.temperature, sampling.top_p, sampling.top_k)


class NativeDraft:
    """The weights of one draft as the kernel reads them. Pointers of a state are taken anew for each step: they
    move.
    """

    def __init__(self, table: Tensor, enter: PackedLinear, layers: Sequence[PackedLayer], head: PackedLinear) -> None:
        """table [ids, dim]: the token half of the entering projection.

        Everything float32 on the CPU, the maps packed.
        """
        library, why = _load()
        if library is None:
            raise RuntimeError(why)
        self._step, self._logits, self._chain = (
            library.spear_draft_step,
            library.spear_draft_logits,
            library.spear_draft_chain,
        )
        self._held: list[object] = []  # what the structures point at
        first = layers[0]
        self._enter, self._head = self._linear(enter), self._linear(head)
        self._layers = (_Layer * len(layers))(
            *[
                _Layer(
                    *[self._linear(getattr(layer, name)) for name in _MAPS],
                    self._at(layer.up_bias),
                    self._at(layer.down_bias),
                )
                for layer in layers
            ]
        )
        ids, dim = table.shape
        self._draft = _Draft(
            dim,
            first.heads,
            first.dim_head,
            len(first.up_bias) // 2,
            len(layers),
            ids,
            self._at(table),
            ctypes.pointer(self._enter),
            self._layers,
        )
        self._address = ctypes.addressof(self._draft)

    def _at(self, weight: Tensor) -> int:
        weight = weight.detach().contiguous()
        self._held.append(weight)
        return weight.data_ptr()

    def _linear(self, packed: PackedLinear) -> _Linear:
        """Codes [out, in] -> [panels, in, 16, 4]: a panel of outputs at a time, read in one stream; output 16 q + j
        in byte q of word j.
        """
        codes, scale = packed.rounded()
        out, inputs = codes.shape
        panels = F.pad(codes, (0, 0, 0, -out % _PANEL)).view(-1, 4, _PANEL // 4, inputs).permute(0, 3, 2, 1)
        return _Linear(self._at(panels), self._at(scale.float()), inputs, out)

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

        The cache must have room. cross: k, v [B, H, S, D] of each layer; cross_mask [B, 1, 1, S]; angles: complex
        [positions,
        D/2]; tree as in `cached_positions`. counts [B]: tokens of each row that are there; the rest is padding and
        gives 0.
        """
        batch, count = tokens.shape
        tokens, features = tokens.contiguous(), features.contiguous()
        past, _held = _past(cache, cross, cross_mask, angles)
        sees = depth = None
        if tree is not None:
            sees, depth = tree.mask[:, -count:].contiguous(), tree.depth[:, -count:].contiguous()
        hidden = torch.empty_like(features)
        status = self._step(
            self._address,
            batch,
            count,
            tokens.data_ptr(),
            features.data_ptr(),
            *past,
            0 if sees is None else sees.shape[2],
            None if sees is None else sees.data_ptr(),
            None if depth is None else depth.data_ptr(),
            None if counts is None else (c_int64 * batch)(*counts),
            hidden.data_ptr(),
        )
        _check(status, "the draft's step")
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [R, D] -> logits [R, V]."""
        hidden = hidden.contiguous()
        logits = torch.empty(len(hidden), self._head.out)
        _check(
            self._logits(ctypes.addressof(self._head), len(hidden), hidden.data_ptr(), logits.data_ptr()),
            "the draft's head",
        )
        return logits

    def chain(
        self,
        hidden: Tensor,
        limits: list[int],
        uniforms: list[list[float]],
        sampling: SamplingConfig,
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

        uniforms [B][max(limits)], each in [0, 1): what the draws use. entropy [B]: a row stops before a law of more
        nats;
        least [B]: and after a token of less chance. Returns the tokens and their laws [B, longest, V], None if there
        are none.
        The cache must have room; it gets keys and values behind its lengths and is not advanced. The rest as in `step`.
        """
        batch, steps = len(limits), max(limits)
        past, _held = _past(cache, cross, cross_mask, angles)
        hidden = hidden.clone()
        tokens, counts = (c_int64 * (batch * steps))(), (c_int64 * batch)()
        laws = torch.empty(batch, steps, self._head.out)
        _check(
            self._chain(
                self._address,
                ctypes.addressof(self._head),
                _how(sampling),
                batch,
                steps,
                (c_int64 * batch)(*limits),
                eos,
                (c_double * (batch * steps))(*[u for row in uniforms for u in row]),
                None if entropy is None else (c_double * batch)(*entropy),
                None if least is None else (c_double * batch)(*least),
                hidden.data_ptr(),
                *past,
                tokens,
                counts,
                laws.data_ptr(),
            ),
            "the draft's chain",
        )
        longest = max(counts)
        return [tokens[row * steps : row * steps + count] for row, count in enumerate(counts)], laws[
            :, :longest
        ] if longest else None


def _past(
    cache: KVCache, cross: list[tuple[Tensor, Tensor]], mask: Tensor | None, angles: Tensor
) -> tuple[list[Any], list[Tensor]]:
    """What the kernel is told of the rows' past and of their text; and tensors that must live until it has returned."""
    held = [x if x.is_contiguous() else x.contiguous() for pair in cross for x in pair]
    texts = (c_void_p * len(held))(*[x.data_ptr() for x in held])
    if mask is not None:
        held.append(mask := mask.contiguous())
    return [
        (c_int64 * cache.batch)(*cache.lengths),
        angles.data_ptr(),
        cache.k.data_ptr(),
        cache.v.data_ptr(),
        cache.capacity,
        cache.k.stride(0),
        texts,
        held[0].shape[2],
        None if mask is None else mask.data_ptr(),
    ], held
