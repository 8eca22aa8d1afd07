"""How each family of speech encoders is fed and read: a window of samples at 16 kHz to hidden states at 50 Hz.

Every family gives one frame for every 320 samples of a window whose length is a multiple of 640, and hears that window
alone: no padding to a fixed length, no other clip beside it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import gelu, pad

from spear_spec.errors import BundleError, ConfigError, MissingExtraError

SAMPLE_RATE = 16000  # what every supported encoder listens to
HOP = 320  # samples of a 50 Hz frame
WAVES = ("hubert", "wavlm", "wav2vec2")
TORCHAUDIO = "torchaudio:"  # in front of the name of one of its pipelines
Wave = npt.NDArray[np.float32]


class Family(Protocol):
    """An encoder that is loaded. depth: its blocks; dim: the width of a hidden state."""

    model: Any
    depth: int
    dim: int

    def states(self, wave: Wave, layers: Sequence[int]) -> list[Tensor]:
        """Hidden states [frames, dim] of a window, one for each of the layers: 0 is what enters the first block, n what
        leaves the nth, without the norm that may follow the last."""
        ...

    def cut(self, depth: int) -> None:
        """Do without the blocks behind this many."""
        ...


def load(name: str, device: torch.device) -> Family:
    """The encoder of this hub name or folder; "torchaudio:NAME" is one of torchaudio's pipelines.

    Raises:
        MissingExtraError: `transformers` or torchaudio is not installed. BundleError: it cannot be loaded.
        ConfigError: the model is of another kind.
    """
    if name.startswith(TORCHAUDIO):
        return Pipeline(name.removeprefix(TORCHAUDIO), device)
    try:
        hf = importlib.import_module("transformers")
    except ImportError:
        raise MissingExtraError("the speech encoder needs transformers: pip install 'spear-spec[train]'") from None
    try:
        kind = hf.AutoConfig.from_pretrained(name).model_type
        if kind == "whisper":
            return Whisper(hf, name, device)
        if kind == "wav2vec2-bert":
            return Bert(hf, name, device)
        if kind in WAVES:
            return Waves(hf, name, device)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot load the speech encoder {name}: {str(error).splitlines()[0]}") from None
    raise ConfigError(
        f"{name} is a {kind} model; the tokenizer knows whisper, wav2vec2-bert, {', '.join(WAVES)}, and "
        f"{TORCHAUDIO}NAME for torchaudio's pipelines"
    )


def _ready(model: Any, device: torch.device) -> Any:
    return model.eval().requires_grad_(False).to(device)


class Whisper:
    """Whisper's encoder (Radford et al. 2022)."""

    def __init__(self, hf: Any, name: str, device: torch.device) -> None:
        from transformers.models.whisper.modeling_whisper import WhisperEncoder

        self.model = _ready(WhisperEncoder.from_pretrained(name, dtype=torch.float32), device)
        self.extract, self.device = hf.AutoFeatureExtractor.from_pretrained(name), device
        self.depth, self.dim = len(self.model.layers), int(self.model.config.d_model)

    def log_mel(self, wave: Wave) -> Tensor:
        """Log-mels of exactly this window (no padding to 30 s): [1, mels, samples / 160]."""
        features = self.extract(
            wave, sampling_rate=SAMPLE_RATE, padding="do_not_pad", truncation=False, return_tensors="pt"
        )
        return features["input_features"].to(self.device)  # type: ignore[no-any-return]

    def states(self, wave: Wave, layers: Sequence[int]) -> list[Tensor]:
        return [state[0] for state in self.of_mels(self.log_mel(wave), layers)]

    def of_mels(self, mel: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """The hidden states of log-mels [B, mels, T] of any length up to the model's window: [B, T / 2, dim] each.

        `WhisperEncoder.forward` takes 30 s only; this is the same computation (section 2.2) on the first T / 2
        positions.
        """
        model = self.model
        x = gelu(model.conv2(gelu(model.conv1(mel)))).transpose(1, 2)
        x = x + model.embed_positions.weight[: x.shape[1]]
        found = [x]
        for block in model.layers[: max(layers)]:
            x = block(x, None)
            x = x[0] if isinstance(x, tuple) else x
            found.append(x)
        return [found[number] for number in layers]

    def cut(self, depth: int) -> None:
        self.model.layers = self.model.layers[:depth]


def _left_by_blocks(model: Any, values: Tensor, layers: Sequence[int]) -> list[Tensor]:
    """What stands before the first block and behind the others, by hooks: versions of `transformers` differ in whether
    the last hidden state that they tell of is behind the final norm."""
    found: dict[int, Tensor] = {}

    def keep(number: int) -> Callable[..., None]:
        def hook(_module: Any, _given: Any, left: Any) -> None:
            found[number] = left[0] if isinstance(left, tuple) else left

        return hook

    def enter(_module: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        found[0] = given[0] if given else named["hidden_states"]

    blocks = model.encoder.layers
    hooks = [block.register_forward_hook(keep(number)) for number, block in enumerate(blocks, 1)]
    hooks.append(blocks[0].register_forward_pre_hook(enter, with_kwargs=True))
    try:
        model(values)
    finally:
        for each in hooks:
            each.remove()
    return [found[number][0] for number in layers]


class Waves:
    """HuBERT, WavLM, wav2vec 2.0: convolutions over samples, then blocks. Their feature extractor normalises the window
    where the model was trained so."""

    def __init__(self, hf: Any, name: str, device: torch.device) -> None:
        self.model = _ready(hf.AutoModel.from_pretrained(name, dtype=torch.float32), device)
        self.extract, self.device = hf.AutoFeatureExtractor.from_pretrained(name), device
        config = self.model.config
        self.depth, self.dim = len(self.model.encoder.layers), int(config.hidden_size)
        self.margin = _margin(config.conv_kernel, config.conv_stride, name)

    def states(self, wave: Wave, layers: Sequence[int]) -> list[Tensor]:
        """Silence on either side makes it one frame for every 320 samples."""
        values = self.extract(wave, sampling_rate=SAMPLE_RATE, return_tensors="pt")["input_values"].to(self.device)
        return _left_by_blocks(self.model, pad(values, (self.margin, self.margin)), layers)

    def cut(self, depth: int) -> None:
        self.model.encoder.layers = self.model.encoder.layers[: max(1, depth)]


def _margin(kernels: Sequence[int], strides: Sequence[int], name: str) -> int:
    """Half of what a frame hears beyond its hop: 40 samples with receptive field 400 and hop 320."""
    field, hop = 1, 1
    for kernel, stride in zip(kernels, strides):
        field, hop = field + (kernel - 1) * hop, hop * stride
    if hop != HOP or field < hop or (field - hop) % 2:
        raise ConfigError(f"{name} makes a frame of every {hop} samples, not of {HOP}")
    return (field - hop) // 2


class Bert:
    """w2v-BERT 2.0 (Seamless Communication 2023): pairs of log-mel frames, 25 ms every 10 ms, normalised over the
    window."""

    MARGIN = 120  # samples: then there are samples / 160 frames, the first of them about sample 80

    def __init__(self, hf: Any, name: str, device: torch.device) -> None:
        self.model = _ready(hf.AutoModel.from_pretrained(name, dtype=torch.float32), device)
        self.extract, self.device = hf.AutoFeatureExtractor.from_pretrained(name), device
        self.depth, self.dim = len(self.model.encoder.layers), int(self.model.config.hidden_size)
        if (stride := getattr(self.extract, "stride", None)) != 2 or getattr(self.model, "adapter", None) is not None:
            raise ConfigError(f"{name} makes a frame of {stride} log-mels, or has an adapter: not 50 frames a second")

    def states(self, wave: Wave, layers: Sequence[int]) -> list[Tensor]:
        heard = self.extract(np.pad(wave, self.MARGIN), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        return _left_by_blocks(self.model, heard["input_features"].to(self.device), layers)

    def cut(self, depth: int) -> None:
        self.model.encoder.layers = self.model.encoder.layers[: max(1, depth)]


class Pipeline:
    """HuBERT or WavLM from `torchaudio.pipelines`: its weights, its normalisation. There is no state 0."""

    def __init__(self, name: str, device: torch.device) -> None:
        try:
            pipelines = importlib.import_module("torchaudio.pipelines")
        except ImportError:
            raise MissingExtraError(
                f"the encoder {TORCHAUDIO}{name} needs torchaudio: pip install 'spear-spec[torchaudio]'"
            ) from None
        except (OSError, RuntimeError) as error:  # built for another torch
            raise MissingExtraError(f"torchaudio does not load here: {' '.join(str(error).split())[:150]}") from None
        bundle: Any = getattr(pipelines, name, None)
        if not hasattr(bundle, "get_model") or not hasattr(bundle, "sample_rate"):
            raise ConfigError(f"torchaudio has no pipeline {name!r} of a speech encoder; HUBERT_BASE is one")
        if bundle.sample_rate != SAMPLE_RATE:
            raise ConfigError(f"torchaudio's {name} listens at {bundle.sample_rate} Hz, not at {SAMPLE_RATE}")
        try:
            self.model = _ready(bundle.get_model(), device)
        except (OSError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BundleError(f"cannot load the speech encoder {TORCHAUDIO}{name}: {reason}") from None
        self.device = device
        self._most: int | None = None
        probe = self._all(np.zeros(2 * HOP, np.float32))
        self.depth, self.dim = len(probe), probe[0].shape[-1]
        if probe[0].shape[1] != 2:
            raise ConfigError(f"torchaudio's {name} does not make a frame of every {HOP} samples")

    def _all(self, wave: Wave) -> list[Tensor]:
        """Receptive field 400, hop 320."""
        values = torch.from_numpy(np.pad(wave, 40))[None].to(self.device)
        return self.model.extract_features(values, num_layers=self._most)[0]  # type: ignore[no-any-return]

    def cut(self, depth: int) -> None:
        self._most = max(1, depth)

    def states(self, wave: Wave, layers: Sequence[int]) -> list[Tensor]:
        if not all(layers):
            raise ConfigError("torchaudio's pipelines have no hidden state 0; the first is 1")
        found = self._all(wave)
        return [found[number - 1][0] for number in layers]
