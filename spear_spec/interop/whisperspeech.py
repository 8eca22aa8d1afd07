"""WhisperSpeech's T2S checkpoints (`t2s-....model`) to our model.

A file holds `config` (shape), `tunables` (multipliers and choices) and `state_dict`. What the package computes anew for
each token is done here once, in float64: queries and keys are multiplied by sqrt(query_mult 8 / sqrt(head_width)) each,
logits by output_mult 3 head_width / width (muP), and narrow embeddings go through their projections.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spear_spec.errors import BundleError, ConfigError
from spear_spec.interop.tensors import Weights, read_checkpoint
from spear_spec.models.whisperspeech import WhisperSpeechConfig, WhisperSpeechT2S

# what the package takes for what a file leaves out
_SHAPE: dict[str, int | None] = {
    "depth": 6, "n_head": 6, "head_width": 64, "ffn_mult": 4, "ttoks_len": 200, "ttoks_codes": 256,
    "ttoks_width": None, "stoks_len": 1500, "stoks_codes": 1024, "stoks_width": None,
}  # fmt: skip
_TUNABLES: dict[str, Any] = {
    "output_mult": 0.35,
    "query_mult": 1,
    "encoder_depth_ratio": 0.25,
    "causal_encoder": True,
    "cps_input": True,
    "cps_bins": 32,
    "padding_token_offset": -1,  # 0 in new files, which say so
}
_OF_TRAINING = frozenset(
    [
        "init_std",
        "embeddings_std",
        "embeddings_lr_scale",
        "embedding_projector_lr_scale",
        "eot_dropout_p",
        "lr0",
        "clip_gradient_norm",
        "weight_decay",
        "warmup_steps",
        "random",
    ]
)


def load_whisperspeech(source: str | Path | Mapping[str, Any], *, dtype: torch.dtype | None = None) -> WhisperSpeechT2S:
    """Build the text-to-semantic model of a WhisperSpeech checkpoint, in evaluation mode, on the CPU.

    Args:
        source: a `t2s-....model` file as the package saves it (read with weights_only=True), or what it holds.
        dtype: of the model; the checkpoint's own if left out.

    Raises:
        BundleError: the file is missing, damaged, or another model's; says what is wrong.
    """
    held = read_checkpoint(Path(source)) if isinstance(source, (str, Path)) else source
    if not isinstance(held, Mapping) or not all(
        isinstance(held.get(part), Mapping) for part in ("config", "tunables", "state_dict")
    ):
        raise BundleError(
            "checkpoint: config, tunables and state_dict expected; is it a WhisperSpeech t2s .model file?"
        )
    shape, tunables = _shape(held["config"]), _tunables(held["tunables"])
    weights = _Weights(held["state_dict"])
    cfg = _config(shape, tunables, weights)
    ours = _translate(weights, shape, tunables, cfg)
    weights.check_all_read()
    with torch.device("meta"):
        model = WhisperSpeechT2S(cfg)
    dtype = dtype or held["state_dict"]["lang_embeddings.weight"].dtype
    model.load_state_dict({name: tensor.to(dtype) for name, tensor in ours.items()}, assign=True)
    return model.requires_grad_(False).eval()


def _shape(given: Mapping[str, Any]) -> dict[str, int]:
    """`config` with the package's defaults, every size a number above 0."""
    _known("config", given, _SHAPE)
    found = {**_SHAPE, **given}
    for name in ("ttoks_width", "stoks_width"):
        if found[name] is None:
            found.pop(name)
    for name, value in found.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 1 << 20:
            raise BundleError(f"checkpoint: config: {name} must be a whole number above 0, not {str(value)[:40]!r}")
    width = found["n_head"] * found["head_width"]
    if width % 2 or width < 4:
        raise BundleError(f"checkpoint: config: a width of {width} cannot hold sines and cosines")
    return {"ttoks_width": width, "stoks_width": width, **found, "width": width}


def _tunables(given: Mapping[str, Any]) -> dict[str, Any]:
    """`tunables` with the package's defaults, without those of training."""
    _known("tunables", given, _TUNABLES.keys() | _OF_TRAINING)
    found = {name: given.get(name, value) for name, value in _TUNABLES.items()}
    for name, value in found.items():
        usual = _TUNABLES[name]
        if isinstance(usual, bool):
            good, wanted = isinstance(value, bool), "true or false"
        elif isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            good, wanted = False, "a finite number"
        elif name == "cps_bins":
            good, wanted = isinstance(value, int) and 0 < value < 1 << 20, "a whole number above 0"
        elif name == "padding_token_offset":
            good, wanted = value in (0, -1), "0 or -1"
        elif name == "encoder_depth_ratio":
            good, wanted = 0 <= value < 1, "at least 0 and below 1"
        else:
            good, wanted = value > 0, "above 0"
        if not good:
            raise BundleError(f"checkpoint: tunables: {name} must be {wanted}, not {str(value)[:40]!r}")
    return found


def _known(part: str, given: Mapping[str, Any], names: Any) -> None:
    unknown = [str(name)[:40] for name in given if name not in names]
    if unknown:
        raise BundleError(f"checkpoint: {part} holds {unknown[0]!r}, which WhisperSpeech 0.8's t2s does not know")


class _Weights(Weights):
    said = "config says"

    def rows(self, name: str) -> int:
        """Rows of a matrix."""
        value = self.state.get(name)
        if not isinstance(value, Tensor) or value.ndim != 2 or not len(value):
            raise BundleError(f"checkpoint: {name} is missing or no matrix; is it a WhisperSpeech t2s model?")
        return len(value)

    def check_all_read(self) -> None:
        """Refuse tensors that were not asked for: they would have changed the result."""
        left = [str(name) for name in self.state if name not in self.read]
        if left:
            raise BundleError(
                f"checkpoint: {left[0][:80]} is unknown ({len(left)} such): save the model before `optimize`, "
                "or is it another version?"
            )


def _config(shape: Mapping[str, int], tunables: Mapping[str, Any], weights: _Weights) -> WhisperSpeechConfig:
    layers = 2 * shape["depth"]
    encoder = int(layers * tunables["encoder_depth_ratio"])
    try:
        return WhisperSpeechConfig(
            dim=shape["width"],
            heads=shape["n_head"],
            source_depth=encoder,
            target_depth=layers - encoder,
            ff_inner=shape["width"] * shape["ffn_mult"],
            vocab_size=shape["stoks_codes"] + 1,
            eos_id=shape["stoks_codes"] + tunables["padding_token_offset"],
            max_tokens=shape["stoks_len"],
            text_codes=shape["ttoks_codes"],
            text_length=shape["ttoks_len"],
            languages=weights.rows("lang_embeddings.weight"),
            rate_bins=tunables["cps_bins"] if tunables["cps_input"] else 1,
            causal_encoder=tunables["causal_encoder"],
        )
    except ConfigError as error:
        raise BundleError(f"checkpoint: {error}") from None


def _translate(
    weights: _Weights, shape: Mapping[str, int], tunables: Mapping[str, Any], cfg: WhisperSpeechConfig
) -> dict[str, Tensor]:
    """Our state dict."""
    dim, codes = cfg.dim, shape["stoks_codes"]
    text, _, _ = _embedding(weights, "encoder.embedding", cfg.text_codes, shape["ttoks_width"], dim)
    speech, head, bias = _embedding(weights, "embeddings.embedding", codes, shape["stoks_width"], dim)
    special = weights.take("embeddings.embedding.special.weight", 1, dim)
    tokens = torch.cat((speech, special))
    multiplier = tunables["output_mult"] * 3 * shape["head_width"] / dim
    ours = {
        "text_emb.weight": text,
        "language_emb.weight": weights.take("lang_embeddings.weight", cfg.languages, dim),
        "rate_emb.weight": weights.take("cps_embeddings.weight", cfg.rate_bins, dim)
        if tunables["cps_input"]
        else torch.zeros(1, dim, dtype=torch.float64),
        "token_emb.weight": torch.cat((tokens, tokens[cfg.eos_id, None])),
        "to_logits.weight": torch.cat((head, special)) * multiplier,
        "to_logits.bias": torch.cat((bias, bias.new_zeros(1))) * multiplier,
        "text_positions": weights.take("encoder.positional_embedding", cfg.text_length, dim),
        "token_positions": weights.take("embeddings.positional_embedding", cfg.max_tokens, dim),
    }
    scale = math.sqrt(tunables["query_mult"] * 8 / math.sqrt(shape["head_width"]))
    for part, depth in (("encoder", cfg.source_depth), ("decoder", cfg.target_depth)):
        ours |= _pair(weights, f"{part}.ln_post", f"{part}_norm", dim)
        for layer in range(depth):
            theirs, own = f"{part}.layers.{layer}", f"{part}.{layer}"
            ours |= _attention(weights, f"{theirs}.attn", f"{own}.self_attn", dim, scale)
            if part == "decoder":
                ours |= _attention(weights, f"{theirs}.cross_attn", f"{own}.cross_attn", dim, scale)
            ours |= _pair(weights, f"{theirs}.mlp_ln", f"{own}.ff_norm", dim)
            ours |= _pair(weights, f"{theirs}.mlp.0", f"{own}.up", cfg.ff_inner, dim)
            ours |= _pair(weights, f"{theirs}.mlp.2", f"{own}.down", dim, cfg.ff_inner)
    return ours


def _embedding(weights: _Weights, name: str, codes: int, narrow: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Vectors [codes, dim] to read, rows [codes, dim] and bias [codes] to write, of an embedding that may be narrow."""
    main = weights.take(f"{name}.main.weight", codes, narrow)
    if narrow == dim:
        return main, main, main.new_zeros(codes)
    enter = weights.take(f"{name}.emb_to_hidden.weight", dim, narrow)
    leave = weights.take(f"{name}.hidden_to_emb.weight", narrow, dim)
    read = main @ enter.t() + weights.take(f"{name}.emb_to_hidden.bias", dim)
    return read, main @ leave, main @ weights.take(f"{name}.hidden_to_emb.bias", narrow)


def _attention(weights: _Weights, theirs: str, ours: str, dim: int, scale: float) -> dict[str, Tensor]:
    query, value = _pair(weights, f"{theirs}.query", "q", dim, dim), _pair(weights, f"{theirs}.value", "v", dim, dim)
    key = weights.take(f"{theirs}.key.weight", dim, dim) * scale  # keys have no bias
    return {
        f"{ours}.to_q.weight": query["q.weight"] * scale,
        f"{ours}.to_q.bias": query["q.bias"] * scale,
        f"{ours}.to_kv.weight": torch.cat((key, value["v.weight"])),
        f"{ours}.to_kv.bias": torch.cat((key.new_zeros(dim), value["v.bias"])),
        **_pair(weights, f"{theirs}.out", f"{ours}.to_out", dim, dim),
        **_pair(weights, f"{theirs}_ln", f"{ours}.norm", dim),
    }


def _pair(weights: _Weights, theirs: str, ours: str, *shape: int) -> dict[str, Tensor]:
    """Weight and bias of a linear map or a norm."""
    return {
        f"{ours}.weight": weights.take(f"{theirs}.weight", *shape),
        f"{ours}.bias": weights.take(f"{theirs}.bias", shape[0]),
    }
