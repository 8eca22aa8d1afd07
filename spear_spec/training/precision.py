"""In which precision a trainer multiplies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def has_bfloat16(device: str | torch.device) -> bool:
    """Whether the device multiplies in bfloat16 by itself.

    A CPU that does not (AVX-512 without its bf16 part, AVX2) emulates it: a product takes four times as long as in
    float32.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        able: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # torch 2.11 cannot tell
        return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))  # the last: aarch64
    return kind == "cuda" and torch.cuda.is_bf16_supported()


def mixed(device: str | torch.device) -> torch.autocast:
    """bfloat16 products where the device has them, else float32 throughout."""
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=has_bfloat16(device))
