"""The parts of a voice, built by their kinds and filled from the bundle."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from spear_spec.errors import BundleError, ConfigError, TextError
from spear_spec.registry import Registry
from spear_spec.text import Tokenizer
from spear_spec.voice.bundle import Bundle
from spear_spec.voice.registry import FRONT_ENDS, STAGES, TARGETS


def load_front_end(bundle: Bundle) -> Tokenizer:
    """The voice's text front end.

    Raises:
        BundleError: its kind is not installed, or its object is not one of that kind.
    """
    build = _builder(bundle, "text", FRONT_ENDS)
    try:
        front: Tokenizer = build(bundle.config.text)
    except (ConfigError, TextError) as error:
        raise _damaged(bundle, error) from None
    return front


def load_target(bundle: Bundle, device: torch.device | str = "cpu", dtype: torch.dtype | None = None) -> Any:
    """The text-to-semantic transformer, on this device and in this dtype (float32 if left out).

    Raises:
        BundleError: its kind is not installed, it is damaged, or it does not fit the voice.
    """
    return _load(bundle, "t2s", TARGETS, device, dtype)


def load_stage(bundle: Bundle, device: torch.device | str = "cpu") -> Any:
    """The acoustic stage, on this device, in float32.

    Raises:
        BundleError: its kind is not installed, it is damaged, or it does not fit the voice.
    """
    return _load(bundle, "vocoder", STAGES, device, torch.float32)


def load_parts(
    bundle: Bundle, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
) -> tuple[Any, Any, Any]:
    """Target, acoustic stage and text front end of a voice, which fit each other.

    Args:
        dtype: of the target; float32 if left out.

    Raises:
        BundleError: a part is damaged, does not fit, or is of a kind that is not installed.
    """
    front = load_front_end(bundle)
    target = load_target(bundle, device, dtype)
    if len(front.vocab) != target.text_eos_id:
        raise BundleError(
            f"{bundle.path / 'config.json'}: the front end has {len(front.vocab)} symbols, "
            f"the transformer reads {target.text_eos_id}"
        )
    return target, load_stage(bundle, device), front


def _load(
    bundle: Bundle, part: str, registry: Registry[Any], device: torch.device | str, dtype: torch.dtype | None
) -> nn.Module:
    build = _builder(bundle, part, registry)
    shape = getattr(bundle.config, part)
    try:
        module: nn.Module = bundle.build(lambda: build(shape, bundle.config), part, device=device, dtype=dtype)
    except ConfigError as error:
        raise _damaged(bundle, error) from None
    return module


def _builder(bundle: Bundle, part: str, registry: Registry[Any]) -> Any:
    kind = bundle.config.kinds[part]
    try:
        return registry.get(kind)
    except ConfigError as error:
        if kind in registry:  # it is installed and cannot be imported
            raise BundleError(f"voice {bundle.config.name!r}: {error}") from error
        whence = bundle.config.whence(kind, registry.names())
        raise BundleError(f"voice {bundle.config.name!r}: unknown {registry.what} {kind[:80]!r}; {whence}") from None


def _damaged(bundle: Bundle, error: Exception) -> BundleError:
    return BundleError(f"{bundle.path / 'config.json'}: {error}")
