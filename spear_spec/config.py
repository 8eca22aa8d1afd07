"""Frozen dataclasses for models and decoding. `from_dict` refuses what it does not know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from spear_spec.errors import ConfigError


class Strict:
    """`from_dict` / `to_dict` for frozen dataclasses: unknown and missing keys are refused."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from a JSON object.

        Raises:
            ConfigError: an unknown key, a missing key, or a value out of range.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{cls.__name__}: expected an object, got {type(values).__name__}")
        known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(f"{cls.__name__}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except TypeError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready object that `from_dict` reads back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}  # type: ignore[call-overload]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _positive_int(name: str, value: Any) -> None:
    _require(
        isinstance(value, int) and not isinstance(value, bool) and value > 0,
        f"{name} must be a whole number above 0, not {value!r}",
    )


def _number(name: str, value: Any) -> None:
    ok = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    _require(ok, f"{name} must be a finite number, not {value!r}")


@dataclass(frozen=True)
class T2SConfig(Strict):
    """Shape of the text-to-semantic transformer (the constructor arguments of spear-tts-pytorch's `TextToSemantic`)."""

    num_text_token_ids: int
    num_semantic_token_ids: int
    dim: int
    source_depth: int
    target_depth: int
    heads: int
    dim_head: int = 64
    kv_heads: int | None = None
    ff_mult: int = 4
    early_exit_layer: int | None = None

    def __post_init__(self) -> None:
        for name in (
            "num_text_token_ids",
            "num_semantic_token_ids",
            "dim",
            "source_depth",
            "target_depth",
            "heads",
            "dim_head",
            "ff_mult",
        ):
            _positive_int(name, getattr(self, name))
        if self.kv_heads is not None:
            _positive_int("kv_heads", self.kv_heads)
            _require(
                self.heads % self.kv_heads == 0,
                f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})",
            )
        if self.early_exit_layer is not None:
            _positive_int("early_exit_layer", self.early_exit_layer)
            _require(
                self.early_exit_layer <= self.target_depth,
                f"early_exit_layer must be at most target_depth ({self.target_depth})",
            )
        _require(self.dim_head % 2 == 0, "dim_head must be even (rotary pairs)")

    @property
    def ff_inner(self) -> int:
        """Width of the GEGLU feed-forward."""
        return int(self.dim * self.ff_mult * 2 / 3)


@dataclass(frozen=True)
class DraftConfig(Strict):
    """Shape of a draft decoder, and what it is fed with.

    target_layers: layers of the target (1 is the first) whose features it sees; none: an independent draft. feed:
    "previous" (the features of the position that predicted the token, as in EAGLE) or "same" (those of the token's own
    position: the head of an early exit). window: it starts anew at each call and sees only what it drafted since
    (prophet).
    """

    dim: int
    depth: int = 1
    heads: int = 4
    dim_head: int = 64
    ff_mult: int = 4
    target_layers: tuple[int, ...] = ()
    feed: str = "previous"
    window: bool = False

    def __post_init__(self) -> None:
        for name in ("dim", "depth", "heads", "dim_head", "ff_mult"):
            _positive_int(name, getattr(self, name))
        for layer in self.target_layers:
            _positive_int("target_layers", layer)
        _require(self.feed in ("previous", "same"), f"feed must be previous or same, not {self.feed!r}")
        _require(isinstance(self.window, bool), f"window must be true or false, not {self.window!r}")
        _require(
            bool(self.target_layers) or (not self.window and self.feed == "previous"),
            "window and feed need target_layers",
        )


@dataclass(frozen=True)
class SamplingConfig(Strict):
    """How logits become a law: temperature, then top-k, then top-p; guidance mixes in the text-free logits before.

    temperature 0 is greedy; top_k 0 and top_p 1 are off; guidance 1 is off (spear-tts-pytorch's `cond_scale`).
    """

    temperature: float = 0.8
    top_k: int = 0
    top_p: float = 0.95
    guidance: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "guidance"):
            _number(name, getattr(self, name))
        _require(0 <= self.temperature <= 10, f"temperature must lie in 0 to 10, not {self.temperature}")
        ok = isinstance(self.top_k, int) and not isinstance(self.top_k, bool) and self.top_k >= 0
        _require(ok, f"top_k must be 0 (off) or a whole number above, not {self.top_k!r}")
        _require(0 < self.top_p <= 1, f"top_p must lie above 0 and at most at 1, not {self.top_p}")
        _require(1 <= self.guidance <= 20, f"guidance must lie in 1 (off) to 20, not {self.guidance}")

    def changed(self, **given: Any) -> SamplingConfig:
        """The same with other values for some of its fields.

        Raises:
            ConfigError: an unknown name, or a value out of range.
        """
        known = [f.name for f in fields(self)]
        if unknown := [name for name in given if name not in known]:
            raise ConfigError(f"unknown sampling option {', '.join(unknown)}; known are {', '.join(known)}")
        return replace(self, **given)


@dataclass(frozen=True)
class SpecConfig(Strict):
    """Which drafter and verifier, and how far ahead the draft runs (gamma tokens a call)."""

    drafter: str = "small"
    verifier: str = "rejection"
    gamma: int = 5
    num_drafts: int = 1
    tree: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _positive_int("gamma", self.gamma)
        _positive_int("num_drafts", self.num_drafts)
        _require(self.gamma <= 64, f"gamma must be at most 64, not {self.gamma}")
        _require(isinstance(self.drafter, str) and isinstance(self.verifier, str), "drafter and verifier must be names")
        _require(self.tree is None or isinstance(self.tree, str), f"tree must be a name, not {self.tree!r}")
        _require(isinstance(self.options, dict), "options must be an object")
