"""What a judge is, and what it says about one utterance.

Every metric here is a ratio of two sums over utterances (errors over words, a score over one, compute seconds over
audio seconds), so one small record serves all of them and one bootstrap gives every interval.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from spear_spec.audio import resample
from spear_spec.errors import MissingExtraError, SpearSpecError

Samples = NDArray[np.float32]
JUDGE_RATE = 16_000  # Hz: every judge here listens at this rate
_INSTALL = "pip install -r requirements/judges.txt && pip install --no-deps -r requirements/judges-nodeps.txt"


@dataclass(frozen=True)
class Reference:
    """What an utterance should have been.

    text: the sentence that was asked for; phonemes: the phonemes that were asked for (misaki's letters), None where
    unknown; speaker: unit-length speaker embedding [256] of the voice that was asked for, None where unknown.
    """

    text: str
    phonemes: str | None = None
    speaker: Samples | None = None


@dataclass(frozen=True)
class Measurement:
    """One utterance's share of a metric, whose value over a set is sum(numerator) / sum(denominator)."""

    numerator: float
    denominator: float
    detail: str = ""

    @property
    def value(self) -> float:
        """The metric of this utterance alone (0 denominators give nan)."""
        return self.numerator / self.denominator if self.denominator else float("nan")


@runtime_checkable
class Judge(Protocol):
    """A listener: samples [T] float32 in [-1, 1] at `sample_rate` Hz in, a Measurement out.

    `score` returns None where the reference lacks what this judge needs. Judges load their model on first use.
    """

    @property
    def metric(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def score(self, samples: Samples, reference: Reference, sample_rate: int = 24_000) -> Measurement | None: ...


def require(module: str, package: str) -> ModuleType:
    """Import `module` of the distribution `package`; MissingExtraError with the command to run where that fails."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"the judge package {package!r} does not import ({error}); run: {_INSTALL}") from error


def version_of(package: str) -> str:
    """Installed version of a distribution; MissingExtraError where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError(f"the judge package {package!r} is not installed; run: {_INSTALL}") from error


def listen(samples: Any, sample_rate: int) -> Samples:
    """Samples [T] as float32 mono at JUDGE_RATE; SpearSpecError for other shapes and for values that are not finite."""
    wave = np.asarray(samples, dtype=np.float32)
    if wave.ndim != 1:
        raise SpearSpecError(f"a judge listens to mono samples [T], got shape {list(wave.shape)}")
    if not np.isfinite(wave).all():
        raise SpearSpecError("the audio to judge holds values that are not finite")
    return resample(wave, sample_rate, JUDGE_RATE)
