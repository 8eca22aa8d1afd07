"""Speaker similarity: cosine of GE2E speaker embeddings (Wan et al. 2018, arXiv:1710.10467).

Origin and licence: Resemblyzer Apache-2.0 (weights inside). Its module imports librosa and, with it, numba and
scikit-learn; the network is three LSTM layers on a mel spectrogram, so it is built here and only its weights are read.
Pauses are shortened by webrtcvad (MIT; webrtcvad-wheels) as its front end does, with its settings.
"""

from __future__ import annotations

from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import nn

from spear_spec.audio import mel_filterbank
from spear_spec.errors import MissingExtraError
from spear_spec.evaluation.judge import JUDGE_RATE, Measurement, Reference, Samples, listen, require, version_of

EMBEDDING = 256
_MELS, _WINDOW, _HOP = 40, 400, 160  # 25 ms and 10 ms at 16 kHz
_FRAMES = 160  # one partial utterance: 1.6 s
_RATE = 1.3  # partial utterances a second
_COVERAGE = 0.75  # a last partial with less audio than this share is dropped
_LOUDNESS = -30.0  # dBFS: quieter clips are raised to it


class SpeakerJudge:
    """Cosine similarity between an utterance and the voice that was asked for (same speaker about .9)."""

    metric = "speaker_similarity"
    name = "resemblyzer"

    @property
    def version(self) -> str:
        return version_of("resemblyzer")

    @cached_property
    def _network(self) -> _Ge2e:
        return _Ge2e.load()

    @cached_property
    def _filters(self) -> torch.Tensor:
        return torch.from_numpy(mel_filterbank(JUDGE_RATE, _WINDOW, _MELS))

    def embed(self, samples: Samples, sample_rate: int = 24_000) -> Samples:
        """Unit-length embedding [256] of samples [T]."""
        wave = _shorten_pauses(_raise_level(listen(samples, sample_rate)))
        starts = _partials(wave.size)
        needed = (starts[-1] + _FRAMES) * _HOP
        wave = np.pad(wave, (0, max(0, needed - wave.size)))
        with torch.inference_mode():
            mel = _mel(torch.from_numpy(wave), self._filters)
            embedded = self._network(torch.stack([mel[start : start + _FRAMES] for start in starts])).mean(dim=0)
            return np.asarray((embedded / embedded.norm().clamp_min(1e-12)).numpy(), dtype=np.float32)

    def embed_voice(self, clips: list[Samples], sample_rate: int = 24_000) -> Samples:
        """Unit-length mean embedding [256] of several clips of one speaker: a voice's reference."""
        mean = np.mean([self.embed(clip, sample_rate) for clip in clips], axis=0)
        return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)

    def score(self, samples: Samples, reference: Reference, sample_rate: int = 24_000) -> Measurement | None:
        """Cosine over 1; None where the reference has no speaker embedding."""
        if reference.speaker is None:
            return None
        return Measurement(float(np.dot(self.embed(samples, sample_rate), reference.speaker)), 1.0)


class _Ge2e(nn.Module):
    """Mel frames [N, 160, 40] -> unit embeddings [N, 256]."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(_MELS, EMBEDDING, 3, batch_first=True)
        self.linear = nn.Linear(EMBEDDING, EMBEDDING)

    @classmethod
    def load(cls) -> _Ge2e:
        version_of("resemblyzer")
        spec = find_spec("resemblyzer")
        if spec is None or spec.origin is None:
            raise MissingExtraError("resemblyzer is installed without its module; reinstall it with --no-deps")
        weights = torch.load(Path(spec.origin).with_name("pretrained.pt"), map_location="cpu", weights_only=True)
        network = cls()
        network.load_state_dict({key: value for key, value in weights["model_state"].items() if key[0] == "l"})
        return network.eval()

    def forward(self, mel: torch.Tensor) -> torch.Tensor:
        _, (hidden, _) = self.lstm(mel)
        raw = torch.relu(self.linear(hidden[-1]))
        return raw / raw.norm(dim=1, keepdim=True).clamp_min(1e-12)


def _raise_level(wave: Samples) -> Samples:
    power = float(np.sqrt(np.mean(np.square(wave)))) if wave.size else 0.0
    if power <= 0.0:
        return wave
    gain = _LOUDNESS - 20 * np.log10(power)
    return np.asarray(wave * 10 ** (gain / 20), dtype=np.float32) if gain > 0 else wave


def _shorten_pauses(wave: Samples) -> Samples:
    """Keep 30 ms windows near voice: flags smoothed over 8 windows, then widened by 3 on each side."""
    window = JUDGE_RATE * 30 // 1000
    count = wave.size // window
    if count == 0:
        return wave
    vad = require("webrtcvad", "webrtcvad-wheels").Vad(3)  # it adapts as it listens: a new one for every clip
    pcm = np.round(np.clip(wave[: count * window], -1, 1) * 32767).astype(np.int16)
    flags = np.array([vad.is_speech(part.tobytes(), JUDGE_RATE) for part in pcm.reshape(count, window)], dtype=float)
    padded = np.concatenate([np.zeros(3), flags, np.zeros(4)])
    voiced = np.round(np.convolve(padded, np.ones(8) / 8, mode="valid")).astype(bool)
    near = np.convolve(voiced.astype(float), np.ones(7), mode="same") > 0 if count >= 7 else voiced
    kept = wave[: count * window].reshape(count, window)[near[:count]].reshape(-1)
    return kept if kept.size else wave


def _partials(samples: int) -> list[int]:
    """First frame of each partial utterance."""
    frames = int(np.ceil((samples + 1) / _HOP))
    step = int(np.round(JUDGE_RATE / _RATE / _HOP))
    starts = list(range(0, max(1, frames - _FRAMES + step + 1), step))
    covered = (samples - starts[-1] * _HOP) / (_FRAMES * _HOP)
    return starts[:-1] if covered < _COVERAGE and len(starts) > 1 else starts


def _mel(wave: torch.Tensor, filters: torch.Tensor) -> torch.Tensor:
    """Power mel spectrogram [frames, 40], centred frames, zero padded, Hann window."""
    spectrum = torch.stft(
        wave, _WINDOW, _HOP, window=torch.hann_window(_WINDOW), center=True, pad_mode="constant", return_complex=True
    )
    return (filters @ spectrum.abs().square()).T
