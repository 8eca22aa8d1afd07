"""Phoneme error rate: hama's waveform model hears phonemes, compared with the phonemes that were asked for.

hama (Apache-2.0, weights inside) is a CTC model unrelated to Whisper. It writes broad IPA and misaki's letters write
one letter a phoneme, so both are folded to a coarse alphabet first. What is folded together is what the two notations
disagree on in clean speech: reduced vowels, low back vowels, flaps, and the vowel of "the".
"""

from __future__ import annotations

import unicodedata
from functools import cached_property
from typing import Any

from spear_spec.evaluation.edits import edit_distance
from spear_spec.evaluation.judge import JUDGE_RATE, Measurement, Reference, Samples, listen, require, version_of

# Letters of either notation -> coarse phonemes. Two-letter keys are hama's units; the rest is one letter each.
_FOLD: dict[str, tuple[str, ...]] = {
    **dict.fromkeys("əʌɐɜᵊɪᵻɘɨ", ("ə",)),
    **dict.fromkeys("ɝɚ", ("ə", "ɹ")),
    **dict.fromkeys("ɑɔɒa", ("ɑ",)),
    **dict.fromkeys(("ɛ", "e", "eɪ", "A"), ("e",)),
    **dict.fromkeys(("o", "oʊ", "O"), ("o",)),
    **dict.fromkeys(("aɪ", "I"), ("aɪ",)),
    **dict.fromkeys(("aʊ", "W"), ("aʊ",)),
    **dict.fromkeys(("ɔɪ", "Y"), ("ɔɪ",)),
    **dict.fromkeys("uʊ", ("u",)),
    **dict.fromkeys("tTɾ", ("t",)),
    **dict.fromkeys("ɹrɻ", ("ɹ",)),
    **dict.fromkeys(("t͡ʃ", "ʧ"), ("tʃ",)),
    **dict.fromkeys(("d͡ʒ", "ʤ"), ("dʒ",)),
    **dict.fromkeys("gɡɣ", ("g",)),
    **dict.fromkeys("hɦ", ("h",)),
    **{letter: (letter,) for letter in "iæbdfjklmnpsvwzðŋʃʒθ"},
}

# hama writes these function words as their citation forms, whatever is said; misaki writes what is said.
_AS_SAID: dict[tuple[str, ...], tuple[str, ...]] = {("ɔ", "f"): ("ʌ", "v"), ("t", "oʊ"): ("t", "ə")}


def fold(units: list[str]) -> list[str]:
    """Coarse phonemes of a list of units (misaki letters or hama's tokens); stress, marks and punctuation vanish."""
    folded: list[str] = []
    for unit in units:
        plain = unit if unit in _FOLD else _without_marks(unit)
        for phoneme in _FOLD.get(plain, ()):
            # "the" is ðə or ði by what follows; hama does not tell them apart
            folded.append("ə" if phoneme == "i" and folded[-1:] == ["ð"] else phoneme)
    return folded


def _without_marks(unit: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFD", unit) if not unicodedata.combining(c))


class PhonemeErrorJudge:
    """PER of hama against `Reference.phonemes`; None where a reference has no phonemes."""

    metric = "per"
    name = "hama"

    @property
    def version(self) -> str:
        return version_of("hama")

    @cached_property
    def _model(self) -> Any:
        return require("hama", "hama").ASRModel()

    def hear(self, samples: Samples, sample_rate: int = 24_000) -> list[str]:
        """Coarse phonemes heard in samples [T]."""
        wave = listen(samples, sample_rate)
        if wave.size < JUDGE_RATE // 20:
            return []
        words = self._model.transcribe_waveform(wave, JUDGE_RATE).word_phoneme_text.split("|")
        units = [tuple(word.split()) for word in words]
        return fold([unit for word in units for unit in _AS_SAID.get(word, word)])

    def score(self, samples: Samples, reference: Reference, sample_rate: int = 24_000) -> Measurement | None:
        """Phoneme errors over reference phonemes; detail is what was heard."""
        if reference.phonemes is None:
            return None
        wanted, heard = fold(list(reference.phonemes)), self.hear(samples, sample_rate)
        return Measurement(edit_distance(wanted, heard), len(wanted), " ".join(heard))
