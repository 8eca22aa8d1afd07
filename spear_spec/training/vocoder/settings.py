"""Settings of the unit vocoder's training."""

from __future__ import annotations

from dataclasses import dataclass

from spear_spec.config import Strict
from spear_spec.errors import ConfigError


@dataclass(frozen=True)
class VocoderTraining(Strict):
    """One training run. `steps` may be changed at resume: the learning rate falls over the last `tail` of them.
    `ramp`: steps over which the discriminators gain their say; longer when a trained generator meets new ones.

    `hearing`: weight of the loss from a recogniser's states (`recogniser.py`); `reading`: of that from the features of
    the supervised encoder behind it. Both 0: it is not loaded.

    With prompts (`prompting.py`): `shortest`, `longest` of a prompt in seconds; `rows`: share of the crops of a stored
    speaker that have its own row in place of a prompt; `stored`: share of all crops that are of stored speakers (0: as
    much as they have); `parting`, `level`: weights of the margin loss and of the loss on the prompt's pitch."""

    steps: int = 12000
    tail: int = 2600
    warmup: int = 100
    gan_start: int = 1300
    learning_rate: float = 6e-4
    gan_learning_rate: float = 4e-4
    discriminator_learning_rate: float = 5e-4
    batch: int = 12
    tokens: int = 16
    gan_batch: int = 8
    gan_tokens: int = 12
    judge_tokens: int = 8
    left: int = 14
    right: int = 9
    mel: float = 15.0
    magnitude: float = 2.0
    phase: float = 5.0
    prosody: float = 1.0
    adversarial: float = 2.0
    matching: float = 8.0
    hearing: float = 0.0
    reading: float = 0.0
    judges_a_step: int = 3
    ramp: int = 200
    predicted_from: float = 0.6
    ema: float = 0.999
    shortest: float = 2.0
    longest: float = 4.0
    rows: float = 0.3
    stored: float = 0.0
    parting: float = 0.3
    level: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.tail, self.warmup, self.batch, self.tokens, self.gan_batch, self.gan_tokens) < 1:
            raise ConfigError("steps, tail, warmup, and every size of a batch must be above 0")

    @property
    def listens(self) -> bool:
        """Whether a recogniser is needed."""
        return self.hearing > 0 or self.reading > 0
