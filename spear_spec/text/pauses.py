"""How long it is silent between what is spoken in one go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spear_spec.config import shown
from spear_spec.errors import ConfigError
from spear_spec.text.sentences import Break

LONGEST_S = 60.0


@dataclass(frozen=True)
class Pauses:
    """Seconds of silence before a piece, on top of what the speech brings along.

    cut: in the middle of a sentence that is too long for one go; line: before a heading, an item, a short line.
    """

    cut: float = 0.1
    sentence: float = 0.1
    line: float = 0.25
    paragraph: float = 0.4

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if (
                isinstance(value, bool)
                or not isinstance(value, (int, float))
                or not math.isfinite(value)
                or not 0 <= value <= LONGEST_S
            ):
                raise ConfigError(
                    f"pause: {name} must be a number of seconds from 0 to {LONGEST_S:g}, not {shown(value)}"
                )

    def __getitem__(self, before: Break) -> float:
        return float(getattr(self, before.value))

    @classmethod
    def of(cls, pause: Any) -> Pauses:
        """What is given as `pause`: None, a number (between sentences), two (sentences, paragraphs), or a `Pauses`.

        Between lines it is half-way between the two; between paragraphs it is not shorter than between sentences.

        Raises:
            ConfigError: anything else, or a number that is no pause.
        """
        if isinstance(pause, cls):
            return pause
        if pause is None:
            return cls()
        given = [pause] if isinstance(pause, (int, float)) else pause
        if isinstance(given, str) or not isinstance(given, Sequence) or not 1 <= len(given) <= 2:
            raise ConfigError(
                f"pause must be seconds between sentences, or (sentences, paragraphs), not {shown(pause)}"
            )
        checked = cls(sentence=given[0], paragraph=given[-1])
        paragraph = checked.paragraph if len(given) == 2 else max(cls.paragraph, checked.sentence)
        return cls(sentence=checked.sentence, line=(checked.sentence + paragraph) / 2, paragraph=paragraph)
