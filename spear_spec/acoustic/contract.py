"""What the pipeline asks of any stage that turns semantic tokens into sound. It calls nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Heard:
    """A voice that a stage heard in a prompt (`prompt`): it takes it in `open` in place of a name.

    value: the stage's own. stage: the kind of the stage that made it. sha256: of the prompt's file, or of its samples
    (whoever read it fills it in).
    """

    value: Any
    stage: str
    sha256: str | None = None


class AcousticStream(Protocol):
    """One utterance under way: tokens in, final samples out."""

    def push(self, tokens: Tensor) -> Tensor:
        """Take tokens int64 [t], also none; give the samples that are now final, float32 [s] on the CPU.

        Raises:
            AudioError: tokens that the stage does not know, or a stream that is finished.
            NumericsError: NaN or infinity.
        """
        ...

    def finish(self) -> Tensor:
        """Give the samples that are still due; the stream is then closed."""
        ...


@runtime_checkable
class AcousticStage(Protocol):
    """Semantic tokens to samples. The same generator state gives the same sound, however the tokens are cut into
    pushes.

    lookahead: tokens after a token that its last sample depends on; None: the stage needs all of them first, and gives
    nothing before `finish`. module: what a bundle's weights go into, None where the stage has none of its own.

    A stage may also have `rates`: the slowest and the fastest rate that `open` takes; a time-stretch does the rest of
    what is asked (`acoustic/speed.py`). Without it `open` is given any rate, and refuses what it cannot do.

    A stage may also have `overlaps`: true where `push` and `finish` may be called from a thread other than the one that
    opened the stream (one at a time), beside the decoding of what follows. Without it everything is called in one.

    A stage may also have `prompt(samples, sample_rate) -> Heard`: the voice heard in a clip, float32 [T], mono;
    `open` takes what it gave in place of a name. It raises AudioError where the clip cannot be used. Without it a stage
    has named speakers only. `prompt_s`: most seconds of speech that it wants to hear.

    A stage that hears by semantic tokens has a `tokenizer`, None as it is built: whoever opens the voice puts there
    what makes the voice's tokens int64 [T] of mono samples and their rate.
    """

    module: nn.Module | None

    @property
    def sample_rate(self) -> int:
        """Hz."""
        ...

    @property
    def lookahead(self) -> int | None: ...

    def open(self, voice: str | Heard, rate: float = 1.0, generator: torch.Generator | None = None) -> AcousticStream:
        """A new utterance.

        Args:
            voice: whose sound it is: the name of a speaker, or what was heard in a prompt.
            rate: how fast it is spoken; 1 is as the voice was trained.
            generator: all chance of this utterance.

        Raises:
            ConfigError: a voice or a rate that the stage cannot do.
        """
        ...
