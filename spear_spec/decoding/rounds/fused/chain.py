"""Chains of a draft decoder of one layer by one kernel (`ahead.py`), as an operation of torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.decoding.rounds.fused.ops import LIBRARY, MOST_IDS, SWITCH, FusedLaw, numbers, on, power_of_two
from spear_spec.decoding.rounds.laws import FROZEN
from spear_spec.kernels.packed import PackedLinear
from spear_spec.models.drafts.decoder import DraftState
from spear_spec.models.drafts.runner import TINY, DraftRunner
from spear_spec.nn.static import StaticCache

LAWS_ALONE = "laws"  # of `SWITCH`: chains by torch's operations, laws and verification by the kernels
# One program reads all weights once a token, through one of the device's multiprocessors, some 100 GB/s of them; torch
# takes about 57 launches of 1.3 us a token and reads with the whole device. By that count they meet at 7 MB.
MOST_BYTES = 6 * 2**20
_TILE = 2**14  # bytes of a weight or a cache that a program reads at a time: it has so many registers
_MOST_TOGETHER, _TOGETHER = 16, 2**16  # rows of a program in the interpreter, and numbers of all of them
_LINE = 16  # numbers; lines of a weight are multiples of it, or they are read one number at a time


@dataclass(frozen=True)
class Ahead:
    """A one-layer decoder as the kernel reads it.

    weights: table [V + 1, D], enter, to_qkv, self_out, to_q, cross_out, up, up_bias, down, down_bias, head, each
    contiguous, maps as [out, in] with the norms' gains in them; lines of `down` are filled up with 0. fed: whether the
    decoder reads its last hidden state.
    """

    weights: list[Tensor]
    heads: int
    dim_head: int
    fed: bool

    @classmethod
    def of(cls, runner: DraftRunner) -> Ahead | None:
        """That of a runner with whole weights. None: more layers than one, or so large that torch is as fast."""
        if len(runner.layers) != 1 or os.environ.get(SWITCH) == LAWS_ALONE:
            return None
        (layer,) = runner.layers

        def whole(linear: PackedLinear) -> Tensor:
            return linear.whole().contiguous()

        down = whole(layer.down)
        down = F.pad(down, (0, -down.shape[1] % _LINE))
        weights = [
            runner.table.contiguous(), whole(runner.enter), whole(layer.to_qkv), whole(layer.self_out),
            whole(layer.to_q), whole(layer.cross_out), whole(layer.up), layer.up_bias, down,
            layer.down_bias, runner.head.t().contiguous(),
        ]  # fmt: skip
        large = sum(weight.nbytes for weight in weights[1:]) > MOST_BYTES
        if large or len(weights[-1]) > MOST_IDS:
            return None
        return cls(weights, layer.heads, layer.dim_head, runner.fed)

    def takes(self, rows: int) -> bool:
        """Whether so many programs run at the same time."""
        device = self.weights[0].device
        return device.type != "cuda" or rows <= torch.cuda.get_device_properties(device).multi_processor_count

    def draw(
        self,
        hidden: Tensor,
        lengths: Tensor,
        limits: Tensor,
        uniforms: Tensor,
        gamma: int,
        law: FusedLaw,
        eos: int,
        cache: StaticCache,
        state: DraftState,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What `draft.chain` draws behind hidden [R, D], the decoder's output at each row's newest token.

        Args:
            lengths int64 [R]: positions that the cache holds of each row. limits, uniforms: see `StaticDraft.draw`.

        Returns:
            `draft.Drawn`. Laws behind a row's limit are not written: they may hold anything.
        """
        (text_keys, text_values), bias = state.cross[0], state.cross_mask
        assert bias is not None, "text in fixed memory has its mask"
        how, kinds = law.how, law.kinds
        drawn: tuple[Tensor, Tensor, Tensor, Tensor] = torch.ops.spear_spec.chain(
            hidden, lengths, limits, uniforms, how.temperature, how.top_k, how.top_p, self.weights,
            cache.k[0], cache.v[0], torch.view_as_real(cache.table), text_keys, text_values, bias,
            gamma, eos, self.heads, self.fed, kinds.top_k, kinds.top_p, kinds.greedy, law.dtype == torch.float64,
        )  # fmt: skip
        return drawn


def _chain(
    hidden: Tensor,
    lengths: Tensor,
    limits: Tensor,
    uniforms: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    weights: list[Tensor],
    keys: Tensor,
    values: Tensor,
    turns: Tensor,
    text_keys: Tensor,
    text_values: Tensor,
    bias: Tensor,
    gamma: int,
    eos: int,
    heads: int,
    fed: bool,
    by_count: bool,
    by_mass: bool,
    greedy: bool,
    double: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from spear_spec.decoding.rounds.fused import ahead

    tokens, counts, laws, fine = _drawn(hidden, limits, weights, gamma, double)
    (rows, dim), ids, size, inner = hidden.shape, laws.shape[-1], keys.shape[-1], len(weights[6]) // 2
    assert keys.stride() == values.stride() and text_keys.stride() == text_values.stride()
    assert keys.stride(-1) == text_keys.stride(-1) == bias.stride(-1) == 1
    wide = power_of_two(max(dim, heads * size))
    shape = {"WIDE": wide, "H": power_of_two(heads), "N": power_of_two(size), "M": power_of_two(inner)}
    shape |= {"B": power_of_two(ids), "R": 1}
    tile = _TILE // weights[0].element_size()
    if hidden.device.type == "cuda":
        shape["num_warps"] = 8
    else:  # in the interpreter, where every operation costs much the same whatever its size
        shape["R"] = min(power_of_two(rows), _MOST_TOGETHER)
        tile = min(_TOGETHER // shape["R"], wide * power_of_two(max(len(weight) for weight in weights[1:])))
    shape["TILE"] = max(tile, wide, shape["M"])
    width = -(-max(3 * heads * size, 2 * inner, ids, dim) // 16) * 16
    notes = laws.new_empty(rows, ahead.PAGES.value, width)
    hidden, lengths, limits, uniforms = (x.contiguous() for x in (hidden, lengths, limits, uniforms))
    with on(hidden.device):
        ahead.chain[(-(-rows // shape["R"]),)](
            hidden, lengths, limits, uniforms, temperature, top_k, top_p, *weights,
            keys, values, *keys.stride()[:3], turns,
            text_keys, text_values, *text_keys.stride()[:3], bias, bias.stride(0),
            notes, tokens, counts, laws, fine, rows, gamma, uniforms.shape[1], text_keys.shape[2], eos,
            fed, dim, heads, size, inner, weights[8].shape[1], ids, width, size**-0.5, TINY, FROZEN,
            by_count, by_mass, greedy, *numbers(double), **shape,
        )  # fmt: skip
    return tokens, counts, laws, fine


def _drawn(
    hidden: Tensor, limits: Tensor, weights: list[Tensor], gamma: int, double: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, dtype = len(hidden), torch.float64 if double else torch.float32
    laws = torch.empty(rows, gamma, len(weights[-1]), dtype=dtype, device=hidden.device)
    tokens = limits.new_empty(rows, gamma)
    return tokens, torch.empty_like(limits), laws, torch.empty_like(limits, dtype=torch.bool)


def _chain_like(
    hidden: Tensor, lengths: Tensor, limits: Tensor, *rest: object
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    weights, gamma, double = rest[4], rest[11], rest[-1]
    assert isinstance(weights, list) and isinstance(gamma, int)
    return _drawn(hidden, limits, weights, gamma, bool(double))


LIBRARY.define(
    "chain(Tensor hidden, Tensor lengths, Tensor limits, Tensor uniforms, Tensor temperature, Tensor top_k, "
    "Tensor top_p, Tensor[] weights, Tensor(a!) keys, Tensor(b!) values, Tensor turns, Tensor text_keys, "
    "Tensor text_values, Tensor bias, int gamma, int eos, int heads, bool fed, bool by_count, bool by_mass, "
    "bool greedy, bool double) -> (Tensor, Tensor, Tensor, Tensor)"
)
for _device in ("CPU", "CUDA"):
    LIBRARY.impl("chain", _chain, _device)
LIBRARY.impl("chain", _chain_like, "Meta")
