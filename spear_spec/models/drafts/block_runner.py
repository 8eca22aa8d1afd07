"""The block decoder's inference plan: settled tokens become keys and values, one pass says of all positions, and what
the token before adds is one small product a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.kernels import native
from spear_spec.kernels.block import BlockWeights, NativeBlock
from spear_spec.kernels.packed import PackedLayer, PackedLinear
from spear_spec.kernels.rounded import RoundedLinear
from spear_spec.models.contract import Target
from spear_spec.models.drafts.block import BlockDecoder
from spear_spec.models.drafts.decoder import DraftState
from spear_spec.models.drafts.runner import TINY, Folded, Turning, fold, folded_layer, kept, undisturbed, unit
from spear_spec.nn.attention import Attend, attend, rotate, seeing
from spear_spec.nn.cache import KVCache
from spear_spec.nn.transformer import decode
from spear_spec.nn.tree import Tree

_FEW = 16  # rows in one call of the kernel

# Keys and values [B, H, n, D] of a layer go where they are kept
Append = Callable[[int, Tensor, Tensor], object]


@dataclass
class BlockPass:
    """What one pass said of K positions: the part of the logits [R, K, V] that does not look at the token before, the
    gate [R, K, rank] of the part that does, and the chance [R, K] that a position's token is accepted.
    """

    logits: Tensor
    gate: Tensor
    sure: Tensor


class BlockRunner(Turning):
    """Passes of one block decoder on one target, for inference alone. Snapshot of the weights: see `kept`.

    It refers to neither module, and holds nothing of an utterance: threads may share it, each with a state of its own.
    On a CPU weights and what they are multiplied with are rounded to 8 bits (`RoundedLinear`), and multiplied by C
    where the package was built with it.
    """

    @undisturbed
    def __init__(self, draft: BlockDecoder, model: Target, *, exact: bool = False) -> None:
        """exact: keep the weights in full precision."""
        cfg, dim = draft.cfg, draft.cfg.dim
        self.dim, self.block, self.window, self._dim_head = dim, cfg.block, cfg.window, cfg.dim_head

        def pack(weight: Tensor) -> RoundedLinear:
            return RoundedLinear(weight, exact=exact)

        table = F.normalize(model.embedding, dim=-1)
        self.table = table @ fold(draft.enter.weight[:, :dim], draft.token_norm.gamma).t()
        self.enter = pack(fold(draft.enter.weight[:, dim:], draft.feature_norm.gamma))
        gains = torch.cat([norm.gamma for norm in draft.fuse_norm])
        self._fuse = PackedLinear(fold(draft.fuse.weight, gains, dim), exact=exact)
        self.layers: list[PackedLayer[RoundedLinear]] = [folded_layer(layer, pack) for layer in draft.layers]
        width = cfg.heads * cfg.dim_head
        self.past = [
            pack(fold(layer.self_attn.to_qkv.weight[width:], layer.self_attn.norm.gamma)) for layer in draft.layers
        ]
        self.head = pack(fold(model.head, draft.norm.gamma))
        self.positions = draft.positions.detach().clone()
        self.gate = pack(fold(torch.cat((draft.gate.weight, draft.sure.weight)), draft.norm.gamma))
        self.gate_bias = torch.cat((draft.gate.bias, draft.sure.bias)).detach()
        self.before, self.after = draft.before.detach().clone(), pack(draft.after.t())
        self._rotary = self._turns(2048)
        self.native: NativeBlock | None = None
        if self.head.rounds and native.available():
            self.native = NativeBlock(self._weights())

    def _weights(self) -> BlockWeights:
        return BlockWeights(
            self.table, self.enter, self.layers, self.positions, self.head, self.gate, self.gate_bias,
            self.before, self.after, self._fuse, self.window,
        )  # fmt: skip

    @undisturbed
    def step(
        self,
        tokens: Tensor,
        features: Tensor | None,
        state: DraftState,
        tree: Tree | None = None,
        counts: list[int] | None = None,
    ) -> Tensor:
        """Read settled tokens [B, n] with the target's features [B, n, D] behind each row's cache -> their contexts
        [B, n, D].

        counts [B]: tokens of each row that are there, the rest is padding (and its result means nothing).
        """
        assert tree is None and features is not None, "a block decoder reads settled tokens, one after the other"
        batch, length = tokens.shape
        cache = state.cache
        cache.reserve(cache.longest + length)
        angles = self.angles(cache.longest + length)
        if self.native is not None and batch <= _FEW:
            contexts = self.native.read(tokens, features, cache, state.cross, state.cross_mask, angles, counts)
            cache.advance(length)
            return contexts
        place = torch.tensor(cache.lengths, device=tokens.device)[:, None] + torch.arange(length, device=tokens.device)
        contexts = self.read(tokens, features, angles[place], cache.append)
        cache.advance(length)
        return contexts

    @undisturbed
    def read(self, tokens: Tensor, features: Tensor, turns: Tensor, append: Append) -> Tensor:
        """Contexts [B, n, D] of settled tokens [B, n] and features [B, n, D], rotated by turns [B, n, dim_head / 2];
        their keys and values [B, H, n, dim_head] of each layer go to `append`. Operations on tensors alone.
        """
        size = torch.linalg.vector_norm(features, dim=-1, keepdim=True).clamp_min(TINY)  # the first feature is zero
        contexts = F.embedding(tokens, self.table) + self.enter(features / size)
        for index, (layer, past) in enumerate(zip(self.layers, self.past)):
            # the layer's own queries are not asked for: two halves, keys and values
            keys, values = past(unit(contexts)).unflatten(-1, (2, layer.heads, -1)).unbind(2)
            append(index, rotate(keys, turns).transpose(1, 2), values.transpose(1, 2))
        return contexts

    @undisturbed
    def fuse(self, draft: BlockDecoder, features: list[Tensor], count: int) -> Tensor:
        """The target's features [B, T, D] of each of the draft's `target_layers`, of the first `count` positions ->
        [B, count, D].
        """
        if self.native is not None:
            return self.native.fuse(features, count)
        return draft.fuse_target([layer[:, :count] for layer in features])

    @undisturbed
    def ahead(self, contexts: Tensor, counts: Sequence[int], state: DraftState) -> BlockPass:
        """One pass behind each row's newest token, whose contexts [R, 1, D] these are.

        counts [R]: positions of each row's block, at most `block`, at least 1; what the others say means nothing.
        """
        cache, longest = state.cache, max(counts)
        cache.reserve(cache.longest + longest)
        angles = self.angles(cache.longest + longest)
        if self.native is not None and len(counts) <= _FEW:
            return BlockPass(
                *self.native.ahead(contexts, counts, cache, state.cross, state.cross_mask, angles),
            )
        ahead = torch.arange(longest, device=contexts.device)
        lengths = torch.tensor(cache.lengths, device=contexts.device)[:, None]
        first = max(min(cache.lengths) - self.window, 0)
        slot = torch.arange(first, cache.longest, device=contexts.device)
        settled = (slot < lengths) & (slot >= lengths - self.window)
        own = ahead < torch.tensor(list(counts), device=contexts.device)[:, None]
        mask = torch.cat((settled, own), 1)[:, None, None]
        return self.behind(contexts, angles[lengths + ahead], state, lambda index: _Behind(cache, index, first, mask))

    @undisturbed
    def behind(self, contexts: Tensor, turns: Tensor, state: DraftState, past_of: Callable[[int], Attend]) -> BlockPass:
        """One pass over the positions [R, n] that are rotated by turns [R, n, dim_head / 2], behind the newest contexts
        [R, 1, D]. past_of: how a layer looks at settled tokens and the block. Operations on tensors alone.
        """
        x = contexts + self.positions[: turns.shape[1]]
        for index, layer in enumerate(self.layers):
            past, text = past_of(index), seeing(state.cross_mask)
            x = decode(Folded(layer), x, turns, state.cross[index], past=past, text=text)
        normed = unit(x)
        both = self.gate(normed) + self.gate_bias
        gate, sure = both[..., :-1], both[..., -1]
        return BlockPass(self.head(normed), 2 * torch.sigmoid(gate), torch.sigmoid(sure))

    @undisturbed
    def follow(self, said: BlockPass, position: int, before: Tensor) -> Tensor:
        """The logits [R, V] of a position, once the token before it [R] is known."""
        if self.native is not None and len(before) <= _FEW:
            return self.native.follow(said.logits[:, position], said.gate[:, position], before)
        return said.logits[:, position] + self.after(F.embedding(before, self.before) * said.gate[:, position])

    @undisturbed
    def chain(
        self,
        contexts: Tensor,
        newest: list[int],
        limits: list[int],
        uniforms: list[list[float]],
        sampling: SamplingConfig | Sequence[SamplingConfig],
        eos: int,
        state: DraftState,
        entropy: list[float] | None = None,
        least: list[float] | None = None,
        cost: float | None = None,
    ) -> tuple[list[list[int]], Tensor | None]:
        """A pass and all draws in one call, see `NativeBlock.chain`; where `chains` says so."""
        assert self.native is not None
        state.cache.reserve(state.cache.longest + max(limits))
        angles = self.angles(state.cache.longest + max(limits))
        return self.native.chain(
            contexts, newest, limits, uniforms, sampling, eos, state.cache, state.cross, state.cross_mask, angles,
            entropy, least, cost,
        )  # fmt: skip

    def chains(self, rows: int) -> bool:
        """Whether `chain` can draw for so many rows."""
        return self.native is not None and rows <= _FEW


class _Behind:
    """How a block's self-attention looks in one layer: at the newest settled tokens, and at its own positions."""

    def __init__(self, cache: KVCache, layer: int, first: int, mask: Tensor) -> None:
        """mask [R, 1, 1, T]: which of the cache's positions from `first` on, and then of the block's, a row sees."""
        self.cache, self.layer, self.first, self.mask = cache, layer, first, mask

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        cache, place = self.cache, slice(self.first, self.cache.longest)
        k = torch.cat((cache.k[self.layer, :, :, place], k), 2)
        v = torch.cat((cache.v[self.layer, :, :, place], v), 2)
        return attend(q, k, v, self.mask)


def block_runner_for(draft: BlockDecoder, model: Target) -> BlockRunner:
    """The runner of this draft on this target, see `kept`."""
    return kept(draft, model, lambda: BlockRunner(draft, model))
