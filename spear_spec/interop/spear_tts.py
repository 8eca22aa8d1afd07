"""spear-tts-pytorch's `TextToSemantic` checkpoints to our model and back.

The state dict holds every shape but not the early-exit layer's number, which the caller gives. Checkpoints made with
`autoset_semantic_eos_id=False` or `autoset_text_eos_id=False` have no end tokens and cannot be told from others by
their shapes: the last embedding row is taken for the end token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spear_spec.config import T2SConfig
from spear_spec.errors import BundleError, ConfigError
from spear_spec.interop.tensors import plain, read_checkpoint
from spear_spec.models.spear_tts import TextToSemantic

_MORE = "holds more than plain tensors; save the state dict alone with torch.save"
_ANCHOR = "target_transformer.final_norm.gamma"
_TIED = (  # names that share one tensor in the peer; the first is ours to read
    ("semantic_token_emb.weight", "token_emb.speech.weight", "to_logits.speech.weight"),
    ("token_emb.text.weight", "to_logits.text.weight"),
)
_FEED_FORWARD = (
    ("norm.gamma", "0.gamma"),
    ("up.weight", "1.weight"),
    ("up.bias", "1.bias"),
    ("down.weight", "4.weight"),
    ("down.bias", "4.bias"),
)
_SELF = (("norm.gamma", "norm.gamma"), ("to_out.weight", "to_out.weight"))
_CROSS = (
    ("norm.gamma", "norm.gamma"),
    ("to_q.weight", "to_q.0.weight"),
    ("to_kv.weight", "to_kv.0.weight"),
    ("null_kv", "null_kv"),
    ("to_out.weight", "to_out.weight"),
)


def _transformers(cfg: T2SConfig) -> Iterator[tuple[str, str]]:
    """(ours, theirs) for every layer of encoder and decoder."""
    for ours, theirs, depth in (
        ("encoder", "source_transformer", cfg.source_depth),
        ("decoder", "target_transformer", cfg.target_depth),
    ):
        for layer in range(depth):
            yield f"{ours}.{layer}", f"{theirs}.layers.{layer}"


def _renamed(cfg: T2SConfig) -> Iterator[tuple[str, str]]:
    """(our name, the peer's name) of every tensor that is the same on both sides."""
    yield "semantic_emb.weight", "semantic_token_emb.weight"
    yield "text_emb.weight", "token_emb.text.weight"
    yield "start", "start_token.speech"
    yield "text_start", "start_token.text"
    yield "encoder_norm.gamma", "source_transformer.final_norm.gamma"
    yield "decoder_norm.gamma", _ANCHOR
    for ours, theirs in _transformers(cfg):
        yield from ((f"{ours}.self_attn.{a}", f"{theirs}.0.{b}") for a, b in _SELF)
        if ours.startswith("decoder"):
            yield from ((f"{ours}.cross_attn.{a}", f"{theirs}.1.{b}") for a, b in _CROSS)
        yield from ((f"{ours}.ff.{a}", f"{theirs}.2.{b}") for a, b in _FEED_FORWARD)
    if cfg.early_exit_layer is not None:
        head = "to_early_exit_semantic_logits"
        yield from ((f"early_exit.ff.{a}", f"{head}.0.fn.{b}") for a, b in _FEED_FORWARD)
        yield "early_exit.norm.gamma", f"{head}.1.gamma"
        yield "early_exit.to_logits.weight", f"{head}.2.weight"


def _frequencies(dim_head: int) -> Tensor:
    """The rotary frequencies [dim_head / 2] that the peer stores, float32, base 10000."""
    return 1.0 / 10000 ** (torch.arange(0, dim_head, 2).float() / dim_head)


def _depth(state: Mapping[str, Tensor], name: str) -> int:
    found = {int(m[1]) for key in state if (m := re.match(rf"{name}\.layers\.(\d+)\.", key))}
    if found != set(range(len(found))) or not found:
        raise BundleError(
            f"checkpoint: the layers of {name} are {sorted(found) or 'missing'}; "
            "is it a spear-tts-pytorch TextToSemantic?"
        )
    return len(found)


def _shape(state: Mapping[str, Tensor], key: str, dims: int) -> tuple[int, ...]:
    if key not in state:
        raise BundleError(f"checkpoint: {key} is missing; is it a spear-tts-pytorch TextToSemantic, and whole?")
    shape = tuple(state[key].shape)
    if len(shape) != dims or 0 in shape:
        raise BundleError(f"checkpoint: {key} has shape {list(shape)}, {dims} dimensions expected")
    return shape


def config_from_state_dict(state: Mapping[str, Tensor], *, early_exit_layer: int | None = None) -> T2SConfig:
    """The model's shape, read off a spear-tts-pytorch state dict.

    Args:
        state: the peer's names to tensors.
        early_exit_layer: the `target_early_exit_layer` that the model was built with; needed when it has that head.

    Raises:
        BundleError: tensors are missing, have impossible shapes, or an early-exit head has no layer.
    """
    state = _with_tied(state)
    semantic, dim = _shape(state, "semantic_token_emb.weight", 2)
    text, _ = _shape(state, "token_emb.text.weight", 2)
    dim_head = 2 * _shape(state, "target_transformer.layers.0.0.rotary_emb.freqs", 1)[0]
    queries = _shape(state, "target_transformer.layers.0.0.to_q.0.weight", 2)[0]
    keys = _shape(state, "target_transformer.layers.0.0.to_kv.0.weight", 2)[0]
    heads, kv_heads = queries // dim_head, keys // (2 * dim_head)
    if heads * dim_head != queries or kv_heads * 2 * dim_head != keys:
        raise BundleError(
            f"checkpoint: {queries} query and {keys} key/value rows are no multiples of the head width {dim_head}"
        )
    inner = _shape(state, "target_transformer.layers.0.2.4.weight", 2)[1]
    ff_mult = next((m for m in range(1, 65) if int(dim * m * 2 / 3) == inner), None)
    if ff_mult is None:
        raise BundleError(
            f"checkpoint: feed-forward width {inner} is not dim ({dim}) x ff_mult x 2 / 3 for a whole ff_mult"
        )
    has_head = any(key.startswith("to_early_exit_semantic_logits.") for key in state)
    if has_head != (early_exit_layer is not None):
        raise BundleError(
            "checkpoint has an early-exit head: pass early_exit_layer, the layer it was trained at"
            if has_head
            else "checkpoint has no early-exit head: leave early_exit_layer out"
        )
    try:
        return T2SConfig(
            num_text_token_ids=text - 1,
            num_semantic_token_ids=semantic - 1,
            dim=dim,
            source_depth=_depth(state, "source_transformer"),
            target_depth=_depth(state, "target_transformer"),
            heads=heads,
            dim_head=dim_head,
            kv_heads=None if kv_heads == heads else kv_heads,
            ff_mult=ff_mult,
            early_exit_layer=early_exit_layer,
        )
    except ConfigError as error:
        raise BundleError(f"checkpoint: {error}") from None


def load_spear_tts(
    source: str | Path | Mapping[str, Any], *, early_exit_layer: int | None = None, dtype: torch.dtype | None = None
) -> TextToSemantic:
    """Build our model from a spear-tts-pytorch checkpoint, in evaluation mode.

    Args:
        source: a file of `torch.save` (the state dict, or a trainer's package with it under "model"; read with
            weights_only=True), a .safetensors file, or the state dict itself.
        early_exit_layer: the `target_early_exit_layer` that the model was built with; needed when it has that head.
        dtype: of the model; the checkpoint's own if left out.

    Raises:
        BundleError: the file is missing, damaged, truncated or foreign; says which tensor is wrong.
    """
    state = _with_tied(
        _tensors(read_checkpoint(Path(source), _load, _MORE) if isinstance(source, (str, Path)) else source)
    )
    cfg = config_from_state_dict(state, early_exit_layer=early_exit_layer)
    dtype = dtype or state["semantic_token_emb.weight"].dtype
    with torch.device("meta"):
        model = TextToSemantic(cfg)
    ours, used = _translate(state, cfg)
    _check(ours, model.state_dict(), state, used)
    model.load_state_dict({name: tensor.detach().to(dtype, copy=True) for name, tensor in ours.items()}, assign=True)
    return model.eval()


def to_spear_tts_state_dict(model: TextToSemantic) -> dict[str, Tensor]:
    """Our weights under the peer's names; `load_state_dict(strict=True)` of the real package takes them.

    Build the peer with the same dims, `target_kv_heads=cfg.kv_heads` and
    `target_early_exit_layer=cfg.early_exit_layer`.
    Tensors are detached; all but the split query and key/value projections share memory with the model.
    """
    cfg, ours = model.cfg, model.state_dict()
    theirs = {name: ours[own].detach() for own, name in _renamed(cfg)}
    split = cfg.heads * cfg.dim_head
    for own, name in _transformers(cfg):
        fused = ours[f"{own}.self_attn.to_qkv.weight"].detach()
        theirs[f"{name}.0.to_q.0.weight"] = fused[:split].clone()
        theirs[f"{name}.0.to_kv.0.weight"] = fused[split:].clone()
        theirs[f"{name}.0.rotary_emb.freqs"] = _frequencies(cfg.dim_head).to(fused.device)
    for first, *others in _TIED:
        theirs.update(dict.fromkeys(others, theirs[first]))
    return theirs


def _load(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return plain(path)


def _tensors(source: Any) -> dict[str, Tensor]:
    """Find the state dict: as it is, under "model", or with a wrapper's prefix ("model.", "module.")."""
    if isinstance(source, Mapping) and isinstance(source.get("model"), Mapping):
        source = source["model"]
    if not isinstance(source, Mapping):
        raise BundleError(f"checkpoint holds a {type(source).__name__}, not a state dict")
    names = [key for key in source if isinstance(key, str)]
    anchor = next((key for key in names if key.endswith(_ANCHOR)), None)
    if anchor is None:
        raise BundleError("checkpoint is not a spear-tts-pytorch TextToSemantic: it has no target_transformer")
    prefix = anchor[: -len(_ANCHOR)]
    found = {key[len(prefix) :]: source[key] for key in names if key.startswith(prefix)}
    for key, value in found.items():
        if not isinstance(value, Tensor):
            raise BundleError(f"checkpoint: {key} is a {type(value).__name__}, not a tensor")
    return {
        key: value for key, value in found.items() if not key.startswith("wav2vec.")
    }  # its speech encoder is not ours


def _with_tied(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the first name of each tied group its tensor; copies that disagree are refused."""
    filled = dict(state)
    for group in _TIED:
        present = [name for name in group if name in state]
        for name in present[1:]:
            if state[name].shape != state[present[0]].shape or not torch.equal(state[name], state[present[0]]):
                raise BundleError(f"checkpoint: {name} and {present[0]} differ; the model ties them")
        if present:
            filled[group[0]] = state[present[0]]
    return filled


def _translate(state: Mapping[str, Tensor], cfg: T2SConfig) -> tuple[dict[str, Tensor], set[str]]:
    """Our state dict and the peer's names that went into it."""
    used = {name for group in _TIED for name in group}

    def take(name: str) -> Tensor:
        if name not in state:
            raise BundleError(f"checkpoint: {name} is missing")
        used.add(name)
        return state[name]

    ours = {own: take(name) for own, name in _renamed(cfg)}
    for own, name in _transformers(cfg):
        query, key_value = take(f"{name}.0.to_q.0.weight"), take(f"{name}.0.to_kv.0.weight")
        if query.ndim != 2 or key_value.ndim != 2 or query.shape[1] != key_value.shape[1]:
            raise BundleError(
                f"checkpoint: {name}.0.to_q and to_kv have shapes {list(query.shape)} and {list(key_value.shape)}"
            )
        ours[f"{own}.self_attn.to_qkv.weight"] = torch.cat((query, key_value))
        stored, expected = take(f"{name}.0.rotary_emb.freqs"), _frequencies(cfg.dim_head)
        tolerance = 1e-5 if stored.dtype in (torch.float32, torch.float64) else 1e-2
        if stored.shape != expected.shape or not torch.allclose(stored.float().cpu(), expected, rtol=tolerance, atol=0):
            raise BundleError(f"checkpoint: {name}.0.rotary_emb.freqs are not the frequencies of base 10000")
    return ours, used


def _check(
    ours: Mapping[str, Tensor], expected: Mapping[str, Tensor], state: Mapping[str, Tensor], used: set[str]
) -> None:
    unknown = sorted(set(state) - used)
    if unknown:
        raise BundleError(f"checkpoint: {unknown[0]} is unknown ({len(unknown)} such); is it another version or model?")
    for name, tensor in ours.items():
        if tensor.shape != expected[name].shape:
            raise BundleError(
                f"checkpoint: shape {list(tensor.shape)} for {name}, {list(expected[name].shape)} expected"
            )
        if not tensor.is_floating_point():
            raise BundleError(f"checkpoint: {name} is {tensor.dtype}, not floating point")
        if not bool(torch.isfinite(tensor).all()):
            raise BundleError(f"checkpoint: {name} holds NaN or infinity")
