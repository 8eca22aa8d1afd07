"""What is asked of the engine: one utterance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from spear_spec.config import SamplingConfig, number, require, shown, whole
from spear_spec.decoding.chance import check_seed
from spear_spec.decoding.limits import default_cap
from spear_spec.decoding.proposal import is_token
from spear_spec.errors import ConfigError
from spear_spec.models.contract import Target
from spear_spec.models.memory import Memory

STREAMED = (
    26  # tokens before the first look at an utterance that is heard while it is written: 17 give the first sound ...
)
MOST_BETWEEN = 64  # ... and between two looks, at most


@dataclass(frozen=True)
class Whole:
    """That all words of an utterance be heard (`decoding/completeness.py`).

    words: their places in the request's ids, the first letter and one past the last. tries: how often it is drawn at
    most. least: tokens that a letter of a word takes on average, if it is heard; a word that takes less is left out.
    stray: so many tokens in a row that speak of another place of the text are words said twice.

    first: it is looked at when it has so many tokens, when it has twice as many, and so on (`place_after`); what is
    well is settled but for the last `margin` tokens, and what is not is drawn again from there on. 0: it is looked at
    when it has ended, and settled or drawn again as a whole.

    Raises:
        ConfigError: a field that cannot be used.
    """

    words: tuple[tuple[int, int], ...]
    tries: int = 4
    least: float = 0.6
    stray: int = 6
    first: int = 0
    margin: int = 8

    def __post_init__(self) -> None:
        whole("tries", self.tries, 1, 100)
        number("least", self.least, 0, 10)
        whole("stray", self.stray, 1, 10**6)
        whole("first", self.first, 0, 10**6)
        whole("margin", self.margin, 0, 10**6)
        for first, last in self.words:
            require(0 <= first < last, f"a word must be a first place and one past its last, not {first} and {last}")

    def place_after(self, tokens: int) -> int | None:
        """The first length above this one at which an utterance is looked at; None: only at its end."""
        if not self.first:
            return None
        place = self.first
        while place <= tokens:
            place += min(place, MOST_BETWEEN)
        return place


@dataclass(frozen=True)
class Request:
    """One utterance to write.

    ids: text ids, without the end token that a target may want. prefix: semantic tokens already spoken; decoding goes
    on behind them, and they count as kept. seed: of this utterance's stream of uniforms. cap: most tokens, the prefix
    and the end token included; None: it follows from the length of the text. whole: that no word be left out.

    Raises:
        ConfigError: a field that cannot be used.
    """

    ids: Sequence[int]
    prefix: Sequence[int] = ()
    seed: int = 0
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    cap: int | None = None
    whole: Whole | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if not isinstance(self.sampling, SamplingConfig):
            raise ConfigError(f"sampling must be a SamplingConfig, not {type(self.sampling).__name__}")
        check_cap(self.cap)

    def limit(self, frame_rate: float) -> int:
        """Its cap."""
        return default_cap(len(self.ids) + 1, frame_rate) if self.cap is None else self.cap


def check_cap(cap: object) -> None:
    """Refuse a cap that is none.

    Raises:
        ConfigError: it is no whole number above 0, nor None.
    """
    if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
        raise ConfigError(f"max_tokens must be a whole number above 0, not {shown(cap)}")


def capped(target: Target, caps: Sequence[int]) -> list[int]:
    """No more than the target has positions."""
    most = target.max_tokens
    return list(caps) if most is None else [min(cap, most) for cap in caps]


def caps_of(target: Target, requests: Sequence[Request], frame_rate: float) -> list[int]:
    """The caps of requests that can be decoded.

    Raises:
        ConfigError: a prefix that is none, or that leaves nothing to decode.
    """
    vocabulary, eos = target.vocab_size, target.eos_id
    caps = capped(target, [request.limit(frame_rate) for request in requests])
    for request, cap in zip(requests, caps):
        if any(not is_token(token, vocabulary) or token == eos for token in request.prefix):
            raise ConfigError(f"prefix must hold semantic tokens from 0 to {vocabulary - 1}, and no end token")
        if len(request.prefix) >= cap:
            raise ConfigError(f"a prefix of {len(request.prefix)} tokens leaves nothing of a cap of {cap}")
    return caps


def encode(target: Target, texts: Sequence[Sequence[int]]) -> Memory:
    """The one place where text ids become memory: ragged texts, padded, in one call of the encoder.

    Raises:
        TextError: ids that the target does not know.
    """
    rows = [target.text(ids) for ids in texts]
    width = max(len(row) for row in rows)
    padded = [[*row, *[0] * (width - len(row))] for row in rows]
    there = [[True] * len(row) + [False] * (width - len(row)) for row in rows]
    with torch.inference_mode(), torch.autocast(target.device.type, enabled=False):
        ids = torch.tensor(padded, dtype=torch.int64, device=target.device)
        return target.encode(ids, torch.tensor(there, dtype=torch.bool, device=target.device))
