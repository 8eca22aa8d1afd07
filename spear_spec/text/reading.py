"""How a text is read: with which pauses, with whose lexicon, as plain text or as SSML; and so into passages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spear_spec.config import shown
from spear_spec.errors import ConfigError
from spear_spec.text.lexicon import Lexicon
from spear_spec.text.pauses import Pauses
from spear_spec.text.sentences import Break
from spear_spec.text.ssml import Passage, read_ssml
from spear_spec.text.stand_ins import NONE, StandIns


@dataclass(frozen=True)
class Reading:
    """ssml: the text is a document of SSML. Without anything, a text is read as it has always been."""

    pauses: Pauses = Pauses()  # noqa: RUF009  it is frozen
    lexicon: Lexicon | None = None
    ssml: bool = False

    @classmethod
    def of(cls, pause: Any = None, lexicon: Any = None, ssml: bool = False) -> Reading:
        """From what callers give: see `Pauses.of` and `Lexicon.of`.

        Raises:
            ConfigError: one of them cannot be used.
        """
        if not isinstance(ssml, bool):
            raise ConfigError(f"ssml must be True or False, not {shown(ssml)}")
        return cls(Pauses.of(pause), Lexicon.of(lexicon), ssml)

    @property
    def plain(self) -> bool:
        """Whether nothing was asked for."""
        return self == Reading()

    def changed(self, pause: Any = None, lexicon: Any = None, ssml: bool | None = None) -> Reading:
        """With what is given in place of one's own.

        Raises:
            ConfigError: as `of`.
        """
        given = Reading.of(pause, lexicon, False if ssml is None else ssml)
        return Reading(
            self.pauses if pause is None else given.pauses,
            self.lexicon if lexicon is None else given.lexicon,
            self.ssml if ssml is None else given.ssml,
        )

    def passages(self, text: str) -> tuple[list[Passage], StandIns]:
        """The text in passages, and what stands behind the stand-ins in them.

        Raises:
            TextError: it is to be read as SSML and is none.
        """
        if self.ssml:
            return read_ssml(text, self.lexicon)
        if self.lexicon is None:
            return [Passage(text, Break.PARAGRAPH)], NONE
        stand_ins = StandIns(text)
        return [Passage(self.lexicon.apply(text, stand_ins), Break.PARAGRAPH)], stand_ins
