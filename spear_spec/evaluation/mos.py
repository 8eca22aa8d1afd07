"""Mean opinion score predicted by DistillMOS (Stahl and Gamper 2025, arXiv:2502.05356), 1 to 5, without a reference.

Origin and licences: distillmos MIT (weights inside), xls-r-sqa MIT (model code).
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Iterator
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np

from spear_spec.evaluation.judge import Measurement, Reference, Samples, listen, require, version_of


class MosJudge:
    """DistillMOS of an utterance; needs nothing but the samples."""

    metric = "mos"
    name = "distillmos"

    @property
    def version(self) -> str:
        return version_of("distillmos")

    @cached_property
    def _model(self) -> Any:
        with _torchaudio_stub(), contextlib.redirect_stdout(io.StringIO()):  # it prints where its weights lie
            return require("distillmos", "distillmos").ConvTransformerSQAModel().eval()

    def score(self, samples: Samples, reference: Reference | None = None, sample_rate: int = 24_000) -> Measurement:
        """Predicted MOS over 1; silence and clips under 50 ms score 1, the bottom of the scale."""
        import torch

        wave = listen(samples, sample_rate)
        if wave.size < 800 or not np.any(wave):
            return Measurement(1.0, 1.0)
        with torch.inference_mode():
            return Measurement(float(self._model(torch.from_numpy(wave)[None])), 1.0)


@contextlib.contextmanager
def _torchaudio_stub() -> Iterator[None]:
    """distillmos imports torchaudio for its command line only; there is no CPU build of it for this torch."""
    names = ("torchaudio", "torchaudio.transforms")
    if any(name in sys.modules for name in names):
        yield
        return
    stubs = {name: ModuleType(name) for name in names}
    sys.modules.update(stubs)
    try:
        yield
    finally:
        for name, stub in stubs.items():
            if sys.modules.get(name) is stub:
                del sys.modules[name]
