"""The unit vocoder as one call into C a chunk (`kernels/vocoder.c`), for float32 on a CPU."""

from __future__ import annotations

import ctypes
import math
from ctypes import c_int64

import torch
from torch import Tensor, nn

from spear_spec.acoustic.unit.excitation import token_noise
from spear_spec.acoustic.unit.streaming import TokenStream
from spear_spec.acoustic.unit.vocoder import ContextBlock, UnitVocoder, VocoderConfig, initial_phase
from spear_spec.errors import ContractError, NumericsError
from spear_spec.kernels import native
from spear_spec.kernels.matrix import Matrix, whole_rows
from spear_spec.kernels.pointers import pointer
from spear_spec.kernels.structures import CContextBlock, CMap, CNorm, CVocoder
from spear_spec.models.seen import Plans

_WIDTH = 16  # as in vocoder.h
_ALIGNED = 64
_FLOAT = torch.float32


class NativeVocoder:
    """The weights of one vocoder as the kernel reads them: copies, and no reference to the module. Streams share it."""

    def __init__(self, model: UnitVocoder, rounded: bool = False) -> None:
        """The weights are float32 on the CPU, and `fits(model.cfg)`. rounded: what is done for every frame, and not for
        every token, multiplies weights of 8 bits (a scale for each output) by numbers of 16; prosody stays as it is.

        Raises:
            ContractError: weights whose shapes do not fit together, of another dtype or device.
        """
        loaded, cfg = native.library(), model.cfg
        self.push, self._open = loaded.spear_vocoder_push, loaded.spear_vocoder_open
        self._size = loaded.spear_vocoder_size
        self._held: list[object] = []  # what the structures point at
        dim, wide, phases = cfg.dim, cfg.prosody_dim, cfg.frames_per_token
        angle = torch.arange(cfg.n_fft, dtype=torch.float64, device="cpu") * (2 * math.pi / cfg.n_fft)
        blocks = {part: model.context_blocks(part) for part in ("token", "prosody", "frame")}
        self._bias = model.prosody_embedding.bias.detach().clone()
        self.struct = CVocoder(
            *(cfg.num_semantic_token_ids, dim, wide, cfg.kernel, cfg.hop, phases, cfg.n_fft),
            *(cfg.sample_rate, cfg.f0_floor, cfg.f0_ceil),
            self._at(model.token_embedding.weight, (cfg.num_semantic_token_ids, dim)),
            self._norm(model.token_norm, dim),
            *(len(some) for some in blocks.values()),
            self._blocks(blocks["token"], dim, cfg),
            self._blocks(blocks["prosody"], wide, cfg),
            self._blocks(blocks["frame"], dim, cfg, rounded),
            self._map(model.prosody_in, wide, dim),
            self._norm(model.prosody_norm, wide),
            self._map(model.prosody_out, 3 * phases, wide),
            self._map(model.upsample, phases * dim, dim, rounded),
            self._at(model.prosody_embedding.weight.t(), (4, dim)),
            self._norm(model.frame_norm, dim),
            self._norm(model.head.norm, dim),
            self._map(model.head.out, 5 * model.head.bins, dim, rounded),
            self._at(model.head.window, (cfg.n_fft,)),
            self._at(torch.stack([angle.cos(), -angle.sin()], -1).float(), (cfg.n_fft, 2)),
        )

    def open(self, who: Tensor, phase: float, rate: float) -> tuple[Tensor, int]:
        """Memory of a new stream of this speaker vector [2 C], and the address in it that the kernel is given."""
        dim = self.struct.dim
        both = torch.cat([who[:dim], who[dim:] + self._bias])  # the stream keeps a copy
        memory = torch.empty(self._size(self.struct, rate) + _ALIGNED, dtype=torch.uint8, device="cpu")
        at = -(-memory.data_ptr() // _ALIGNED) * _ALIGNED
        self._open(self.struct, pointer(both, (2 * dim,), _FLOAT, "the speaker vector"), phase, rate, at)
        return memory, at

    def _at(self, weight: Tensor, shape: tuple[int, ...]) -> int:
        weight = weight.detach().clone(memory_format=torch.contiguous_format)
        self._held.append(weight)
        return pointer(weight, shape, _FLOAT, "a weight of the vocoder")

    def _norm(self, norm: nn.LayerNorm, dim: int) -> CNorm:
        return CNorm(self._at(norm.weight, (dim,)), self._at(norm.bias, (dim,)))

    def _map(self, linear: nn.Linear, out: int, inputs: int, rounded: bool = False) -> CMap:
        if linear.weight.shape != (out, inputs):
            raise ContractError(f"a map of the vocoder is {list(linear.weight.shape)}, it must be {[out, inputs]}")
        bias = self._at(linear.bias, (out,))
        if rounded:
            codes, scale = whole_rows(linear.weight.detach())
            matrix = Matrix.of_codes(codes.to(torch.int8), scale)
        else:
            matrix = Matrix(linear.weight)
        self._held.append(matrix)
        return CMap(matrix.struct, bias)

    def _blocks(
        self, blocks: list[ContextBlock], dim: int, cfg: VocoderConfig, rounded: bool = False
    ) -> ctypes.Array[CContextBlock]:
        inner = cfg.expansion * dim
        return (CContextBlock * len(blocks))(
            *[
                CContextBlock(
                    self._at(block.taps, (cfg.kernel, dim)),
                    self._norm(block.norm, dim),
                    self._map(block.up, inner, dim, rounded),
                    self._map(block.down, dim, inner, rounded),
                    self._at(block.scale, (dim,)),
                    block.right,
                )
                for block in blocks
            ]
        )


def fits(cfg: VocoderConfig) -> bool:
    """Whether the kernel knows these sizes: rows in whole vectors, transforms of 2^a 3^b 5^c points."""
    left = cfg.n_fft
    for prime in (2, 3, 5):
        while left % prime == 0:
            left //= prime
    return cfg.dim % _WIDTH == 0 and cfg.prosody_dim % _WIDTH == 0 and left == 1


_PLANS = {False: Plans(), True: Plans()}  # by whether they are rounded


def native_for(model: UnitVocoder, rounded: bool = False) -> NativeVocoder | None:
    """What speaks for this vocoder in C; None where torch does (another dtype or device, sizes that `fits` refuses, no
    kernel, weights made in inference mode, whose changes nobody counts).

    rounded: see `NativeVocoder`. The weights are packed once, see `Plans`. A stream keeps those that it began with.
    """
    if not native.available():
        return None
    weights = list(model.parameters())

    def make() -> NativeVocoder | None:
        plain = all(w.dtype is _FLOAT and w.device.type == "cpu" and not w.is_inference() for w in weights)
        return NativeVocoder(model, rounded) if plain and fits(model.cfg) else None

    return _PLANS[rounded].of(model, weights, make)


class NativeStream(TokenStream):
    """`VocoderStream` in C: the same samples to float32 rounding, and bit for bit the same however the tokens are cut
    into pushes.
    """

    def __init__(
        self,
        model: UnitVocoder,
        kernel: NativeVocoder,
        speaker: int | Tensor,
        generator: torch.Generator,
        rate: float = 1.0,
    ) -> None:
        """speaker: of the voice, by number, or a speaker vector [2 C]."""
        self.model, self.who, self.generator = model, model.vector(speaker), generator
        self._kernel = kernel
        self._memory: tuple[Tensor, int] | None = None  # the first token opens it: then the initial phase is drawn
        self.rate, self._taken = rate, 0  # tokens
        self._due = 0  # samples of tokens taken that have not come out

    def _run(self, tokens: Tensor, last: bool) -> Tensor:
        tokens = tokens.long().contiguous()
        count = len(tokens)
        if self._memory is None:
            if not count:
                return torch.zeros(0, dtype=_FLOAT, device="cpu")
            self._memory = self._kernel.open(self.who, float(initial_phase(self.generator)), self.rate)
        sizes = self.model.cfg.token_samples_at(self.rate, self._taken, count)
        self._taken += count
        noise = token_noise(self.generator, sizes, torch.device("cpu")).contiguous()
        self._due += len(noise)
        samples, made = torch.empty(self._due, dtype=_FLOAT, device="cpu"), c_int64()
        status = self._kernel.push(
            self._kernel.struct,
            self._memory[1],
            count,
            pointer(tokens, (count,), torch.int64, "tokens"),
            pointer(noise, (sum(sizes),), _FLOAT, "noise"),
            last,
            samples.data_ptr(),
            ctypes.byref(made),
        )
        try:
            native.check(status, "the vocoder")
        except NumericsError:
            raise NumericsError(
                "the vocoder produced NaN or infinite samples: the voice's weights are damaged"
            ) from None
        self._due -= made.value
        return samples[: made.value]
