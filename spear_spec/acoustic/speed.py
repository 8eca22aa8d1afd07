"""How fast is spoken, for any stage: by itself as far as it goes, beyond by ffmpeg's `atempo` (PyAV) on its sound."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spear_spec.acoustic.contract import AcousticStage, AcousticStream, Heard
from spear_spec.audio import FloatArray
from spear_spec.config import is_number, require, shown
from spear_spec.errors import AudioError, MissingExtraError

SLOWEST, FASTEST = 0.25, 4.0
_BLOCK = 512  # samples that the filter is given at a time, so that it sees the same however a stream is cut


def check_speed(speed: object, stage: AcousticStage) -> float:
    """How fast is spoken, 1 is the voice's own.

    Raises:
        ConfigError: no number from .25 to 4. MissingExtraError: the stage does not go so far, and PyAV is not there.
    """
    ok = is_number(speed) and SLOWEST <= speed <= FASTEST  # type: ignore[operator]
    require(ok, f"speed must be a number from {SLOWEST:g} to {FASTEST:g}, not {shown(speed)}")
    if _by_stage(stage, float(speed)) != speed:  # type: ignore[arg-type]
        _require_av(float(speed))  # type: ignore[arg-type]
    return float(speed)  # type: ignore[arg-type]


def open_at(
    stage: AcousticStage, voice: str | Heard, speed: float, generator: torch.Generator | None = None
) -> AcousticStream:
    """A new utterance of a stage, at a speed that is brought within .25 to 4.

    Raises:
        ConfigError: a voice or a rate that the stage cannot do. MissingExtraError: see `check_speed`.
    """
    speed = min(max(speed, SLOWEST), FASTEST)
    rate = _by_stage(stage, speed)
    stream = stage.open(voice, rate, generator)
    return stream if rate == speed else TempoStream(stream, stage.sample_rate, speed / rate)


def _by_stage(stage: AcousticStage, speed: float) -> float:
    """The stage's share of a speed; one that does not say how far it goes gets all of it, and may refuse."""
    slowest, fastest = getattr(stage, "rates", (SLOWEST, FASTEST))
    return float(min(max(speed, slowest), fastest))


def _require_av(speed: float) -> None:
    if find_spec("av") is None:
        raise MissingExtraError(f"speed {speed:g} needs PyAV: pip install 'spear_spec[speed]'")


class TempoStream:
    """The sound of a stream, `tempo` times as fast at the same pitch: of n samples it makes n / tempo, rounded."""

    def __init__(self, stream: AcousticStream, sample_rate: int, tempo: float) -> None:
        """Raises:
        MissingExtraError: there is no PyAV.
        """
        _require_av(tempo)
        self._stream, self._sample_rate, self._tempo = stream, sample_rate, tempo
        self._graph: Any = None
        self._waiting = np.zeros(0, dtype=np.float32)
        self._taken = self._given = self._filtered = 0

    def push(self, tokens: Tensor) -> Tensor:
        """See `AcousticStream.push`."""
        return self._stretched(self._stream.push(tokens), last=False)

    def finish(self) -> Tensor:
        """See `AcousticStream.finish`."""
        return self._stretched(self._stream.finish(), last=True)

    def _stretched(self, samples: Tensor, last: bool) -> Tensor:
        self._taken += len(samples)
        self._waiting = np.concatenate([self._waiting, samples.numpy()])
        pieces = []
        while len(self._waiting) >= _BLOCK or (last and len(self._waiting)):
            pieces += self._filter_block(self._waiting[:_BLOCK])
            self._waiting = self._waiting[_BLOCK:]
        if last and self._graph is not None:
            self._graph.push(None)
            pieces += self._pulled()
        out = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
        if last:  # the filter's own end lies a few samples beside
            rest = max(0, int(self._taken / self._tempo + 0.5) - self._given)
            out = np.concatenate([out[:rest], np.zeros(max(0, rest - len(out)), dtype=np.float32)])
        self._given += len(out)
        return torch.from_numpy(out)

    def _filter_block(self, block: FloatArray) -> list[FloatArray]:
        import av

        if self._graph is None:
            graph = av.filter.Graph()
            source = graph.add_abuffer(sample_rate=self._sample_rate, format="fltp", layout="mono")
            tempo, sink = graph.add("atempo", repr(self._tempo)), graph.add("abuffersink")
            source.link_to(tempo)
            tempo.link_to(sink)
            graph.configure()
            self._graph = graph  # its parts do not keep it alive
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block[None]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = self._sample_rate, self._filtered
        self._filtered += len(block)
        self._graph.push(frame)
        return self._pulled()

    def _pulled(self) -> list[FloatArray]:
        import av

        pieces: list[FloatArray] = []
        while True:
            try:
                pieces.append(self._graph.pull().to_ndarray()[0])
            except (av.error.BlockingIOError, av.error.EOFError):
                return pieces
            except av.error.FFmpegError as error:
                raise AudioError(f"the sound cannot be stretched: {error}") from None
