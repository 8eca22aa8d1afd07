"""A block decoder: one pass over gamma positions that see each other and the target's features (after DFlash, arXiv
2602.06036), and a low-rank head by which a token's law follows the token before it (after DSpark, arXiv 2607.05147).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spear_spec.config import DEEPEST, MOST_HEADS, MOST_IDS, WIDEST, WIDEST_HEAD, Strict, require, whole, wholes
from spear_spec.errors import ConfigError
from spear_spec.models.contract import Geometry, Target
from spear_spec.models.drafts.decoder import DraftDecoder, TextDraft
from spear_spec.nn.attention import RMSNorm
from spear_spec.nn.transformer import DecoderLayer, Layers


@dataclass(frozen=True)
class BlockConfig(Strict):
    """Shape of a block decoder.

    ids: tokens that it has laws over, the end token among them. target_layers: layers of the target (1 is the first)
    whose features it sees. block: positions of a pass, the longest draft. window: settled tokens that a pass sees, the
    newest ones. rank: of the head that looks at the token before.
    """

    dim: int
    ids: int
    target_layers: tuple[int, ...]
    depth: int = 1
    heads: int = 4
    dim_head: int = 64
    ff_mult: int = 2
    block: int = 10
    window: int = 64
    rank: int = 64

    def __post_init__(self) -> None:
        for name, most in (
            ("dim", WIDEST), ("ids", MOST_IDS), ("depth", DEEPEST), ("heads", MOST_HEADS), ("dim_head", WIDEST_HEAD),
            ("ff_mult", 64), ("block", 64), ("window", 4096), ("rank", 1024),
        ):  # fmt: skip
            whole(name, getattr(self, name), 1, most)
        require(self.dim_head % 2 == 0, f"dim_head must be even (rotary pairs), not {self.dim_head}")
        wholes("target_layers", self.target_layers, 1, DEEPEST, DEEPEST)
        require(len(self.target_layers) > 0, "target_layers must name a layer of the target")


class BlockDecoder(TextDraft):
    """One or two decoder layers of `block` positions, on the target's token embedding and head.

    A settled token i leaves a context vector c_i: its embedding and the target's fused features of the position that
    predicted it (zero for the start). In every layer the contexts give keys and values, of their own position i. Behind
    the newest token n stands the block: position k (1 is the first) enters as c_n + positions[k], is turned as n + k,
    sees the last `window` contexts and all positions of the block, then the text, and says of token n + k

        logits_k = head (norm(h_k)) + (W1[x_(k-1)] * 2 sigmoid(gate h_k)) W2

    once the token before it is known (x_0: the newest). `sure` of norm(h_k) is the logit of the chance that it will be
    accepted, before it is drawn.
    """

    def __init__(self, cfg: BlockConfig, target: Geometry) -> None:
        super().__init__()
        if cfg.dim != target.dim:
            raise ConfigError(f"the draft shares the target's embedding: its dim must be {target.dim}, not {cfg.dim}")
        if cfg.ids != target.vocab_size:
            raise ConfigError(f"the target has {target.vocab_size} tokens, the draft's ids are {cfg.ids}")
        if any(layer > target.depth for layer in cfg.target_layers):
            raise ConfigError(f"target_layers must name layers 1 to {target.depth} of the target")
        self.cfg = cfg
        dim, inner = cfg.dim, int(cfg.dim * cfg.ff_mult * 2 / 3)
        self.token_norm = RMSNorm(dim)
        self.fuse_norm = Layers(RMSNorm(dim) for _ in cfg.target_layers)
        self.fuse = nn.Linear(len(cfg.target_layers) * dim, dim, bias=False)
        self.feature_norm = RMSNorm(dim)
        self.enter = nn.Linear(2 * dim, dim, bias=False)
        self.positions = nn.Parameter(torch.randn(cfg.block, dim) * 0.02)
        self.layers = Layers(DecoderLayer(dim, cfg.heads, cfg.dim_head, inner) for _ in range(cfg.depth))
        self.norm = RMSNorm(dim)
        self.before = nn.Parameter(torch.randn(cfg.ids + 1, cfg.rank) * cfg.rank**-0.5)  # W1; the start token is last
        self.gate = nn.Linear(dim, cfg.rank)
        self.after = nn.Parameter(torch.zeros(cfg.rank, cfg.ids))  # W2: a new head does not look at the token before
        self.sure = nn.Linear(dim, 1)

    @torch.no_grad()
    def begin_with(self, eagle: DraftDecoder) -> None:
        """Take over what a decoder that is fed with the same features has learnt: its layer, which then speaks of the
        block's first position at once. Further layers begin as the same one, adding nothing.

        Raises:
            ConfigError: it has another shape.
        """
        theirs, own = eagle.state_dict(), self.state_dict()
        if eagle.cfg.target_layers != self.cfg.target_layers or eagle.cfg.feed != "previous":
            raise ConfigError("a block decoder begins with a draft that is fed with the same features")
        for name, weight in own.items():
            layer, _, rest = name.removeprefix("layers.").partition(".")
            source = f"layers.0.{rest}" if name.startswith("layers.") else name
            if source not in theirs:
                continue
            if theirs[source].shape != weight.shape:
                raise ConfigError(f"a block decoder begins with a draft of its own shape: {name} differs")
            added = rest.endswith(("to_out.weight", "down.weight", "down.bias"))
            weight.copy_(theirs[source] * (0 if added and name.startswith("layers.") and layer != "0" else 1))

    def contexts(self, embedded: Tensor, features: Tensor) -> Tensor:
        """Token vectors and fused features [B, n, D] of the positions that predicted them -> context [B, n, D]."""
        return self.enter(torch.cat((self.token_norm(embedded), self.feature_norm(features)), dim=-1))

    def logits(self, model: Target, hidden: Tensor) -> Tensor:
        """hidden [..., D] -> the part of the logits [..., V] that does not look at the token before."""
        return F.linear(self.norm(hidden), model.head)

    def follow(self, hidden: Tensor, before: Tensor) -> Tensor:
        """hidden [..., D] and the tokens before [...] -> the part of the logits [..., V] that does."""
        gate = 2 * torch.sigmoid(self.gate(self.norm(hidden)))
        return (F.embedding(before, self.before) * gate) @ self.after
