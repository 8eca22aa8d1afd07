"""A speaker vector from a few seconds of speech: what the vocoder is conditioned on, heard instead of looked up.

Log-mels of the clip at one level, a strided convolution and ConvNeXt blocks, attentive statistics pooling (Okabe et al.
2018, arXiv:1803.10963), an embedding of unit length in which training lets speakers part
(`training/vocoder/margin.py`), and a linear map to the vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.acoustic.unit.vocoder import ContextBlock
from spear_spec.audio import mel_filterbank, resample
from spear_spec.config import DEEPEST, WIDEST, Strict, number, require, whole
from spear_spec.errors import AudioError, NumericsError

QUIETEST = 1e-5  # of the peak: what is below is silence
FLOOR = 1e-7  # of the mels' power at the level that every prompt is brought to: 70 dB below its loud frames


@dataclass(frozen=True)
class PromptConfig(Strict):
    """Sizes of a prompt encoder. vector: length of the speaker vector, twice the vocoder's width. hop, n_fft: of the
    mels; two of their frames make a frame of the blocks. gate: dB below the loudest frame under which a frame counts as
    silence. shortest, longest: seconds of a prompt; of a longer one the first `longest` are heard."""

    vector: int = 768
    sample_rate: int = 24000
    hop: int = 240
    n_fft: int = 1024
    mels: int = 80
    dim: int = 160
    blocks: int = 3
    expansion: int = 2
    attention: int = 48
    embedding: int = 192
    gate: float = 45.0
    shortest: float = 0.5
    longest: float = 30.0

    def __post_init__(self) -> None:
        for name, most in (
            ("vector", 2 * WIDEST),
            ("sample_rate", 384_000),
            ("hop", 4096),
            ("n_fft", 2**15),
            ("mels", 1024),
            ("dim", WIDEST),
            ("blocks", DEEPEST),
            ("expansion", 16),
            ("attention", WIDEST),
            ("embedding", WIDEST),
        ):
            whole(name, getattr(self, name), 1, most)
        number("gate", self.gate, 1, 200)
        number("shortest", self.shortest, 0.1, 60)
        number("longest", self.longest, self.shortest, 600)
        require(self.n_fft % 2 == 0 and self.hop <= self.n_fft, "n_fft must be even and at least hop")


class PromptEncoder(nn.Module):
    """Log-mels [B, F, mels] of prompts to speaker vectors [B, vector]."""

    def __init__(self, cfg: PromptConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self.enter = nn.Conv1d(cfg.mels, cfg.dim, 5, stride=2, padding=2)
        self.enter_norm = nn.LayerNorm(cfg.dim)
        self.blocks = nn.ModuleList(ContextBlock(cfg.dim, cfg.expansion, 7, 3, cfg.blocks) for _ in range(cfg.blocks))
        self.norm = nn.LayerNorm(cfg.dim)
        self.attend = nn.Linear(cfg.dim, cfg.attention)
        self.weigh = nn.Linear(cfg.attention, cfg.dim)
        self.embedding = nn.Linear(2 * cfg.dim, cfg.embedding)
        self.out = nn.Linear(cfg.embedding, cfg.vector)

    @property
    def device(self) -> torch.device:
        return self.out.weight.device

    def features(self, samples: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-mels float32 [B, F, mels] of samples [B, T] at the encoder's rate, F = ceil(T / hop), and a mask bool
        [B, F]: frames that are heard, none of the padding (`mask` bool [B, T]) and none that is silent.

        The clip's level goes out: its loud frames, those within 20 dB of the loudest, come to unit power.
        """
        cfg = self.cfg
        samples = samples.float()
        if mask is not None:
            samples = samples * mask
        count = -(-samples.shape[1] // cfg.hop)
        margin = (cfg.n_fft - cfg.hop) // 2
        right = (count - 1) * cfg.hop + cfg.n_fft - margin - samples.shape[1]
        pieces = F.pad(samples, (margin, max(0, right))).unfold(1, cfg.n_fft, cfg.hop)[:, :count]
        window, filters = _tools(cfg.sample_rate, cfg.n_fft, cfg.mels, samples.device)
        power = torch.fft.rfft(pieces * window).abs().square() @ filters
        loudness = power.sum(-1)
        inside = torch.ones_like(loudness, dtype=torch.bool)
        if mask is not None:
            lengths = mask.sum(1, keepdim=True)
            inside = torch.arange(count, device=samples.device)[None] * cfg.hop < lengths
        loudest = (loudness * inside).amax(1, keepdim=True)
        loud = inside & (loudness > 0.01 * loudest)
        level = (loudness * loud).sum(1, keepdim=True) / loud.sum(1, keepdim=True).clamp_min(1)
        heard = inside & (loudness > 10 ** (-cfg.gate / 10) * loudest)
        mels = torch.log(power * (cfg.mels / level.clamp_min(1e-30))[..., None] + FLOOR * cfg.mels)
        return mels, heard

    def embed(self, mels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings of unit length [B, embedding] of log-mels [B, F, mels]; of frames outside `mask` bool [B, F]
        nothing is taken.
        """
        if mask is None:
            mask = torch.ones(mels.shape[:2], dtype=torch.bool, device=mels.device)
        inside = mask[..., None].to(mels.dtype)
        x = self.enter((mels * 0.25 * inside).transpose(1, 2)).transpose(1, 2)
        inside = inside[:, ::2]
        x = F.gelu(self.enter_norm(x), approximate="tanh")
        for block in self.blocks:
            x = block(x, inside)
        x = self.norm(x)
        scores = self.weigh(torch.tanh(self.attend(x))).float().masked_fill(inside == 0, -1e9)
        share = torch.softmax(scores, dim=1)
        x = x.float()
        mean = (share * x).sum(1)
        spread = ((share * x.square()).sum(1) - mean.square()).clamp_min(1e-6).sqrt()
        raw = self.embedding(torch.cat([mean, spread], dim=-1)).float()
        return raw / raw.norm(dim=-1, keepdim=True).clamp_min(1e-6)

    def vector(self, embedding: Tensor) -> Tensor:
        """Embeddings [B, embedding] to speaker vectors [B, vector]."""
        return self.out(embedding * math.sqrt(self.cfg.embedding)).float()  # type: ignore[no-any-return]

    def forward(self, mels: Tensor, mask: Tensor | None = None) -> Tensor:
        """Log-mels [B, F, mels], and which of their frames count [B, F], to speaker vectors [B, vector]."""
        return self.vector(self.embed(mels, mask))

    def begin_at(self, vector: Tensor) -> None:
        """Let every prompt give this vector [vector] until training says otherwise."""
        with torch.no_grad():
            self.out.weight.zero_()
            self.out.bias.copy_(vector)


def listen(encoder: PromptEncoder, samples: Tensor, sample_rate: int) -> Tensor:
    """The speaker vector float32 [vector], on the CPU, of a mono clip [T] at any rate.

    Raises:
        AudioError: not mono, not finite, silent, or shorter than `shortest`.
    """
    cfg = encoder.cfg
    samples = torch.as_tensor(samples, device="cpu").detach()
    if samples.ndim != 1 or not samples.is_floating_point():
        raise AudioError(f"a prompt must be float samples [T], mono, got {samples.dtype} {list(samples.shape)}")
    samples = samples[: int(cfg.longest * sample_rate)]
    if len(samples) < cfg.shortest * sample_rate:
        raise AudioError(
            f"a prompt must have {cfg.shortest:g} s or more, this one has {len(samples) / sample_rate:.2f} s"
        )
    if not torch.isfinite(samples).all():
        raise AudioError("the prompt holds NaN or infinity")
    loudest = float(samples.abs().max())
    if loudest < QUIETEST:
        raise AudioError("the prompt is silent")
    wave = resample(np.asarray(samples.float() / loudest), sample_rate, cfg.sample_rate)
    with torch.inference_mode(), torch.autocast(encoder.device.type, enabled=False):
        mels, heard = encoder.features(torch.from_numpy(np.ascontiguousarray(wave))[None].to(encoder.device))
        vector = encoder(mels, heard)[0].float().cpu()
    if not torch.isfinite(vector).all():
        raise NumericsError("the prompt encoder gave NaN or infinity: the voice's weights are damaged")
    return torch.from_numpy(vector.numpy().copy())  # outside inference mode, so that it may be used anywhere


@lru_cache(maxsize=4)
def _tools(sample_rate: int, n_fft: int, mels: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Hann window [n_fft], of unit sum of squares, and mel filters [bins, mels]."""
    with torch.inference_mode(False):
        window = torch.hann_window(n_fft, periodic=True, dtype=torch.float32, device=device)
        filters = torch.from_numpy(mel_filterbank(sample_rate, n_fft, mels)).t().contiguous().to(device)
        return window / window.norm(), filters * (sample_rate / n_fft)
