"""Frozen dataclasses for models and decoding. `from_dict` refuses what it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from typing import Any, Self

from spear_spec.errors import ConfigError

# What no model of today reaches. A size beyond these is a mistake or an attack, and is refused before it allocates.
MOST_IDS = 2**20
WIDEST = 2**14
DEEPEST = 64
MOST_HEADS = 256
WIDEST_HEAD = 1024


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
        if unknown := sorted(str(key) for key in set(values) - known):
            raise ConfigError(f"{cls.__name__}: unknown key {_listed(unknown)}; known are {', '.join(sorted(known))}")
        required = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}  # type: ignore[arg-type]
        if missing := sorted(required - set(values)):
            raise ConfigError(f"{cls.__name__}: missing {', '.join(missing)}")
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
        except TypeError as error:  # a value of another type, in a class that checks no types
            raise ConfigError(f"{cls.__name__}: {error}") from None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready object that `from_dict` reads back."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}  # type: ignore[call-overload]


def _listed(names: list[str]) -> str:
    return ", ".join(name[:40] for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def shown(value: Any, longest: int = 60) -> str:
    """A value as an error message shows it: `repr`, cut short."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a list within a list within ...
        text = f"a {type(value).__name__}"
    return text if len(text) <= longest else f"{text[:longest]}..."


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with this message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def whole(name: str, value: Any, low: int, high: int) -> None:
    """Raises ConfigError unless `value` is a whole number (no float, no bool) of low to high."""
    ok = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
    require(ok, f"{name} must be a whole number of {low} to {high}, not {shown(value)}")


def wholes(name: str, values: Any, low: int, high: int, longest: int) -> None:
    """Raises ConfigError unless `values` is a tuple of at most `longest` whole numbers of low to high."""
    ok = isinstance(values, tuple) and len(values) <= longest
    require(ok, f"{name} must be a list of at most {longest} whole numbers, not {shown(values)}")
    for value in values:
        whole(name, value, low, high)


def is_number(value: Any) -> bool:
    """Whether it is one, and no truth value."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number(name: str, value: Any, low: float, high: float) -> None:
    """Raises ConfigError unless `value` is a number (no bool, no NaN) of low to high."""
    require(is_number(value) and low <= value <= high, f"{name} must lie in {low:g} to {high:g}, not {shown(value)}")


def words(name: str, value: Any, longest: int) -> None:
    """Raises ConfigError unless `value` is one printable line of at most `longest` characters."""
    ok = isinstance(value, str) and len(value) <= longest and value.isprintable()
    require(ok, f"{name} must be one printable line of at most {longest} characters, not {shown(value)}")


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
        for name, most in (
            ("num_text_token_ids", MOST_IDS),
            ("num_semantic_token_ids", MOST_IDS),
            ("dim", WIDEST),
            ("source_depth", DEEPEST),
            ("target_depth", DEEPEST),
            ("heads", MOST_HEADS),
            ("dim_head", WIDEST_HEAD),
            ("ff_mult", 64),
        ):
            whole(name, getattr(self, name), 1, most)
        if self.kv_heads is not None:
            whole("kv_heads", self.kv_heads, 1, self.heads)
            require(
                self.heads % self.kv_heads == 0,
                f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})",
            )
        if self.early_exit_layer is not None:
            whole("early_exit_layer", self.early_exit_layer, 1, self.target_depth)
        require(self.dim_head % 2 == 0, f"dim_head must be even (rotary pairs), not {self.dim_head}")

    @property
    def depth(self) -> int:
        """Decoder layers."""
        return self.target_depth

    @property
    def vocab_size(self) -> int:
        """Semantic tokens and the end token."""
        return self.num_semantic_token_ids + 1

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
        for name, most in (
            ("dim", WIDEST),
            ("depth", DEEPEST),
            ("heads", MOST_HEADS),
            ("dim_head", WIDEST_HEAD),
            ("ff_mult", 64),
        ):
            whole(name, getattr(self, name), 1, most)
        require(self.dim_head % 2 == 0, f"dim_head must be even (rotary pairs), not {self.dim_head}")
        wholes("target_layers", self.target_layers, 1, DEEPEST, DEEPEST)
        require(self.feed in ("previous", "same"), f"feed must be previous or same, not {shown(self.feed)}")
        require(isinstance(self.window, bool), f"window must be true or false, not {shown(self.window)}")
        require(
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
        number("temperature", self.temperature, 0, 10)
        whole("top_k", self.top_k, 0, MOST_IDS)
        ok = is_number(self.top_p) and 0 < self.top_p <= 1
        require(ok, f"top_p must lie above 0 and at most at 1, not {shown(self.top_p)}")
        number("guidance", self.guidance, 1, 20)

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
    """Which drafter and verifier, and how far ahead the draft runs (gamma tokens a call).

    gammas: draft lengths by the number of rows that are decoded together, in place of gamma; each holds from that
    number on; 0: no drafts. With more rows a longer draft costs more: products are bound by arithmetic then, not
    by reading.
    """

    drafter: str = "small"
    verifier: str = "rejection"
    gamma: int = 5
    num_drafts: int = 1
    tree: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    gammas: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        words("drafter", self.drafter, 80)
        words("verifier", self.verifier, 80)
        whole("gamma", self.gamma, 1, 64)
        whole("num_drafts", self.num_drafts, 1, 64)
        if self.tree is not None:
            words("tree", self.tree, 200)
        ok = isinstance(self.options, dict) and len(self.options) <= 32
        require(ok, f"options must be an object of at most 32 entries, not {shown(self.options)}")
        for name, value in self.options.items():
            words("options", name, 80)
            if isinstance(value, str):
                words(f"options: {name}", value, 200)
            else:
                number(f"options: {name}", int(value) if isinstance(value, bool) else value, -1e6, 1e6)
        table = isinstance(self.gammas, dict) and len(self.gammas) <= 32
        require(table, f"gammas must be an object of at most 32 entries, not {shown(self.gammas)}")
        for rows, gamma in self.gammas.items():
            digits = isinstance(rows, str) and rows.isascii() and rows.isdigit() and 1 <= len(rows) <= 6
            require(digits and int(rows) > 0, f"gammas has draft lengths by a number of rows, not by {shown(rows)}")
            whole(f"gammas: {rows}", gamma, 0, 64)

    def gamma_at(self, rows: int) -> int:
        """The draft length where so many rows are decoded together."""
        known = [int(size) for size in self.gammas if int(size) <= rows]
        return self.gammas[str(max(known))] if known else self.gamma


@dataclass(frozen=True)
class Clock(Strict):
    """The rates of a voice: semantic tokens a second, samples a frame of the acoustic stage, samples a second.

    A token is a whole number of frames: sample_rate = token_rate * frames_per_token * hop.
    """

    token_rate: int
    hop: int
    sample_rate: int

    def __post_init__(self) -> None:
        whole("sample_rate", self.sample_rate, 1000, 384_000)
        whole("token_rate", self.token_rate, 1, 1000)
        whole("hop", self.hop, 1, self.sample_rate)
        require(
            self.sample_rate % (self.token_rate * self.hop) == 0,
            f"a sample rate of {self.sample_rate} Hz is no whole number of frames of {self.hop} samples "
            f"for each of {self.token_rate} tokens a second",
        )

    @property
    def token_samples(self) -> int:
        """Samples that one semantic token stands for."""
        return self.sample_rate // self.token_rate

    @property
    def frames_per_token(self) -> int:
        """Frames of the acoustic stage that one semantic token stands for."""
        return self.token_samples // self.hop

    @property
    def frame_rate(self) -> int:
        """Frames a second."""
        return self.token_rate * self.frames_per_token

    def seconds(self, tokens: int) -> float:
        """How long so many tokens last."""
        return tokens / self.token_rate
