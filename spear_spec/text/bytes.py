"""Text as UTF-8 bytes behind a language and a speaking rate: what WhisperSpeech reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np

from spear_spec.errors import ConfigError, TextError
from spear_spec.text.front_end import Segment
from spear_spec.text.pauses import Pauses
from spear_spec.text.reading import Reading
from spear_spec.text.sentences import Break, cut, split_pieces

# Whisper's languages, in the order in which its models number them
# fmt: off
LANGUAGES = (
    "en", "zh", "de", "es", "ru", "ko", "fr", "ja", "pt", "tr", "pl", "ca", "nl", "ar", "sv", "it", "id", "hi", "fi",
    "vi", "he", "uk", "el", "ms", "cs", "ro", "da", "hu", "ta", "no", "th", "ur", "hr", "bg", "lt", "la", "mi", "ml",
    "cy", "sk", "te", "fa", "lv", "bn", "sr", "az", "sl", "kn", "et", "mk", "br", "eu", "is", "hy", "ne", "mn", "bs",
    "kk", "sq", "sw", "gl", "mr", "pa", "si", "km", "sn", "yo", "so", "af", "oc", "ka", "be", "tg", "sd", "gu", "am",
    "yi", "lo", "uz", "fo", "ht", "ps", "tk", "nn", "mt", "sa", "lb", "my", "bo", "tl", "mg", "as", "tt", "haw", "ln",
    "ha", "ba", "jw", "su",
)
# fmt: on
_FASTEST = 20.0  # characters a second; the bins divide what lies below evenly


class ByteFrontEnd:
    """Text as it is written, in any of Whisper's languages: `[language, rate, *bytes]`.

    Ids: bytes as they are, then one for each language, then one for each bin of the speaking rate. Who speaks is not
    settled here but in the acoustic stage: what is chosen as the speaker of a text is its language.

    Args:
        rate: characters a second, above 0; what is faster than 20 counts as 20.
        text_codes, text_length, languages, rate_bins: of the transformer, see `WhisperSpeechConfig`.
    """

    KIND = "whisperspeech-bytes"

    def __init__(
        self,
        *,
        rate: float = 15.0,
        text_codes: int = 256,
        text_length: int = 550,
        languages: int = len(LANGUAGES),
        rate_bins: int = 32,
    ) -> None:
        sizes = {"text_codes": text_codes, "text_length": text_length, "languages": languages, "rate_bins": rate_bins}
        for name, value in sizes.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"text: {name} must be a whole number above 0, not {value!r:.40}")
        if text_codes != 256 or text_length < 5 or languages > len(LANGUAGES):
            raise ConfigError(
                f"text: {self.KIND} is for 256 bytes, 5 places or more, {len(LANGUAGES)} languages or fewer"
            )
        self.sizes, self.rate = sizes, rate
        self._rate_id = self._bin(rate)

    @property
    def speakers(self) -> tuple[str, ...]:
        """Codes of the languages."""
        return LANGUAGES[: self.sizes["languages"]]

    @property
    def num_token_ids(self) -> int:
        return self.sizes["text_codes"] + self.sizes["languages"] + self.sizes["rate_bins"]

    @property
    def most_bytes(self) -> int:
        """Of one text: the transformer reads an end-of-text byte before it."""
        return self.sizes["text_length"] - 1

    def encode(self, text: str, language: str = "en", rate: float | None = None) -> list[int]:
        """Ids of a text that is spoken in one go; spaces around it are left out, as are zero bytes.

        Raises:
            TextError: nothing to say, too much to say at once, no such language. ConfigError: an impossible rate.
        """
        if language not in self.speakers:
            raise TextError(f"no language {language!r:.40}; known are {', '.join(self.speakers[:8])} and so on")
        data = _bytes(text)
        if not data:
            raise TextError("there is nothing to speak: give it at least one word")
        if len(data) > self.most_bytes:
            raise TextError(f"the text has {len(data)} bytes; {self.most_bytes} can be read at once")
        code = self.sizes["text_codes"] + self.speakers.index(language)
        return [code, self._rate_id if rate is None else self._bin(rate), *data]

    def segments(self, text: str, speaker: str = "en") -> Iterator[Segment]:
        """Sentences of the text, each within what is read at once.

        Raises:
            TextError: there is nothing to say, or no such language.
        """
        return self.read(text, speaker, Reading())

    def read(self, text: str, speaker: str, reading: Reading) -> Iterator[Segment]:
        """As `segments`, with other pauses: bytes know neither of phonemes nor of SSML.

        Raises:
            ConfigError: a lexicon or SSML is asked for.
        """
        if reading.ssml or reading.lexicon is not None:
            raise ConfigError("this voice reads bytes: it takes no SSML and no lexicon")
        return self._read(text, speaker, reading.pauses)

    def _read(self, text: str, speaker: str, pauses: Pauses) -> Iterator[Segment]:
        if not isinstance(text, str):
            raise TextError(f"a text must be a string, not {type(text).__name__}")
        if speaker not in self.speakers:
            raise TextError(f"no language {speaker!r:.40}; known are {', '.join(self.speakers[:8])} and so on")
        first = True
        for written, before in self._pieces(text):
            yield Segment(written, self.encode(written, speaker), 0.0 if first else pauses[before])
            first = False
        if first:
            raise TextError(f"there is nothing to speak in {text[:40]!r}: give it at least one word")

    def phonemes(self, text: str) -> str:
        """There are none: the pieces of the text, a space between them."""
        return " ".join(written for written, _ in self._pieces(text))

    def _pieces(self, text: str) -> Iterator[tuple[str, Break]]:
        for piece in split_pieces(text):
            before = piece.before
            for written in self._within(piece.text):
                yield written, before
                before = Break.CUT

    def _within(self, text: str) -> Iterator[str]:
        """Parts of a piece that can be read at once: letters of some scripts take three bytes or four."""
        if (size := len(_bytes(text))) <= self.most_bytes:
            if size:
                yield text
            return
        parts = list(cut(text, max(1, len(text) * self.most_bytes // (size + self.most_bytes // 4))))
        if len(parts) < 2:
            parts = [text[: len(text) // 2], text[len(text) // 2 :]]
        for part in parts:
            yield from self._within(part)

    def _bin(self, rate: float) -> int:
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not math.isfinite(rate) or rate <= 0:
            raise ConfigError(f"rate must be a number of characters a second above 0, not {rate!r:.40}")
        bins = self.sizes["rate_bins"]
        place = int(np.float32(min(rate, _FASTEST)) / np.float32(_FASTEST) * np.float32(bins))  # as the package counts
        return self.sizes["text_codes"] + self.sizes["languages"] + min(place, bins - 1)

    def to_dict(self) -> dict[str, Any]:
        """For a voice's config.json."""
        return {"kind": self.KIND, "rate": self.rate, **self.sizes}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` wrote; all but the kind may be left out.

        Raises:
            ConfigError: unknown keys, or values that cannot be used.
        """
        known = {"kind", "rate", "text_codes", "text_length", "languages", "rate_bins"}
        if not isinstance(values, Mapping) or set(values) - known or values.get("kind", cls.KIND) != cls.KIND:
            raise ConfigError(f"text: {cls.KIND} takes {', '.join(sorted(known - {'kind'}))}, and nothing else")
        return cls(**{name: value for name, value in values.items() if name != "kind"})


def _bytes(text: str) -> bytes:
    try:
        return text.strip().encode().replace(b"\0", b"")
    except UnicodeEncodeError as error:
        raise TextError(f"the text holds half a character (place {error.start}), which is no UTF-8") from None
