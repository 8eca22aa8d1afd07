"""Semantic tokens from a small supervised encoder behind a frozen speech encoder: k-means on what it leaves.

The encoder reads pairs of 50 Hz frames, each with several hidden states, and was trained to tell the phoneme of the
frame and its log-mels through noise. The noise is what makes sounds that are alike share a token: such tokens carry
more of the speech than k-means on the bare states, and a language model predicts them better.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spear_spec.config import Strict
from spear_spec.errors import BundleError, ConfigError
from spear_spec.semantic.encoder import SpeechEncoder
from spear_spec.semantic.kmeans import nearest
from spear_spec.semantic.tokenizer import read_centroids, save_centroids

LAYERS = (4, 6)  # hidden states of Whisper base that the shipped encoder reads
PAIR = 2  # 50 Hz frames in a token


@dataclass(frozen=True)
class SupervisedConfig(Strict):
    """inputs: width of what a token's frames bring; kernel: taps of the depthwise convolutions at 25 Hz."""

    inputs: int = 2048
    dim: int = 256
    expansion: int = 3
    blocks: int = 3
    kernel: int = 7

    def __post_init__(self) -> None:
        if min(self.inputs, self.dim, self.expansion, self.kernel) < 1 or self.blocks < 0 or self.kernel % 2 == 0:
            raise ConfigError(f"SupervisedConfig: sizes must be at least 1 and the kernel odd: {self}")


class SupervisedBlock(nn.Module):
    """ConvNeXt block over [B, T, C], zeros beyond the ends."""

    def __init__(self, cfg: SupervisedConfig) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(cfg.dim, cfg.dim, cfg.kernel, padding=cfg.kernel // 2, groups=cfg.dim)
        self.norm = nn.LayerNorm(cfg.dim)
        self.up = nn.Linear(cfg.dim, cfg.expansion * cfg.dim)
        self.down = nn.Linear(cfg.expansion * cfg.dim, cfg.dim)
        self.scale = nn.Parameter(torch.full((cfg.dim,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        return x + self.scale * self.down(F.gelu(self.up(self.norm(mixed))))


class SupervisedEncoder(nn.Module):
    """Frame pairs of hidden states [B, T, inputs] to features [B, T, dim] of unit variance: what k-means divides."""

    def __init__(self, cfg: SupervisedConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.enter = nn.Linear(cfg.inputs, cfg.dim)
        self.blocks = nn.ModuleList(SupervisedBlock(cfg) for _ in range(cfg.blocks))

    def forward(self, pairs: Tensor) -> Tensor:
        x = self.enter(pairs)
        for block in self.blocks:
            x = block(x)
        return F.layer_norm(x, (self.cfg.dim,), eps=1e-5)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], where: str = "supervised encoder") -> SupervisedEncoder:
        """An encoder in float32 whose sizes are read off its weights.

        Raises:
            BundleError: tensors are missing, unknown, of another shape, or not finite.
        """
        try:
            dim, inputs = tensors["enter.weight"].shape
            numbers = [int(found[1]) for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))]
            expansion, kernel = 1, 1
            if numbers:
                expansion, kernel = (
                    len(tensors["blocks.0.up.weight"]) // dim,
                    tensors["blocks.0.depthwise.weight"].shape[-1],
                )
            model = cls(SupervisedConfig(inputs, dim, expansion, 1 + max(numbers, default=-1), kernel))
            model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
        except (KeyError, ValueError, RuntimeError, ConfigError) as error:
            raise BundleError(
                f"{where}: these are no weights of a supervised encoder: {str(error).splitlines()[0]}"
            ) from None
        if not all(bool(parameter.isfinite().all()) for parameter in model.parameters()):
            raise BundleError(f"{where}: the weights hold NaN or infinity")
        return model.eval().requires_grad_(False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SupervisedEncoder:
        """Read a safetensors file.

        Raises:
            BundleError: it is missing or damaged, or holds something else.
        """
        try:
            tensors = load_file(Path(path))
        except (OSError, SafetensorError) as error:
            raise BundleError(f"cannot read the supervised encoder from {path}: {error}") from None
        return cls.from_tensors(tensors, str(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file (float32: tokens are decided by small differences)."""
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}, path)


def frame_pairs(states: Tensor) -> Tensor:
    """Hidden states [..., 2 T, D] at 50 Hz to their pairs [..., T, 2 D] at 25 Hz, the first frame in front."""
    return states[..., : states.shape[-2] // PAIR * PAIR, :].unflatten(-2, (-1, PAIR)).flatten(-2)


class SupervisedTokenizer:
    """Speech to the index of the centroid that is nearest to the supervised encoder's feature, at 25 Hz.

    Args:
        speech: the frozen encoder, with the hidden states that `supervised` was trained on; or its hub name or folder.
        supervised: the small encoder, or its file.
        centroids: float [K, dim].
        layers: hidden states, where `speech` is a name.

    Raises:
        ConfigError: the parts do not fit each other.
        MissingExtraError, BundleError: see `SpeechEncoder` and `SupervisedEncoder.load`.
    """

    def __init__(
        self,
        speech: SpeechEncoder | str,
        supervised: SupervisedEncoder | str | os.PathLike[str],
        centroids: Tensor,
        *,
        layers: Sequence[int] = LAYERS,
        device: str | torch.device = "cpu",
    ) -> None:
        self.speech = speech if isinstance(speech, SpeechEncoder) else SpeechEncoder(speech, layers, device)
        self.supervised = (
            supervised if isinstance(supervised, SupervisedEncoder) else SupervisedEncoder.load(supervised)
        ).to(self.speech.device)
        cfg = self.supervised.cfg
        if PAIR * self.speech.dim != cfg.inputs:
            raise ConfigError(
                f"the supervised encoder reads {cfg.inputs} values a token, but hidden states {self.speech.layers} of "
                f"{self.speech.name} bring {PAIR * self.speech.dim}"
            )
        if centroids.ndim != 2 or centroids.shape[1] != cfg.dim:
            raise ConfigError(f"centroids of shape {tuple(centroids.shape)} do not fit features of width {cfg.dim}")
        self.centroids = centroids.float().to(self.speech.device)

    @property
    def vocab_size(self) -> int:
        """Number of semantic tokens."""
        return len(self.centroids)

    @torch.no_grad()
    def features(self, samples: npt.ArrayLike, sample_rate: int) -> Tensor:
        """What is quantised: float32 [T, dim] at 25 Hz."""
        return self.supervised(frame_pairs(self.speech.hidden(samples, sample_rate))[None])[0]  # type: ignore[no-any-return]

    def encode(self, samples: npt.ArrayLike, sample_rate: int) -> Tensor:
        """Semantic tokens of a mono clip at any rate: int64 [T], T = seconds * 25 rounded down.

        Raises:
            AudioError: not mono, not finite, or shorter than 40 ms.
        """
        return nearest(self.features(samples, sample_rate), self.centroids).cpu()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Centroids, speech encoder and hidden states to one safetensors file."""
        about = {"encoder": self.speech.name, "layers": json.dumps(self.speech.layers)}
        save_centroids(path, self.centroids, about)

    @classmethod
    def load(
        cls,
        speech: SpeechEncoder | str,
        supervised: str | os.PathLike[str],
        centroids: str | os.PathLike[str],
        device: str | torch.device = "cpu",
    ) -> SupervisedTokenizer:
        """From the files of the supervised encoder and of its centroids.

        Raises:
            BundleError: a file is missing or damaged.
        """
        return cls(speech, supervised, read_centroids(centroids)[0], device=device)
