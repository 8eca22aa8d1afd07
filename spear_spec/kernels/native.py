"""What the package computes in C: loading the library, laws of tokens (`law.c`), uniforms (`philox.c`).

The draft's part is in `draft.py`. For builds that had a compiler: without it everything runs on torch.

Loaded by ctypes rather than imported: the C files then need no Python headers and one build serves every Python.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Sequence
from ctypes import c_double
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.errors import ContractError, NumericsError
from spear_spec.kernels import structures
from spear_spec.kernels.pointers import pointer
from spear_spec.kernels.structures import CSampling

log = logging.getLogger("spear_spec")

SWITCH = "SPEAR_SPEC_NATIVE"  # environment: "0" keeps the kernel out
_ALL = 2**64  # seeds and draws are counted below it


def available() -> bool:
    """Whether the kernel can be used; `reason` says why not."""
    return reason() is None


def reason() -> str | None:
    """Why the kernel cannot be used, in one line; None if it can."""
    if os.environ.get(SWITCH) == "0":
        return f"{SWITCH}=0"
    return _load()[1]


def library() -> ctypes.CDLL:
    """The library; whoever asks has looked at `available`.

    Raises:
        RuntimeError: there is none.
    """
    loaded, why = _load()
    if loaded is None:
        raise RuntimeError(why)
    return loaded


@cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    """The library, or why there is none. Tried once a process."""
    loaded, why = _open(Path(__file__).parent)
    log.debug("native kernel: %s", why or "loaded")
    return loaded, why


def _open(folder: Path) -> tuple[ctypes.CDLL | None, str | None]:
    built = sorted(folder.glob("_native*.so"))
    if not built:
        return None, "not built: the package was installed without a working C compiler"
    try:
        loaded = ctypes.CDLL(str(built[0]))
        version = loaded.spear_native_version()
        if version != structures.VERSION:
            return None, f"{built[0].name} was built from another version of draft.c: install the package again"
        structures.declare(loaded)
    except (OSError, AttributeError) as error:
        return None, f"{built[0].name} cannot be loaded: {error}"
    return loaded, None


def check(status: int, what: str) -> None:
    """Raise what a call's return value stands for (the enumeration in common.h).

    Raises:
        MemoryError, ContractError, NumericsError: see there.
    """
    if status == 1:
        raise MemoryError(what)
    if status == 2:
        raise ContractError(f"{what} was given a token id that it does not have")
    if status == 3:
        raise NumericsError
    if status == 4:
        raise ContractError(f"{what} was given a tree in which a node lies deeper than there are nodes")


def law_of(logits: Tensor, sampling: SamplingConfig | Sequence[SamplingConfig]) -> Tensor:
    """`decoding.sampling.probabilities` of float32 logits on the CPU: [B, ..., V] -> [B, ..., V].

    sampling: one for all rows, or one for each of the B.

    Raises:
        NumericsError: a logit is NaN or infinite.
        ContractError: logits of another dtype or device, no logits, or another number of samplings than rows.
    """
    size = logits.shape[-1] if logits.ndim else 0
    if not size:
        raise ContractError(f"laws are made of logits [..., V], not of {list(logits.shape)}")
    batch = 1 if isinstance(sampling, SamplingConfig) or logits.ndim == 1 else logits.shape[0]
    how, step = samplings(sampling, batch)
    logits = logits.contiguous()
    at = pointer(logits, logits.shape, torch.float32, "logits")
    laws = torch.empty_like(logits)
    if not laws.numel():
        return laws
    status = library().spear_laws(
        how,
        step,
        batch,
        logits.numel() // size // batch,
        size,
        at,
        laws.data_ptr(),
    )
    check(status, "the law of tokens")
    return laws


def samplings(sampling: SamplingConfig | Sequence[SamplingConfig], batch: int) -> tuple[ctypes.Array[CSampling], int]:
    """The settings as C reads them, and the step from one row's to the next: 0 where all rows share one.

    Raises:
        ContractError: not one for each row.
    """
    if isinstance(sampling, SamplingConfig):
        return (CSampling * 1)(_sampling(sampling)), 0
    if len(sampling) != batch:
        raise ContractError(f"{batch} rows need as many sampling settings, not {len(sampling)}")
    return (CSampling * batch)(*map(_sampling, sampling)), 1


def _sampling(sampling: SamplingConfig) -> CSampling:
    return CSampling(sampling.temperature, sampling.top_p, min(sampling.top_k, 2**62))  # C would wrap around


def uniforms(seed: int, first: int, count: int) -> list[float]:
    """u(seed, first), u(seed, first + 1), ...: `count` of the stream of uniforms in [0, 1) that `philox.h` defines.

    Raises:
        ContractError: seed or draws are not within 0 to 2^64 - 1, or count is negative.
    """
    if not (0 <= seed < _ALL and first >= 0 and count >= 0 and first + count <= _ALL):
        raise ContractError(f"there are no draws {first} to {first + count} of seed {seed}: both lie in 0 to 2^64 - 1")
    out = (c_double * count)()
    library().spear_uniforms(seed, first, count, out)
    return out[:]
