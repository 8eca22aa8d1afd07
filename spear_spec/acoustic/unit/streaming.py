"""The unit vocoder fed token by token: the same samples as the whole-utterance form, a bounded number of tokens later.

Each convolution keeps the inputs that its next output still needs, the phase accumulator and the overlap-add keep
theirs.
Nothing is computed twice and nothing is approximated: the layers see the same numbers with the same zeros at both ends.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from spear_spec.acoustic.unit.excitation import advance_phase, drive, excite, token_noise
from spear_spec.acoustic.unit.rate import RateStream
from spear_spec.acoustic.unit.vocoder import ContextBlock, UnitVocoder, initial_phase
from spear_spec.errors import AudioError, NumericsError


class BlockStream:
    """One ContextBlock over a sequence that arrives in pieces [1, t, C]; outputs lag by the block's look-ahead."""

    def __init__(self, block: ContextBlock, dim: int, device: torch.device) -> None:
        self.block = block
        self.buffer = torch.zeros(1, block.left, dim, dtype=torch.float32, device=device)

    def push(self, x: Tensor) -> Tensor:
        """Take [1, t, C], give the outputs that are now complete."""
        self.buffer = torch.cat([self.buffer, x], dim=1)
        if self.buffer.shape[1] < self.block.kernel:
            return x[:, :0]
        out: Tensor = self.block.valid(self.buffer)
        self.buffer = self.buffer[:, out.shape[1] :]
        return out

    def finish(self, x: Tensor) -> Tensor:
        """Take the last piece; zeros follow it."""
        return self.push(torch.cat([x, x.new_zeros(1, self.block.right, x.shape[2])], dim=1))


class DriveStream:
    """`drive_for` in pieces: F0 [1, n] in, pulses, cosine and sine up to the newest frame's centre out."""

    def __init__(self, start: Tensor, hop: int, sample_rate: int) -> None:
        self.hop, self.sample_rate = hop, sample_rate
        self.phase, self.f0 = start, torch.zeros(1, 0, dtype=torch.float64, device=start.device)

    def push(self, f0: Tensor) -> Tensor:
        """float64 [1, n] to float32 [1, 3, m]."""
        if f0.shape[1] == 0:
            return torch.zeros(1, 3, 0, dtype=torch.float32, device=f0.device)
        step = 2 * torch.pi * self.hop / self.sample_rate
        first = self.f0.shape[1] == 0
        if first:
            phase = advance_phase(f0, self.hop / self.sample_rate, self.phase)
            phase = torch.cat([phase[:, :1] - step * f0[:, :1], phase], dim=1)
            f0 = torch.cat([f0[:, :1], f0], dim=1)
        else:
            f0 = torch.cat([self.f0, f0], dim=1)
            phase = advance_phase(f0, self.hop / self.sample_rate, self.phase)
        out = drive(phase, f0, self.hop, self.sample_rate)
        self.phase, self.f0 = torch.remainder(phase[:, -1], 2 * torch.pi), f0[:, -1:]
        return out[..., self.hop // 2 :] if first else out

    def finish(self) -> Tensor:
        """The half frame after the last centre: F0 is held."""
        f0 = torch.cat([self.f0, self.f0], dim=1)
        phase = advance_phase(f0, self.hop / self.sample_rate, self.phase)
        return drive(phase, f0, self.hop, self.sample_rate)[..., : self.hop // 2]


class TokenStream(ABC):
    """`push` tokens, take samples; `finish` gives the rest. What comes in is checked here."""

    model: UnitVocoder
    finished = False

    def push(self, tokens: Tensor) -> Tensor:
        """Take tokens [t] (also none), give the samples that are now final, float32 [s].

        Raises:
            AudioError: an id outside the vocabulary, or a stream that is already finished.
            NumericsError: the weights gave NaN or infinity.
        """
        return self._advance(torch.as_tensor(tokens, device="cpu"), last=False)

    def finish(self) -> Tensor:
        """The samples still due. The stream is then closed."""
        return self._advance(torch.zeros(0, dtype=torch.int64, device="cpu"), last=True)

    def _advance(self, tokens: Tensor, last: bool) -> Tensor:
        if self.finished:
            raise AudioError("this vocoder stream is finished: make a new one")
        self.finished = last
        self.model.check_tokens(tokens)
        # no process-wide setting may change a sample
        with torch.inference_mode(), torch.autocast(self.model.device.type, enabled=False):
            return self._run(tokens, last)

    @abstractmethod
    def _run(self, tokens: Tensor, last: bool) -> Tensor: ...


class VocoderStream(TokenStream):
    """State of one utterance.

    After n tokens at least (n - lookahead) * 960 samples have come out; in all exactly n * 960, or at another rate
    240 * `frames_at(4 * n, rate)`.
    """

    def __init__(
        self, model: UnitVocoder, speaker: int | Tensor, generator: torch.Generator, rate: float = 1.0
    ) -> None:
        """speaker: of the voice, by number, or a speaker vector [2 C]."""
        cfg = model.cfg
        self.model, self.who = model, model.vector(speaker)[None]
        device = model.device
        self.device = device
        self.generator = generator
        self.rate, self.taken = rate, 0  # tokens
        self.f0_rate, self.frame_rate = RateStream(rate), RateStream(rate)
        self.token_blocks = [BlockStream(b, cfg.dim, device) for b in model.context_blocks("token")]
        self.prosody_blocks = [BlockStream(b, cfg.prosody_dim, device) for b in model.context_blocks("prosody")]
        self.frame_blocks = [BlockStream(b, cfg.dim, device) for b in model.context_blocks("frame")]
        self.drive_stream: DriveStream | None = None
        self.hidden = torch.zeros(1, 0, cfg.dim, dtype=torch.float32, device=device)
        margin = (cfg.n_fft - cfg.hop) // 2
        self.driven = torch.zeros(1, 3, margin, dtype=torch.float32, device=device)
        self.noise = torch.zeros(1, margin, dtype=torch.float32, device=device)
        self.frames = torch.zeros(1, 0, cfg.dim, dtype=torch.float32, device=device)
        self.tail = torch.zeros(1, cfg.n_fft - cfg.hop, dtype=torch.float32, device=device)
        self.skip = margin

    def _run(self, tokens: Tensor, last: bool) -> Tensor:
        model, cfg = self.model, self.model.cfg
        if self.drive_stream is None:
            if len(tokens) == 0:
                return torch.zeros(0, dtype=torch.float32, device="cpu")
            start = initial_phase(self.generator).to(self.device)
            self.drive_stream = DriveStream(start, cfg.hop, cfg.sample_rate)
        samples = cfg.token_samples_at(self.rate, self.taken, len(tokens))
        self.taken += len(tokens)
        noise = token_noise(self.generator, samples, self.device)
        self.noise = torch.cat([self.noise, noise[None]], dim=1)

        hidden = model.embed(tokens.to(self.device).long()[None], self.who)
        for block in self.token_blocks:
            hidden = block.finish(hidden) if last else block.push(hidden)
        self.hidden = torch.cat([self.hidden, hidden], dim=1)
        branch = model.prosody_input(hidden)
        for block in self.prosody_blocks:
            branch = block.finish(branch) if last else block.push(branch)
        prosody = model.read_prosody(model.prosody_output(branch))
        ready = branch.shape[1]
        frames = model.condition(model.to_frames(self.hidden[:, :ready]), prosody, self.who)
        self.hidden = self.hidden[:, ready:]
        for block in self.frame_blocks:
            frames = block.finish(frames) if last else block.push(frames)
        self.frames = torch.cat([self.frames, self.frame_rate.push(frames, last)], dim=1)
        f0 = self.f0_rate.push(prosody.f0.double(), last)
        self.driven = torch.cat([self.driven, self.drive_stream.push(f0)], dim=2)
        margin = (cfg.n_fft - cfg.hop) // 2
        if last:
            silence = self.noise.new_zeros(1, margin)
            self.driven = torch.cat(
                [self.driven, self.drive_stream.finish(), self.driven.new_zeros(1, 3, margin)], dim=2
            )
            self.noise = torch.cat([self.noise, silence], dim=1)
        return self._emit(last)

    def _emit(self, last: bool) -> Tensor:
        cfg, head = self.model.cfg, self.model.head
        room = min(self.driven.shape[2], self.noise.shape[1])
        count = min(self.frames.shape[1], max(0, (room - cfg.n_fft) // cfg.hop + 1))
        out = torch.zeros(1, 0, dtype=torch.float32, device=self.device)
        if count:
            span = (count - 1) * cfg.hop + cfg.n_fft
            excitation = excite(self.driven[..., :span], self.noise[:, :span])
            total = head.overlap_add(head.frames(self.frames[:, :count], head.slices(excitation)))
            total[:, : self.tail.shape[1]] += self.tail
            out, self.tail = total[:, : count * cfg.hop], total[:, count * cfg.hop :]
            self.frames = self.frames[:, count:]
            self.driven = self.driven[..., count * cfg.hop :]
            self.noise = self.noise[:, count * cfg.hop :]
        if last:
            out = torch.cat([out, self.tail[:, : self.tail.shape[1] // 2]], dim=1)
        drop = min(self.skip, out.shape[1])
        self.skip -= drop
        samples = out[0, drop:].float()
        if not torch.isfinite(samples).all():
            raise NumericsError("the vocoder produced NaN or infinite samples: the voice's weights are damaged")
        return samples.cpu()
