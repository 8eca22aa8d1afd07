"""The unit vocoder: semantic tokens and a speaker vector in, a 24 kHz waveform out, in one pass.

Token embedding and ConvNeXt blocks (Liu et al. 2022) at 25 Hz; a prosody head for voicing, F0 and energy; four phases
up to 100 Hz; ConvNeXt blocks; then a head in the manner of Vocos (Siuzdak 2023), with one difference: the spectrum that
it predicts is a filter, applied to the short-time spectra of a pulse train at F0 and of white noise, the noise swelling
and fading within each period as the head says.

Every convolution looks at a bounded number of frames, nothing is normalised over time, and every layer pads with zeros,
so the streaming form (`streaming.py`) computes the same numbers.

A speaker is a vector [2 * dim]: what is added to the tokens, then what is added to the frames. The tables hold the
vectors of the voice's own speakers; those of others come from a prompt (`prompt.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.acoustic.unit.excitation import advance_phase, drive, excite
from spear_spec.acoustic.unit.rate import frames_at
from spear_spec.config import DEEPEST, MOST_IDS, WIDEST, Strict, number, require, whole, wholes
from spear_spec.errors import AudioError


@dataclass(frozen=True)
class VocoderConfig(Strict):
    """Sizes of a unit vocoder. `*_right` gives each block's look-ahead in its own frames; kernels are 7 wide."""

    num_semantic_token_ids: int = 1024
    num_speakers: int = 2
    sample_rate: int = 24000
    hop: int = 240
    frames_per_token: int = 4
    n_fft: int = 960
    dim: int = 384
    prosody_dim: int = 256
    expansion: int = 2
    token_right: tuple[int, ...] = (2, 2, 1, 1)
    prosody_right: tuple[int, ...] = (1, 0)
    frame_right: tuple[int, ...] = (1, 1, 1, 1, 1, 1)
    kernel: int = 7
    f0_floor: float = 50.0
    f0_ceil: float = 550.0

    def __post_init__(self) -> None:
        for name, most in (
            ("num_semantic_token_ids", MOST_IDS),
            ("num_speakers", 10_000),
            ("sample_rate", 384_000),
            ("hop", 4096),
            ("frames_per_token", 64),
            ("n_fft", 2**15),
            ("dim", WIDEST),
            ("prosody_dim", WIDEST),
            ("expansion", 16),
            ("kernel", 63),
        ):
            whole(name, getattr(self, name), 1, most)
        for name in ("token_right", "prosody_right", "frame_right"):
            wholes(f"{name} (look-ahead)", getattr(self, name), 0, self.kernel - 1, DEEPEST)
        require(
            self.n_fft % (2 * self.hop) == 0 and self.n_fft >= 4 * self.hop,
            "n_fft must be an even multiple of hop, at least 4 hops",
        )
        require(self.hop % 2 == 0, f"hop must be even, not {self.hop}")
        for name in ("f0_floor", "f0_ceil"):
            number(name, getattr(self, name), 1, self.sample_rate / 4)
        require(self.f0_floor < self.f0_ceil, "f0_floor must lie below f0_ceil")

    @property
    def token_samples(self) -> int:
        """Samples that one token stands for."""
        return self.hop * self.frames_per_token

    def token_samples_at(self, rate: float, first: int, count: int) -> list[int]:
        """Samples of each of `count` tokens, the first of them number `first` of its utterance, spoken at a rate."""
        ends = [frames_at(number * self.frames_per_token, rate) for number in range(first, first + count + 1)]
        return [self.hop * (end - begin) for begin, end in pairwise(ends)]

    @property
    def lookahead(self) -> int:
        """Tokens after a token that its last sample depends on, at rate 1; at another rate one more may be needed."""
        frames = sum(self.frame_right) + self.n_fft // (2 * self.hop)
        ahead = -(-frames // self.frames_per_token)
        return sum(self.token_right) + sum(self.prosody_right) + ahead


class _Depthwise(torch.autograd.Function):
    """Depthwise convolution over axis 1 as a sum of shifted products: on a CPU several times faster than by
    autograd.
    """

    @staticmethod
    def forward(ctx: Any, padded: Tensor, taps: Tensor) -> Tensor:
        ctx.save_for_backward(padded, taps)
        return _shifted_sum(padded, taps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        padded, taps = ctx.saved_tensors
        count = grad.shape[1]
        towards = torch.zeros_like(padded)
        sums = []
        for tap in range(len(taps)):
            towards[:, tap : tap + count].addcmul_(grad, taps[tap])
            sums.append((grad * padded[:, tap : tap + count]).sum((0, 1)))
        return towards, torch.stack(sums)


def _shifted_sum(padded: Tensor, taps: Tensor) -> Tensor:
    count = padded.shape[1] - len(taps) + 1
    mixed = padded[:, :count] * taps[0]
    for tap in range(1, len(taps)):
        mixed.addcmul_(padded[:, tap : tap + count], taps[tap])
    return mixed


def depthwise(padded: Tensor, taps: Tensor) -> Tensor:
    """[B, T + K - 1, C] and taps [K, C] to [B, T, C]."""
    if torch.is_grad_enabled():
        return _Depthwise.apply(padded.float(), taps)  # type: ignore[no-any-return,no-untyped-call]
    return _shifted_sum(padded, taps)


# A matrix product of few rows runs another kernel, which adds in another order.
MIN_ROWS = 16


def _enough_rows(x: Tensor) -> Tensor:
    """At inference, pad [B, T, C] to MIN_ROWS rows, so that each row's result is the same number however many come at
    once.

    F0 is integrated into a phase: there a difference in the last bit would grow along the utterance, and the streamed
    samples would drift from the whole form's by some 1e-4.
    """
    if torch.is_grad_enabled() or x.shape[1] >= MIN_ROWS or x.shape[1] == 0:
        return x
    return F.pad(x, (0, 0, 0, MIN_ROWS - x.shape[1]))


class ContextBlock(nn.Module):
    """ConvNeXt block over [B, T, C]: depthwise convolution with bounded look-ahead, norm, two linear layers,
    residual.
    """

    def __init__(self, dim: int, expansion: int, kernel: int, right: int, depth: int) -> None:
        super().__init__()
        self.kernel, self.right, self.left = kernel, right, kernel - 1 - right
        self.taps = nn.Parameter(torch.randn(kernel, dim) * kernel**-0.5)
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, dim * expansion)
        self.down = nn.Linear(dim * expansion, dim)
        self.scale = nn.Parameter(torch.full((dim,), 1.0 / depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, T, C] to [B, T, C]; `mask` [B, T, 1] zeroes what lies outside the utterance."""
        if mask is not None:
            x = x * mask
        return self.valid(F.pad(x, (0, 0, self.left, self.right)))

    def valid(self, padded: Tensor) -> Tensor:
        """[B, T + kernel - 1, C] to [B, T, C]: the caller brings the context."""
        count = padded.shape[1] - self.kernel + 1
        mixed = depthwise(padded, self.taps)
        update = self.down(F.gelu(self.up(self.norm(_enough_rows(mixed))), approximate="tanh"))[:, :count]
        return padded[:, self.left : self.left + count] + update * self.scale


@dataclass
class Prosody:
    """Predicted or measured prosody at 100 Hz, each [B, F]: voicing in 0..1, F0 in Hz, energy as log RMS."""

    voiced: Tensor
    f0: Tensor
    energy: Tensor


class SpectralHead(nn.Module):
    """Frames to filters: complex spectrum for the pulses, magnitude and swell for the noise; and back to a waveform."""

    def __init__(self, cfg: VocoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        self._window: Tensor | None = None
        self.bins = cfg.n_fft // 2 + 1
        self.norm = nn.LayerNorm(cfg.dim)
        self.out = nn.Linear(cfg.dim, 5 * self.bins)
        with torch.no_grad():
            self.out.weight.mul_(0.5)
            self.out.bias.zero_()
            self.out.bias[: self.bins] = -3.0
            self.out.bias[2 * self.bins : 3 * self.bins] = -5.0
            self.out.weight[3 * self.bins :].zero_()

    @property
    def window(self) -> Tensor:
        """Periodic Hann window, float32 [n_fft], where the weights are; not stored, so it is made when asked for."""
        device = self.out.weight.device
        if self._window is None or self._window.device != device:
            with torch.inference_mode(False):  # a window made while speaking must serve training too
                self._window = torch.hann_window(self.cfg.n_fft, periodic=True, dtype=torch.float32, device=device)
        return self._window

    def frames(self, hidden: Tensor, excitation: Tensor) -> Tensor:
        """Windowed output frames [B, F, n_fft] from hidden [B, F, C] and excitation [B, 4, F, n_fft] (see `excite`)."""
        voiced_mag, angle, noise_mag, cosine, sine = self.out(self.norm(hidden)).float().split(self.bins, dim=-1)
        # exp(4) is far above any filter gain that speech needs; the clamp keeps a wild prediction finite.
        voiced = torch.polar(torch.exp(voiced_mag.clamp(-14.0, 4.0)), angle)
        hiss = torch.exp(noise_mag.clamp(-14.0, 4.0))
        pulses, steady, by_cosine, by_sine = torch.fft.rfft(excitation * self.window).unbind(1)
        noise = steady + 2 * torch.tanh(cosine) * by_cosine + 2 * torch.tanh(sine) * by_sine
        return torch.fft.irfft(pulses * voiced + noise * hiss, n=self.cfg.n_fft) * self.window

    def slices(self, signal: Tensor) -> Tensor:
        """[..., L] to [..., (L - n_fft) // hop + 1, n_fft]."""
        return signal.unfold(-1, self.cfg.n_fft, self.cfg.hop)

    def overlap_add(self, frames: Tensor) -> Tensor:
        """[B, F, n_fft] to [B, (F - 1) * hop + n_fft], divided by the constant sum of squared Hann windows."""
        cfg = self.cfg
        parts = cfg.n_fft // cfg.hop
        batch, count, _ = frames.shape
        pieces = frames.view(batch, count, parts, cfg.hop)
        total = frames.new_zeros(batch, count + parts - 1, cfg.hop)
        for part in range(parts):
            total[:, part : part + count] += pieces[:, :, part]
        return total.flatten(1) / (0.375 * parts)


class UnitVocoder(nn.Module):
    """Semantic tokens [T] and a speaker vector to samples [T * 960]. See the module's text for the design."""

    def __init__(self, cfg: VocoderConfig) -> None:
        super().__init__()
        self.cfg = cfg
        dim, wide = cfg.dim, cfg.prosody_dim
        self.token_embedding = nn.Embedding(cfg.num_semantic_token_ids, dim)
        self.speaker_embedding = nn.Embedding(cfg.num_speakers, dim)
        self.token_norm = nn.LayerNorm(dim)
        depth = len(cfg.token_right)
        self.token_blocks = nn.ModuleList(
            ContextBlock(dim, cfg.expansion, cfg.kernel, right, depth) for right in cfg.token_right
        )
        self.prosody_in = nn.Linear(dim, wide)
        depth = max(1, len(cfg.prosody_right))
        self.prosody_blocks = nn.ModuleList(
            ContextBlock(wide, cfg.expansion, cfg.kernel, right, depth) for right in cfg.prosody_right
        )
        self.prosody_norm = nn.LayerNorm(wide)
        self.prosody_out = nn.Linear(wide, 3 * cfg.frames_per_token)
        self.upsample = nn.Linear(dim, dim * cfg.frames_per_token)
        self.prosody_embedding = nn.Linear(4, dim)
        self.frame_speaker = nn.Embedding(cfg.num_speakers, dim)
        self.frame_norm = nn.LayerNorm(dim)
        depth = len(cfg.frame_right)
        self.frame_blocks = nn.ModuleList(
            ContextBlock(dim, cfg.expansion, cfg.kernel, right, depth) for right in cfg.frame_right
        )
        self.head = SpectralHead(cfg)

    @property
    def device(self) -> torch.device:
        return self.token_embedding.weight.device

    def context_blocks(self, part: str) -> list[ContextBlock]:
        """The blocks of "token", "prosody" or "frame", in order."""
        chosen = {"token": self.token_blocks, "prosody": self.prosody_blocks, "frame": self.frame_blocks}[part]
        return [block for block in chosen if isinstance(block, ContextBlock)]

    # The pieces, in the order in which they run; training and streaming call them one by one.

    def vectors(self, ids: Tensor) -> Tensor:
        """Speaker vectors [B, 2 C] of the voice's own speakers [B]."""
        return torch.cat([self.speaker_embedding(ids), self.frame_speaker(ids)], dim=-1)

    def embed(self, tokens: Tensor, who: Tensor) -> Tensor:
        """Token ids [B, T] and speaker vectors [B, 2 C] to [B, T, C]."""
        return self.token_norm(self.token_embedding(tokens) + who[:, None, : self.cfg.dim])

    def read_prosody(self, raw: Tensor) -> Prosody:
        """Output of the prosody head [B, T, 3 * frames_per_token] to values at 100 Hz."""
        logits, pitch, energy = self.split_prosody(raw)
        cfg = self.cfg
        f0 = torch.exp(5.0 + 0.5 * pitch).clamp(cfg.f0_floor, cfg.f0_ceil)
        return Prosody(torch.sigmoid(logits), f0, energy)

    def split_prosody(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Voicing logit, (log F0 - 5) / 0.5, energy: each [B, F] in float32."""
        count = self.cfg.frames_per_token
        logits, pitch, energy = raw.float().split(count, dim=-1)
        return logits.flatten(1), pitch.flatten(1), energy.flatten(1) - 5.0

    def to_frames(self, hidden: Tensor) -> Tensor:
        """[B, T, C] at 25 Hz to [B, 4 T, C] at 100 Hz."""
        batch, count, dim = hidden.shape
        phases = self.upsample(hidden).view(batch, count * self.cfg.frames_per_token, dim)
        return phases

    def condition(self, frames: Tensor, prosody: Prosody, who: Tensor) -> Tensor:
        """Add prosody and speaker vectors [B, 2 C] to the frames [B, F, C]."""
        pitch = (torch.log(prosody.f0) - 5.0) / 0.5
        values = torch.stack([prosody.voiced, pitch, prosody.voiced * pitch, (prosody.energy + 5.0) * 0.5], dim=-1)
        extra = self.prosody_embedding(values.to(frames.dtype)) + who[:, None, self.cfg.dim :]
        return self.frame_norm(frames + extra)

    def encode(self, tokens: Tensor, who: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Hidden states [B, T, C] and raw prosody [B, T, 12] at 25 Hz of tokens [B, T] and speaker vectors [B, 2 C];
        `mask` [B, T, 1].
        """
        hidden = self.embed(tokens, who)
        for block in self.token_blocks:
            hidden = block(hidden, mask)
        branch = self.prosody_input(hidden)
        for block in self.prosody_blocks:
            branch = block(branch, mask)
        return hidden, self.prosody_output(branch)

    def prosody_input(self, hidden: Tensor) -> Tensor:
        """[B, T, C] to the width of the prosody branch."""
        return self.prosody_in(_enough_rows(hidden))[:, : hidden.shape[1]]  # type: ignore[no-any-return]

    def prosody_output(self, branch: Tensor) -> Tensor:
        """End of the prosody branch to raw prosody [B, T, 3 * frames_per_token]."""
        return self.prosody_out(self.prosody_norm(_enough_rows(branch)))[:, : branch.shape[1]]  # type: ignore[no-any-return]

    def decode(self, hidden: Tensor, prosody: Prosody, who: Tensor, mask: Tensor | None = None) -> Tensor:
        """Frames [B, F, C] at 100 Hz after the last block; hidden [B, T, C], speaker vectors [B, 2 C], `mask`
        [B, F, 1].
        """
        frames = self.condition(self.to_frames(hidden), prosody, who)
        for block in self.frame_blocks:
            frames = block(frames, mask)
        return frames

    def synthesise(self, frames: Tensor, driven: Tensor, noise: Tensor) -> Tensor:
        """Frames [B, F, C], `drive`'s [B, 3, F * hop] and noise [B, F * hop] to samples [B, F * hop].

        Outside, the excitation is silence.
        """
        margin = (self.cfg.n_fft - self.cfg.hop) // 2
        head = self.head
        excitation = F.pad(excite(driven, noise), (margin, margin))
        return head.overlap_add(head.frames(frames, head.slices(excitation)))[:, margin:-margin]

    def vector(self, speaker: int | Tensor) -> Tensor:
        """The speaker vector [2 C] of a speaker of the voice, by number, or one that is given; where the weights are.

        Raises:
            AudioError: no such speaker, or a vector of another length, or one that is not finite.
        """
        if not isinstance(speaker, Tensor):
            if not 0 <= int(speaker) < self.cfg.num_speakers:
                raise AudioError(f"speaker must lie in 0..{self.cfg.num_speakers - 1}, got {speaker}")
            with torch.no_grad():
                return self.vectors(torch.tensor([int(speaker)], dtype=torch.int64, device=self.device))[0]
        if speaker.shape != (2 * self.cfg.dim,) or not speaker.is_floating_point():
            raise AudioError(
                f"a speaker vector must have {2 * self.cfg.dim} numbers, got {speaker.dtype} {list(speaker.shape)}"
            )
        if not torch.isfinite(speaker).all():
            raise AudioError("the speaker vector holds NaN or infinity")
        return speaker.detach().to(self.device, self.token_embedding.weight.dtype)

    def check_tokens(self, tokens: Tensor) -> None:
        """Raise AudioError on ids outside the vocabulary and on a wrong shape."""
        if tokens.ndim != 1 or tokens.is_floating_point() or tokens.is_complex():
            raise AudioError(
                f"semantic tokens must be whole numbers on one axis, got {tokens.dtype} {list(tokens.shape)}"
            )
        limit = self.cfg.num_semantic_token_ids
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= limit):
            raise AudioError(f"semantic tokens must lie in 0..{limit - 1}")


def initial_phase(generator: torch.Generator) -> Tensor:
    """Phase of the fundamental at the first frame: uniform, float64 [1]."""
    return torch.rand(1, generator=generator, dtype=torch.float64, device=generator.device) * (2 * torch.pi)


def drive_for(f0: Tensor, start: Tensor, cfg: VocoderConfig) -> Tensor:
    """`drive` for a whole utterance, float32 [B, 3, F * hop]; F0 float64 [B, F] is held in the first and last half
    frame.
    """
    return drive_from_phase(advance_phase(f0, cfg.hop / cfg.sample_rate, start), f0, cfg)


def drive_from_phase(phase: Tensor, f0: Tensor, cfg: VocoderConfig) -> Tensor:
    """The same from the (unwrapped, float64) phase at the frames' centres."""
    step = 2 * torch.pi * cfg.hop / cfg.sample_rate
    f0 = torch.cat([f0[:, :1], f0, f0[:, -1:]], dim=1)
    phase = torch.cat([phase[:, :1] - step * f0[:, :1], phase, phase[:, -1:] + step * f0[:, -1:]], dim=1)
    half = cfg.hop // 2
    return drive(phase, f0, cfg.hop, cfg.sample_rate)[..., half:-half]
