"""Rules for chains in C (`judge.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import c_double, c_int64

import torch
from torch import Tensor

from spear_spec.errors import ContractError
from spear_spec.kernels import native
from spear_spec.kernels.pointers import pointer

RULES = ("rejection", "block", "coupled")  # as C numbers them


def judge(
    rule: str, drafts: Sequence[Sequence[int]], q: Tensor | None, p: Tensor, uniforms: Sequence[Sequence[float]]
) -> list[tuple[int, int, int]]:
    """Of each row's draft: tokens that are kept, the recovered or bonus token, uniforms used. By rejection, as a
    whole (block), or by drawing every token from p (coupled).

    q [B, at least the longest draft, V]: laws that the tokens were drawn from, None for tokens chosen without chance; p
    [B, one more, V]: the target's. uniforms [B][longest + 1]: what the trials and then the last draw use.

    Raises:
        ContractError: other shapes, dtypes or devices, a token without a law.
    """
    batch, steps = len(drafts), max((len(row) for row in drafts), default=0)
    if p.ndim != 3 or p.shape[0] != batch or p.shape[1] < steps + 1:
        raise ContractError(f"chains of {steps} tokens need {steps + 1} laws a row, not {list(p.shape)}")
    size = p.shape[2]
    if any(not 0 <= token < size for row in drafts for token in row):
        raise ContractError(f"a draft holds a token that is not below {size}")
    if len(uniforms) != batch or any(len(row) != steps + 1 for row in uniforms):
        raise ContractError(f"chains of {steps} tokens need {steps + 1} uniforms a row")
    p = p.contiguous()
    at = pointer(p, p.shape, torch.float32, "laws")
    q_at, q_step = None, 0
    if q is not None and steps:
        q = q.contiguous()
        if q.ndim != 3 or q.shape[0] != batch or q.shape[1] < steps or q.shape[2] != size:
            raise ContractError(f"chains of {steps} tokens need as many laws a row, not {list(q.shape)}")
        q_at, q_step = pointer(q, q.shape, torch.float32, "laws of the draft"), q.shape[1] * size
    accepted, last, used = ((c_int64 * batch)() for _ in range(3))
    status = native.library().spear_judge(
        RULES.index(rule),
        batch,
        steps,
        size,
        (c_int64 * max(batch * steps, 1))(*[token for row in drafts for token in [*row, *[0] * (steps - len(row))]]),
        (c_int64 * batch)(*[len(row) for row in drafts]),
        q_at,
        q_step,
        at,
        p.shape[1] * size,
        (c_double * (batch * (steps + 1)))(*[u for row in uniforms for u in row]),
        accepted,
        last,
        used,
    )
    native.check(status, "the rule")
    return list(zip(accepted, last, used))
