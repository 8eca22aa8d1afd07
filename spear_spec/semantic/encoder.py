"""Hidden states of a speech encoder (Whisper, or HuBERT and its kin) at 50 Hz, through `transformers`."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spear_spec.audio import resample
from spear_spec.errors import AudioError, BundleError, ConfigError, MissingExtraError

SAMPLE_RATE = 16000  # what every supported encoder listens to
HOP = 320  # samples of a 50 Hz frame
WINDOW_S, MARGIN_S = 24, 3  # longer clips are cut: windows that Whisper's 30 s of positions hold, margins thrown away


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise MissingExtraError("the speech encoder needs transformers: pip install 'spear-spec[train]'") from None


class SpeechEncoder:
    """A frozen encoder and the hidden states to take: index 0 is the embedding before the first block, 4 is after four.

    Args:
        name: hub name or local folder of a Whisper, HuBERT, WavLM or wav2vec 2.0 model.
        layer: index of the hidden state, or several: their states then stand behind one another. A state of Whisper is
            the block's own output, without the norm that follows the last one.
        device: where it runs.

    Raises:
        MissingExtraError: `transformers` is not installed.
        BundleError: the model cannot be loaded.
        ConfigError: the model is of another kind, or has no such layer.
    """

    def __init__(self, name: str, layer: int | Sequence[int], device: str | torch.device = "cpu") -> None:
        hf = _transformers()
        self.name, self.device = str(name), torch.device(device)
        self.layers = (layer,) if isinstance(layer, int) else tuple(layer)
        try:
            config = hf.AutoConfig.from_pretrained(self.name)
            self.is_whisper = config.model_type == "whisper"
            if not self.is_whisper and config.model_type not in ("hubert", "wavlm", "wav2vec2"):
                raise ConfigError(
                    f"{self.name} is a {config.model_type} model; "
                    "the tokenizer knows whisper, hubert, wavlm and wav2vec2"
                )
            if self.is_whisper:
                from transformers.models.whisper.modeling_whisper import WhisperEncoder as Model
            else:
                Model = hf.AutoModel
            self.model: Any = (
                Model.from_pretrained(self.name, dtype=torch.float32).eval().requires_grad_(False).to(self.device)
            )
            self.extract: Any = hf.AutoFeatureExtractor.from_pretrained(self.name)
        except (OSError, ValueError) as error:
            raise BundleError(f"cannot load the speech encoder {self.name}: {str(error).splitlines()[0]}") from None
        depth = len(self._blocks())
        if not self.layers or not all(0 <= number <= depth for number in self.layers):
            raise ConfigError(
                f"{self.name} has hidden states 0 to {depth}, not {', '.join(map(str, self.layers)) or 'none'}"
            )
        self.layer = self.layers[-1]

    def _blocks(self) -> Any:
        return self.model.layers if self.is_whisper else self.model.encoder.layers

    @property
    def dim(self) -> int:
        """Width of what is taken: the hidden state's, for each of the layers."""
        config = self.model.config
        return len(self.layers) * int(config.d_model if self.is_whisper else config.hidden_size)

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
        return self.whisper_states(self.log_mel(wave)) if self.is_whisper else self._hubert_states(wave)

    def log_mel(self, wave: npt.NDArray[np.float32]) -> Tensor:
        """Whisper's log-mel of exactly this clip (no padding to 30 s): [1, mels, samples / 160]."""
        features = self.extract(
            wave, sampling_rate=SAMPLE_RATE, padding="do_not_pad", truncation=False, return_tensors="pt"
        )
        return features["input_features"].to(self.device)

    @torch.no_grad()
    def whisper_states(self, mel: Tensor) -> Tensor:
        """The hidden states of log-mels [1, mels, T] of any length up to the model's window: [T / 2, dim].

        `WhisperEncoder.forward` takes 30 s only; this is the same computation (Radford et al. 2022, section 2.2) on
        the first T / 2 positions.
        """
        gelu = torch.nn.functional.gelu
        model = self.model
        x = gelu(model.conv2(gelu(model.conv1(mel)))).transpose(1, 2)
        x = x + model.embed_positions.weight[: x.shape[1]]
        states = [x]
        for block in model.layers[: max(self.layers)]:
            x = block(x, None)
            x = x[0] if isinstance(x, tuple) else x
            states.append(x)
        return torch.cat([states[number][0] for number in self.layers], -1)

    def _hubert_states(self, wave: npt.NDArray[np.float32]) -> Tensor:
        """Receptive field 400, stride 320: 40 samples of silence on either side give one frame for every 320."""
        values = self.extract(wave, sampling_rate=SAMPLE_RATE, return_tensors="pt")["input_values"].to(self.device)
        values = torch.nn.functional.pad(values, (40, 40))
        states = self.model(values, output_hidden_states=True).hidden_states
        return torch.cat([states[number][0] for number in self.layers], -1)
