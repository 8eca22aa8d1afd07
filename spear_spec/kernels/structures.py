"""The structures and signatures of the C files (their headers, and `draft.c`) for ctypes."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_double, c_float, c_int, c_int64, c_uint64, c_void_p
from typing import Any

VERSION = 15  # as in draft.c
STRIP = 32  # as in product.h
FLOATS, HALVES, BYTES = range(3)  # as in product.h
TILE_OUT = 64  # as in bytes.h
TILE_IN = 64  # as in tiles.h
MAPS = ("to_qkv", "self_out", "to_q", "cross_out", "up", "down")


class CSampling(Structure):
    """`struct sampling`."""

    _fields_ = [("temperature", c_float), ("top_p", c_double), ("top_k", c_int64)]


class CMatrix(Structure):
    """`struct matrix`."""

    _fields_ = [("weights", c_void_p), ("in_", c_int64), ("out", c_int64), ("format", c_int64), ("scale", c_void_p)]


class CLayer(Structure):
    """`struct layer`."""

    _fields_ = [*((name, CMatrix) for name in MAPS), ("up_bias", c_void_p), ("down_bias", c_void_p)]


class CDraft(Structure):
    """`struct draft`."""

    _fields_ = [
        *((name, c_int64) for name in ("dim", "heads", "dim_head", "inner", "depth", "ids")),
        ("table", c_void_p),
        ("enter", POINTER(CMatrix)),
        ("layers", POINTER(CLayer)),
    ]


class CPast(Structure):
    """`struct past`."""

    _fields_ = [
        ("lengths", POINTER(c_int64)),
        ("angles", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("capacity", c_int64),
        ("layer_step", c_int64),
        ("cross", POINTER(c_void_p)),
        ("memory", c_int64),
        ("cross_mask", c_void_p),
    ]


class CTargetLayer(Structure):
    """`struct target_layer`."""

    _fields_ = [
        *((name, CMatrix) for name in MAPS),
        *((name, c_void_p) for name in ("self_gain", "cross_gain", "forward_gain", "up_bias", "down_bias")),
    ]


class CTarget(Structure):
    """`struct target`."""

    _fields_ = [
        *((name, c_int64) for name in ("dim", "heads", "kv_heads", "dim_head", "inner", "depth", "ids")),
        ("table", c_void_p),
        ("layers", POINTER(CTargetLayer)),
        ("gain", c_void_p),
        ("head", POINTER(CMatrix)),
    ]


class CEncoderLayer(Structure):
    """`struct encoder_layer`."""

    _fields_ = [
        *((name, CMatrix) for name in ("to_qkv", "self_out", "up", "down")),
        *((name, c_void_p) for name in ("self_gain", "forward_gain", "up_bias", "down_bias")),
    ]


class CEncoder(Structure):
    """`struct encoder`."""

    _fields_ = [
        *((name, c_int64) for name in ("dim", "heads", "dim_head", "inner", "depth", "ids", "readers")),
        ("table", c_void_p),
        ("layers", POINTER(CEncoderLayer)),
        ("gain", c_void_p),
        ("to_kv", POINTER(CMatrix)),
        ("nulls", POINTER(c_void_p)),
    ]


class CNorm(Structure):
    """`struct norm`."""

    _fields_ = [("gain", c_void_p), ("bias", c_void_p)]


class CMap(Structure):
    """`struct map`."""

    _fields_ = [("weight", CMatrix), ("bias", c_void_p)]


class CContextBlock(Structure):
    """`struct context_block`."""

    _fields_ = [
        ("taps", c_void_p),
        ("norm", CNorm),
        ("up", CMap),
        ("down", CMap),
        ("scale", c_void_p),
        ("right", c_int64),
    ]


class CVocoder(Structure):
    """`struct vocoder`."""

    _fields_ = [
        *((name, c_int64) for name in ("ids", "dim", "wide", "kernel", "hop", "phases", "n_fft")),
        *((name, c_double) for name in ("sample_rate", "f0_floor", "f0_ceil")),
        ("token_embedding", c_void_p),
        ("token_norm", CNorm),
        *((name, c_int64) for name in ("token_blocks", "prosody_blocks", "frame_blocks")),
        *((name, POINTER(CContextBlock)) for name in ("tokens", "prosody", "frames")),
        ("prosody_in", CMap),
        ("prosody_norm", CNorm),
        ("prosody_out", CMap),
        ("upsample", CMap),
        ("prosody_embedding", c_void_p),
        ("frame_norm", CNorm),
        ("head_norm", CNorm),
        ("head", CMap),
        ("window", c_void_p),
        ("roots", c_void_p),
    ]


class CBytes(Structure):
    """`struct bytes`."""

    _fields_ = [("codes", c_void_p), ("scale", c_void_p), ("in_", c_int64), ("out", c_int64)]


class CBlockLayer(Structure):
    """`struct block_layer`."""

    _fields_ = [("past", CBytes), *((name, CBytes) for name in MAPS), ("up_bias", c_void_p), ("down_bias", c_void_p)]


class CBlock(Structure):
    """`struct block`."""

    _fields_ = [
        *((name, c_int64) for name in ("dim", "heads", "dim_head", "inner", "depth", "ids", "block", "window", "rank")),
        ("table", c_void_p),
        ("enter", POINTER(CBytes)),
        ("layers", POINTER(CBlockLayer)),
        ("positions", c_void_p),
        ("head", POINTER(CBytes)),
        ("gate", POINTER(CBytes)),
        ("gate_bias", c_void_p),
        ("before", c_void_p),
        ("after", POINTER(CBytes)),
    ]


class CRound(Structure):
    """`struct round`."""

    _fields_ = [
        *((name, c_int64) for name in ("batch", "steps", "threads", "rule", "how_step", "eos")),
        ("how", POINTER(CSampling)),
        ("newest", POINTER(c_int64)),
        ("uniforms", POINTER(c_double)),
        ("draft", POINTER(CDraft)),
        ("fuse", POINTER(CMatrix)),
        ("head", POINTER(CMatrix)),
        *((name, POINTER(c_int64)) for name in ("limits", "fresh", "counts")),
        *((name, c_int64) for name in ("count", "parts", "length")),
        ("features", POINTER(c_void_p)),
        ("read", POINTER(CPast)),
        ("reached", POINTER(c_int64)),
        ("target", POINTER(CTarget)),
        ("past", POINTER(CPast)),
        ("kept", POINTER(c_void_p)),
        ("hidden", c_void_p),
        ("logits", c_void_p),
        *((name, POINTER(c_int64)) for name in ("tokens", "drafted", "accepted", "last", "used")),
        ("longest", c_int64),
    ]


_INTEGERS, _DOUBLES, _SAMPLINGS = POINTER(c_int64), POINTER(c_double), POINTER(CSampling)
# result and arguments, in the order of the C declarations
_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "spear_native_version": (c_int, []),
    "spear_philox": (None, [c_void_p, c_void_p, c_void_p]),
    "spear_uniforms": (None, [c_uint64, c_uint64, c_int64, _DOUBLES]),
    "spear_laws": (c_int, [_SAMPLINGS, c_int64, c_int64, c_int64, c_int64, c_void_p, c_void_p]),
    "spear_draft_logits": (c_int, [POINTER(CMatrix), c_int64, c_void_p, c_void_p]),
    "spear_draft_step": (
        c_int,
        [POINTER(CDraft), c_int64, c_int64, c_void_p, c_void_p]  # draft, batch, count, tokens, features
        + [POINTER(CPast), c_int64, c_void_p, c_void_p, _INTEGERS, c_void_p],  # past, the tree's, counts, hidden
    ),
    "spear_draft_fuse": (
        c_int,
        [POINTER(CMatrix), c_int64, c_int64, c_int64, c_int64, c_int64, c_void_p, c_void_p],
    ),
    "spear_draft_chain": (
        c_int,
        [POINTER(CDraft), POINTER(CMatrix), _SAMPLINGS, c_int64, c_int64, c_int64]  # ..., how_step, batch, steps
        + [_INTEGERS, c_int64, _DOUBLES, _DOUBLES, _DOUBLES]  # limits, eos, uniforms, most_entropy, least_chance
        + [c_void_p, POINTER(CPast), _INTEGERS, _INTEGERS, c_void_p],  # hidden, past, tokens, counts, laws
    ),
    "spear_block_read": (
        c_int,
        [POINTER(CBlock), c_int64, c_int64, c_void_p, c_void_p, POINTER(CPast), _INTEGERS, c_void_p],
    ),
    "spear_block_pass": (
        c_int,
        [POINTER(CBlock), c_int64, c_int64, _INTEGERS, c_void_p, POINTER(CPast)]  # block, batch, steps, counts, ...
        + [c_void_p, c_void_p, c_void_p],  # logits, gate, sure
    ),
    "spear_block_follow": (c_int, [POINTER(CBlock), c_int64, c_void_p, c_void_p, c_void_p, c_void_p]),
    "spear_block_chain": (
        c_int,
        [POINTER(CBlock), _SAMPLINGS, c_int64, c_int64, c_int64, _INTEGERS, c_int64]  # ..., steps, limits, eos
        + [_DOUBLES, _DOUBLES, _DOUBLES, c_double, c_void_p, _INTEGERS]  # uniforms, ..., cost, contexts, newest
        + [POINTER(CPast), _INTEGERS, _INTEGERS, c_void_p],  # past, tokens, counts, laws
    ),
    "spear_judge": (
        c_int,
        [c_int, c_int64, c_int64, c_int64, _INTEGERS, _INTEGERS]  # rule, batch, steps, size, tokens, counts
        + [c_void_p, c_int64, c_void_p, c_int64, _DOUBLES]  # q, step from row to row, p, the same, uniforms
        + [_INTEGERS, _INTEGERS, _INTEGERS],  # accepted, last, used
    ),
    "spear_encode": (
        c_int,
        [c_int64, POINTER(CEncoder), c_int64, c_int64, c_void_p, _INTEGERS]  # threads, encoder, batch, count, ids, ...
        + [c_void_p, c_void_p, POINTER(c_void_p)],  # angles, hidden, cross
    ),
    "spear_round": (c_int, [POINTER(CRound)]),
    "spear_large_pages": (None, [c_void_p, c_int64]),
    "spear_read": (c_float, [c_void_p, c_int64]),
    "spear_product": (None, [POINTER(CMatrix), c_int64, c_void_p, c_void_p, c_int64, c_void_p]),
    "spear_vocoder_size": (c_int64, [POINTER(CVocoder), c_double]),
    "spear_vocoder_open": (None, [POINTER(CVocoder), c_void_p, c_double, c_double, c_void_p]),
    "spear_vocoder_push": (
        c_int,
        [POINTER(CVocoder), c_void_p, c_int64, c_void_p]  # vocoder, stream, count, tokens
        + [c_void_p, c_int, c_void_p, _INTEGERS],  # noise, last, samples, made
    ),
    "spear_target_step": (
        c_int,
        [c_int64, POINTER(CTarget), c_int64, c_int64, c_int64, c_int64]  # threads, target, first, last, batch, count
        + [c_void_p, c_void_p, POINTER(CPast), c_int64, c_void_p, c_void_p]  # tokens, x, past, the tree's
        + [c_void_p, c_void_p, c_void_p, c_void_p],  # skip, features, hidden, logits
    ),
}


def declare(library: ctypes.CDLL) -> None:
    """Tell ctypes the types of every function.

    Raises:
        AttributeError: the library lacks one.
    """
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
