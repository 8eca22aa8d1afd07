"""Hidden states of a speech encoder (Whisper, HuBERT and its kin, w2v-BERT) at 50 Hz, of clips of any length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spear_spec.audio import resample
from spear_spec.errors import AudioError, ConfigError
from spear_spec.semantic import families
from spear_spec.semantic.families import HOP, SAMPLE_RATE

WINDOW_S, MARGIN_S = 24, 3  # longer clips are cut: windows that Whisper's 30 s of positions hold, margins thrown away


class SpeechEncoder:
    """A frozen encoder and the hidden states to take: index 0 is the embedding before the first block, 4 is after four.

    Args:
        name: hub name or local folder of a Whisper, HuBERT, WavLM, wav2vec 2.0 or w2v-BERT 2.0 model, or
            "torchaudio:HUBERT_BASE" and the like (`families.py` says what each family's states are).
        layer: index of the hidden state, or several: their states then stand behind one another.
        device: where it runs.

    Raises:
        MissingExtraError: `transformers` (or torchaudio) is not installed.
        BundleError: the model cannot be loaded.
        ConfigError: the model is of another kind, or has no such layer.
    """

    def __init__(self, name: str, layer: int | Sequence[int], device: str | torch.device = "cpu") -> None:
        self.name, self.device = str(name), torch.device(device)
        self.layers = (layer,) if isinstance(layer, int) else tuple(layer)
        self.family = families.load(self.name, self.device)
        depth = self.family.depth
        if not self.layers or not all(0 <= number <= depth for number in self.layers):
            raise ConfigError(
                f"{self.name} has hidden states 0 to {depth}, not {', '.join(map(str, self.layers)) or 'none'}"
            )
        self.layer = self.layers[-1]
        self.family.cut(max(self.layers))

    @property
    def dim(self) -> int:
        """Width of what is taken: the hidden state's, for each of the layers."""
        return len(self.layers) * self.family.dim

    @torch.no_grad()
    def hidden(self, samples: npt.ArrayLike, sample_rate: int) -> Tensor:
        """Hidden states of the bare clip, float32 [frames, dim] at 50 Hz; the clip is cut to a multiple of 640 samples
        at 16 kHz, so that the frames pair up.

        Raises:
            AudioError: not mono, not finite, or shorter than 40 ms.
        """
        wave = np.asarray(samples, dtype=np.float32)
        if wave.ndim != 1 or not np.isfinite(wave).all():
            raise AudioError("the tokenizer needs a mono signal of finite samples")
        wave = resample(wave, sample_rate, SAMPLE_RATE)
        wave = wave[: len(wave) // (2 * HOP) * (2 * HOP)]
        if not len(wave):
            raise AudioError("the clip is shorter than one semantic token (40 ms)")
        window, margin = WINDOW_S * SAMPLE_RATE, MARGIN_S * SAMPLE_RATE
        if len(wave) <= window + 2 * margin:
            return self._window(wave)
        parts = []
        for start in range(0, len(wave), window):
            left = max(0, start - margin)
            states = self._window(wave[left : start + window + margin])
            parts.append(states[(start - left) // HOP :][: window // HOP])
        return torch.cat(parts)

    def _window(self, wave: npt.NDArray[np.float32]) -> Tensor:
        return torch.cat(self.family.states(wave, self.layers), -1)
