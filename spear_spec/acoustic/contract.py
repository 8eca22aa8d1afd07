"""What the pipeline asks of any stage that turns semantic tokens into sound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


class AcousticStream(Protocol):
    """One utterance under way: tokens in, final samples out, at most `lookahead` tokens later."""

    def push(self, tokens: Tensor) -> Tensor:
        """Take tokens [t], give samples float32 [s]."""
        ...

    def finish(self) -> Tensor:
        """Give the remaining samples."""
        ...


@runtime_checkable
class AcousticStage(Protocol):
    """Semantic tokens to samples. The same generator state gives the same sound, whole or streamed."""

    @property
    def sample_rate(self) -> int:
        """Hz."""
        ...

    @property
    def lookahead(self) -> int:
        """Tokens after a token that its last sample depends on."""
        ...

    def render(
        self, tokens: Tensor, speaker: int = 0, *, generator: torch.Generator | None = None, seed: int = 0
    ) -> Tensor:
        """Samples float32 [T * samples per token] of tokens [T]."""
        ...

    def open_stream(
        self, speaker: int = 0, *, generator: torch.Generator | None = None, seed: int = 0
    ) -> AcousticStream:
        """A new utterance."""
        ...

    def stream(
        self, chunks: Iterable[Tensor], speaker: int = 0, *, generator: torch.Generator | None = None, seed: int = 0
    ) -> Iterator[Tensor]:
        """Samples of tokens that arrive in chunks, as soon as they are final."""
        ...
