"""The kernels as operations of torch, so that a dispatch mode sees them and the device `meta` knows their shapes."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding.rounds.laws import FROZEN, Kinds, Law, Settings
from spear_spec.decoding.verifiers.base import SettlingVerifier
from spear_spec.decoding.verifiers.block import BlockVerifier
from spear_spec.decoding.verifiers.coupled import CoupledVerifier
from spear_spec.decoding.verifiers.matching import MatchingVerifier
from spear_spec.decoding.verifiers.rejection import RejectionVerifier
from spear_spec.decoding.verifiers.tensors import Settled

log = logging.getLogger("spear_spec")

SWITCH = "SPEAR_SPEC_TRITON"  # 0: not even where it is installed; laws: all but whole chains
MOST_IDS = 4096  # a law is held in registers
_RULES = {BlockVerifier: 0, RejectionVerifier: 1, MatchingVerifier: 2, CoupledVerifier: 2}  # of `kernels.verify`
_TILE = 2**16  # numbers of a program's rows in the interpreter


def available(device: torch.device, ids: int) -> bool:
    """Whether rounds over so many tokens use the kernels here: on CUDA, where torch brings Triton."""
    return device.type == "cuda" and ids <= MOST_IDS and os.environ.get(SWITCH) != "0" and works(device)


@functools.cache
def works(device: torch.device) -> bool:
    """Whether there is a Triton that compiles and says what torch says. One that does not (it needs a C compiler, and a
    driver that knows its code) is told once: rounds do without it.
    """
    if importlib.util.find_spec("triton") is None:
        return False
    try:
        with torch.inference_mode():
            how = Settings.of([SamplingConfig(temperature=0.7, top_p=0.9), SamplingConfig(top_k=3, top_p=0.5)], device)
            logits = (torch.arange(80, device=device) * 7919 % 83).view(2, 40).float() / 8
            half = torch.full((2, 1), 0.5, dtype=torch.float64, device=device)
            said, right = (made(how, 40, torch.float32).draw(logits, half, 0) for made in (FusedLaw, Law))
            p = right[0][:, None].expand(2, 2, 40).contiguous()
            accepted = torch.ops.spear_spec.settle(
                right[1][:, None], torch.ones_like(right[1]), p[:, :1], p, p.new_zeros(2, 8).double(), 1, False
            )[1]
            alike = torch.allclose(said[0], right[0], atol=1e-5) and torch.equal(said[1], right[1])
            if alike and bool((accepted == 1).all()):
                return True
            why = "its numbers are others than torch's"
    except Exception as error:  # a compiler's, a driver's: whatever it is, there is another way
        why = first_line(error)
    log.warning("Triton is installed but cannot be used on %s (%s): rounds run without its kernels", device, why)
    return False


def first_line(error: Exception) -> str:
    """The first line of what a compiler or a driver says."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


class FusedLaw(Law):
    """`Law` by one kernel for each call, the draw included."""

    def __init__(self, how: Settings, vocabulary: int, dtype: torch.dtype, kinds: Kinds = Kinds()) -> None:  # noqa: B008
        self.how, self.kinds, self.dtype = how, kinds, dtype

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        law, _, total = self._run(logits, self.how.temperature[None], -1)  # no uniforms
        return law, total

    def draw(self, logits: Tensor, uniforms: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        return self._run(logits, uniforms, number)

    def _run(self, logits: Tensor, uniforms: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
        how, kinds, double = self.how, self.kinds, self.dtype == torch.float64
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.spear_spec.law(
            logits,
            how.temperature,
            how.top_k,
            how.top_p,
            uniforms,
            number,
            kinds.top_k,
            kinds.top_p,
            kinds.greedy,
            double,
        )
        return found


def settles(rule: SettlingVerifier | None) -> bool:
    """Whether there is a kernel for this rule. One that was derived from ours may decide otherwise."""
    return type(rule) in _RULES


def settle(
    rule: SettlingVerifier, tokens: Tensor, counts: Tensor, q: Tensor, p: Tensor, uniforms: Tensor, *, shares: bool
) -> Settled:
    """As the rule settles them.

    uniforms [R, N]: the row's next ones, the draft's first; those of a rule that does not share them come behind. used:
    of all of them, the draft's included.
    """
    return Settled(*torch.ops.spear_spec.settle(tokens, counts, q, p, uniforms, _RULES[type(rule)], shares))  # type: ignore[index]


def on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, whoever's the tensors are."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def power_of_two(count: int) -> int:
    """The smallest one that is not below count."""
    return 1 << max(count - 1, 0).bit_length()


def numbers(double: bool) -> tuple[Any, Any, int]:
    """REAL, WHOLE and BITS of a law: its dtype, integers as large, and how many of their bits a number up to 1 has."""
    import triton.language as tl

    return (tl.float64, tl.int64, 62) if double else (tl.float32, tl.int32, 30)


def _shape(rows: int, ids: int, device: torch.device) -> dict[str, int]:
    """How many rows a program has, and how wide they are."""
    wide = power_of_two(max(ids, 2))
    if device.type == "cuda":
        return {"R": 1, "B": wide, "num_warps": min(max(wide // 256, 1), 16)}
    return {"R": min(power_of_two(rows), max(_TILE // wide, 1)), "B": wide}


def _law(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    uniforms: Tensor,
    number: int,
    by_count: bool,
    by_mass: bool,
    greedy: bool,
    double: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    from spear_spec.decoding.rounds.fused import kernels

    laws, tokens, totals = _law_like(
        logits, temperature, top_k, top_p, uniforms, number, by_count, by_mass, greedy, double
    )
    logits, rows, ids = logits.contiguous(), totals.numel(), logits.shape[-1]
    shape = _shape(rows, ids, logits.device)
    with on(logits.device):
        kernels.law[(-(-rows // shape["R"]),)](
            logits, temperature, top_k, top_p, uniforms, laws, tokens, totals, rows, ids, rows // len(temperature),
            uniforms.shape[1], number, FROZEN, by_count, by_mass, greedy, number >= 0,
            *numbers(double), **shape,
        )  # fmt: skip
    return laws, tokens, totals


def _law_like(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, uniforms: Tensor, number: int, *how: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.float64 if how[-1] else torch.float32
    laws = torch.empty(logits.shape, dtype=dtype, device=logits.device)
    return laws, laws.new_empty(logits.shape[:-1], dtype=torch.int64), laws.new_empty(logits.shape[:-1])


def _settle(
    tokens: Tensor, counts: Tensor, q: Tensor, p: Tensor, uniforms: Tensor, rule: int, shares: bool
) -> tuple[Tensor, Tensor, Tensor]:
    import triton.language as tl

    from spear_spec.decoding.rounds.fused import kernels

    settled, accepted, used = _settle_like(tokens, counts, q, p, uniforms, rule, shares)
    tokens, counts, q, p, uniforms = (x.contiguous() for x in (tokens, counts, q, p, uniforms))
    (rows, gamma), ids = tokens.shape, p.shape[-1]
    shape = _shape(rows, ids, p.device)
    with on(p.device):
        kernels.verify[(-(-rows // shape["R"]),)](
            tokens, counts, q, p, uniforms, settled, accepted, used, rows, ids, uniforms.shape[1], gamma, rule, shares,
            tl.float64 if p.dtype == torch.float64 else tl.float32, **shape,
        )  # fmt: skip
    return settled, accepted, used


def _settle_like(
    tokens: Tensor, counts: Tensor, q: Tensor, p: Tensor, uniforms: Tensor, rule: int, shares: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return tokens.new_empty(len(tokens), tokens.shape[1] + 1), torch.empty_like(counts), torch.empty_like(counts)


LIBRARY = torch.library.Library("spear_spec", "DEF")
LIBRARY.define(
    "law(Tensor logits, Tensor temperature, Tensor top_k, Tensor top_p, Tensor uniforms, int number, bool by_count, "
    "bool by_mass, bool greedy, bool double) -> (Tensor, Tensor, Tensor)"
)
LIBRARY.define(
    "settle(Tensor tokens, Tensor counts, Tensor q, Tensor p, Tensor uniforms, int rule, bool shares) "
    "-> (Tensor, Tensor, Tensor)"
)
for _name, _real, _like in (("law", _law, _law_like), ("settle", _settle, _settle_like)):
    for _device in ("CPU", "CUDA"):
        LIBRARY.impl(_name, _real, _device)
    LIBRARY.impl(_name, _like, "Meta")
