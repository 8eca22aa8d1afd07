"""Shapes of the draft decoders that are trained for a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spear_spec.models.contract import Geometry


def decoder(target: Geometry, sizes: Mapping[str, int]) -> dict[str, Any]:
    """A layer as wide as the target's, with a narrower feed-forward, that sees tokens and text alone."""
    return {
        "dim": target.dim, "heads": target.heads, "dim_head": target.dim_head, "ff_mult": sizes["ff_mult"]
    }  # fmt: skip


def decoder_with(
    more: Callable[[Geometry, Mapping[str, int]], Mapping[str, Any]],
) -> Callable[[Geometry, Mapping[str, int]], dict[str, Any]]:
    """The same with further fields of `DraftConfig`."""
    return lambda target, sizes: {**decoder(target, sizes), **more(target, sizes)}
