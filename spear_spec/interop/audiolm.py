"""audiolm-pytorch's coarse and fine transformers (release 2.4.0) to our models.

A checkpoint of its trainers holds `model` (weights), `optim` and `version`. The shape follows from the weights; what
does not is told by the caller: whether the wrapper reads repeated semantic tokens once, and whether values have a
residual. Folded into the weights, in float64: quantizer vectors into token vectors, the norms' gain of the streams into
their mixing weights. Of the token table only the rows that the package reads are taken: it has room for an end token
behind each quantizer's codes, but counts without it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from spear_spec.errors import BundleError, ConfigError
from spear_spec.interop.tensors import Weights, read_checkpoint
from spear_spec.models.audiolm.coarse import CoarseConfig, CoarseTransformer
from spear_spec.models.audiolm.fine import FineConfig, FineTransformer
from spear_spec.models.audiolm.writer import Writer

W = TypeVar("W", bound=Writer)
_UNUSED = ("to_semantic_logits.weight", "to_semantic_logits.bias", "proj_text_embed.weight")  # laws of the prefix


def load_audiolm_coarse(
    source: str | Path | Mapping[str, Any],
    *,
    unique: bool = True,
    value_residual: bool = True,
    dtype: torch.dtype | None = None,
) -> CoarseTransformer:
    """Build the coarse transformer of a checkpoint, in evaluation mode, on the CPU.

    Args:
        source: a file that the package's `CoarseTransformerTrainer` saves (read with weights_only=True), what it
            holds, or the transformer's state dict alone.
        unique: read semantic tokens that repeat once, the wrapper's `unique_consecutive`.
        value_residual: the transformer's `add_value_residual`.
        dtype: of the model; the checkpoint's own if left out.

    Raises:
        BundleError: the file is missing, damaged, another model's, or of a model with conditions; says what is wrong.
    """
    weights = _Weights(_state(source))
    rows, width = weights.shape("semantic_embedding.weight", 2)
    quantizers, codes, _ = weights.shape("coarse_logit_weights", 3)
    codebook = codes - 1
    cfg = _config(
        CoarseConfig,
        weights,
        width,
        semantic=rows - 1,
        unique=unique,
        quantizers=quantizers,
        codebook=codebook,
        value_residual=value_residual,
        relative_bias="cross_attn_bias" in weights.state,
    )
    head = weights.take("coarse_logit_weights", quantizers, codes, width)
    vectors = _vectors(weights, "coarse", quantizers, codebook, codes, width)
    ours = {
        "prefix_start": weights.take("semantic_start_token", width),
        "prefix_emb.weight": weights.take("semantic_embedding.weight", rows, width)[:-1],
        **_shared(weights, cfg, vectors, weights.take("coarse_start_token", width), head[:, :-1], head[:1, -1]),
    }
    if cfg.relative_bias:
        ours["cross_bias_of"] = weights.take("cross_attn_bias", cfg.heads, 1, 1).flatten()
        inner = (width // 2, *[width // 2] * 2)
        for layer, (many, few) in enumerate(zip((*inner, cfg.heads), (1, *inner))):
            theirs = f"transformer.rel_pos_bias.net.{layer}{'.0' if layer < 3 else ''}"
            ours[f"distances.net.{2 * layer}.weight"] = weights.take(f"{theirs}.weight", many, few)
            ours[f"distances.net.{2 * layer}.bias"] = weights.take(f"{theirs}.bias", many)
    return _built(CoarseTransformer, cfg, weights, ours, dtype or weights.dtype("semantic_start_token"))


def load_audiolm_fine(
    source: str | Path | Mapping[str, Any], *, value_residual: bool = True, dtype: torch.dtype | None = None
) -> FineTransformer:
    """Build the fine transformer of a checkpoint; see `load_audiolm_coarse`.

    Raises:
        BundleError: as there.
    """
    weights = _Weights(_state(source))
    quantizers, codebook, width = weights.shape("fine_logit_weights", 3)
    coarse, _ = weights.shape("coarse_quantize_embedding.weight", 2)
    cfg = _config(
        FineConfig,
        weights,
        width,
        coarse=coarse,
        quantizers=quantizers,
        codebook=codebook,
        value_residual=value_residual,
        relative_bias="null_pos_bias" in weights.state,
    )
    head = weights.take("fine_logit_weights", quantizers, codebook, width)
    start = weights.take("fine_start_token", width)
    ours = {
        "prefix_start": weights.take("coarse_start_token", width),
        "prefix_emb.weight": _vectors(weights, "coarse", coarse, codebook, codebook, width),
        **_shared(
            weights,
            cfg,
            _vectors(weights, "fine", quantizers, codebook, codebook, width),
            start,
            head,
            torch.zeros_like(start)[None],
        ),
    }
    if cfg.relative_bias:
        inner = width // 2
        ours["start_bias"] = weights.take("null_pos_bias", cfg.heads, 1, 1).flatten()
        for layer, few, many in ((0, 2, inner), (2, inner, inner), (4, inner, cfg.heads)):
            ours[f"distances.net.{layer}.weight"] = weights.take(f"pos_bias_mlp.{layer}.weight", many, few)
            ours[f"distances.net.{layer}.bias"] = weights.take(f"pos_bias_mlp.{layer}.bias", many)
    return _built(FineTransformer, cfg, weights, ours, dtype or weights.dtype("fine_start_token"))


def _vectors(weights: _Weights, name: str, quantizers: int, codebook: int, room: int, width: int) -> Tensor:
    """What is read of each token: its vector and its quantizer's. room: rows of the table a quantizer."""
    table = weights.take(f"{name}_embedding.weight", quantizers * room, width)[: quantizers * codebook]
    kinds = weights.take(f"{name}_quantize_embedding.weight", quantizers, width)
    return table + kinds.repeat_interleave(codebook, 0)


def _state(source: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    held = read_checkpoint(Path(source)) if isinstance(source, (str, Path)) else source
    if isinstance(held, Mapping) and isinstance(held.get("model"), Mapping):
        held = held["model"]
    if not isinstance(held, Mapping):
        raise BundleError("checkpoint: weights expected; is it a file of an audiolm-pytorch trainer?")
    return held


class _Weights(Weights):
    def check_all_read(self) -> None:
        """Refuse tensors that were not asked for: they would have changed the result."""
        own = "fine_logit_weights" in self.state
        spare = (*_UNUSED, "coarse_logit_weights") if own else _UNUSED
        left = [str(name) for name in self.state if name not in self.read and name not in spare]
        if any("cross_attn" in name or ".1.branch" in name for name in left):
            raise BundleError("checkpoint: this transformer is conditioned on text or audio, which is not supported")
        if left:
            raise BundleError(f"checkpoint: {left[0][:80]} is unknown ({len(left)} such); is it another version?")


def _config(kind: type[Any], weights: _Weights, width: int, **more: Any) -> Any:
    """The shape of the layers, from the weights."""
    layers = {
        int(found[1]) for name in weights.state if (found := re.match(r"transformer\.layers\.(\d+)\.", str(name)))
    }
    first = "transformer.layers.0"
    if any(str(name).startswith(f"{first}.1.") for name in weights.state):
        raise BundleError("checkpoint: this transformer is conditioned on text or audio, which is not supported")
    two, _ = weights.shape(f"{first}.0.branch.to_kv.weight", 2)
    queries, _ = weights.shape(f"{first}.0.branch.to_q.weight", 2)
    _, inner = weights.shape(f"{first}.2.branch.5.weight", 2)
    alpha = f"{first}.0.static_alpha"
    streams = weights.shape(alpha, 2)[0] if alpha in weights.state else 1
    if two % 2 or queries % (two // 2):
        raise BundleError("checkpoint: queries and keys are not of one width")
    try:
        return kind(width=width, depth=len(layers), heads=2 * queries // two, dim_head=two // 2, ff_inner=inner,
                    streams=streams, **more)  # fmt: skip
    except ConfigError as error:
        raise BundleError(f"checkpoint: {error}") from None


def _shared(
    weights: _Weights, cfg: Any, vectors: Tensor, start: Tensor, head: Tensor, end: Tensor
) -> dict[str, Tensor]:
    """Layers, norm, tokens and head of either transformer."""
    width, extra = cfg.width, cfg.dim - cfg.width
    pad = torch.nn.functional.pad
    ours = {
        "token_emb.weight": pad(torch.cat((vectors, torch.zeros_like(start)[None], start[None])), (0, extra)),
        "to_logits.weight": pad(torch.cat((head.flatten(0, 1), end)), (0, extra)),
        **_norm(weights, "transformer.norm", "decoder_norm", width),
    }
    inner, heads = cfg.ff_inner, cfg.heads * cfg.dim_head
    for layer in range(cfg.depth):
        attn, ff, own = f"transformer.layers.{layer}.0", f"transformer.layers.{layer}.2", f"decoder.{layer}"
        ours |= {
            **_streams(weights, attn, f"{own}.attn_streams", cfg),
            **_norm(weights, f"{attn}.branch.norm", f"{own}.attn.norm", width),
            f"{own}.attn.to_q.weight": weights.take(f"{attn}.branch.to_q.weight", heads, width),
            f"{own}.attn.to_kv.weight": weights.take(f"{attn}.branch.to_kv.weight", 2 * cfg.dim_head, width),
            f"{own}.attn.to_out.weight": weights.take(f"{attn}.branch.to_out.0.weight", width, heads),
            **_streams(weights, ff, f"{own}.ff_streams", cfg),
            **_norm(weights, f"{ff}.branch.0", f"{own}.ff.norm", width),
            f"{own}.ff.up.weight": weights.take(f"{ff}.branch.1.weight", 2 * inner, width),
            **_norm(weights, f"{ff}.branch.3", f"{own}.ff.inner_norm", inner),
            f"{own}.ff.down.weight": weights.take(f"{ff}.branch.5.weight", width, inner),
        }
    return ours


def _streams(weights: _Weights, theirs: str, ours: str, cfg: Any) -> dict[str, Tensor]:
    count, width = cfg.streams, cfg.width
    if count == 1:
        return {}
    gain = (weights.take(f"{theirs}.norm.gamma", width) + 1) * width**0.5
    reading = weights.take(f"{theirs}.dynamic_alpha_fn", width, count + 1)
    writing = weights.take(f"{theirs}.dynamic_beta_fn", width)[:, None]
    scales = [weights.take(f"{theirs}.dynamic_{name}_scale") for name in ("alpha", "beta")]
    return {
        f"{ours}.mix": torch.cat((reading, writing), 1) * gain[:, None],
        f"{ours}.share": torch.cat(
            (
                weights.take(f"{theirs}.static_alpha", count, count + 1),
                weights.take(f"{theirs}.static_beta", count)[:, None],
            ),
            1,
        ),
        f"{ours}.scale": torch.cat((scales[0].expand(count + 1), scales[1].expand(1))),
    }


def _norm(weights: _Weights, theirs: str, ours: str, width: int) -> dict[str, Tensor]:
    return {
        f"{ours}.weight": weights.take(f"{theirs}.gamma", width),
        f"{ours}.bias": weights.take(f"{theirs}.beta", width),
    }


def _built(kind: Callable[[Any], W], cfg: Any, weights: _Weights, ours: Mapping[str, Tensor], dtype: torch.dtype) -> W:
    weights.check_all_read()
    with torch.device("meta"):
        model = kind(cfg)
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in ours.items()}, assign=True)
    return model.requires_grad_(False).eval()
