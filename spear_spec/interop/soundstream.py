"""audiolm-pytorch's SoundStream (release 2.4.0) to ours.

A checkpoint holds `model` (weights), `version`, `config` (the module's arguments, pickled: they are not read) and, of a
trainer, `ema_model`, the running mean of the weights, which is what is taken then. The shape follows from the weights;
what does not is told by the caller. The discriminators, and what only denoising uses, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spear_spec.errors import BundleError, ConfigError
from spear_spec.interop.tensors import Weights, read_checkpoint
from spear_spec.models.soundstream import SoundStream, SoundStreamConfig

_EMA = "ema_model."
_SPARE = re.compile(  # of training and denoising alone, or known without being read
    r"(discriminators|stft_discriminator|mel_spec_transforms|encoder_film|decoder_film)\."
    r"|.*\._codebook\.(initted|cluster_size|embed_avg)$|.*\.attn_fn\.rel_pos\.inv_freq$"
)
_UNSUPPORTED = (
    (r".*\.net\.\d", "squeeze_excite"),
    (r"(encoder|decoder)_attn\.pos_bias", "attn_dynamic_pos_bias"),
    (r".*\.(project_in|project_out|mlps)", "rq_kwargs"),
    (r"(encoder|decoder)\.\d+\.fn\.", "use_gate_loop_layers"),
)


def load_soundstream(
    source: str | Path | Mapping[str, Any],
    *,
    sample_rate: int = 16000,
    window: int = 128,
    decay: int | None = None,
    encoder_dilations: tuple[int, ...] = (1, 3, 9),
    decoder_dilations: tuple[int, ...] = (1, 3, 9),
    pad: str = "reflect",
) -> SoundStream:
    """Build the SoundStream of a checkpoint; in evaluation mode, float32, on the CPU.

    Args:
        source: a file that `SoundStream.save` or its trainer writes (read with weights_only=True), what it holds, or
            the state dict alone.
        sample_rate: the package's `target_sample_hz`.
        window, decay: its `attn_window_size` and `attn_xpos_scale_base` (half the window where it was left out).
        encoder_dilations, decoder_dilations, pad: its `enc_cycle_dilations`, `dec_cycle_dilations`, `pad_mode`.

    Raises:
        BundleError: the file is missing, damaged, another model's, or of a SoundStream with gate loops, squeeze-excite,
            a dynamic position bias, or another quantiser than residual codebooks.
    """
    weights = Weights(_state(source))
    for name in map(str, weights.state):
        for pattern, option in _UNSUPPORTED:
            if re.match(pattern, name) and not _SPARE.match(name):
                raise BundleError(f"checkpoint: this SoundStream was made with {option}, which is not supported")
    decay = max(window // 2, 1) if decay is None else decay
    cfg = _config(weights, sample_rate=sample_rate, window=window, decay=decay, encoder_dilations=encoder_dilations,
                  decoder_dilations=decoder_dilations, pad=pad)  # fmt: skip
    blocks = len(cfg.strides)
    ours: dict[str, Tensor] = {}
    sizes = list(zip(cfg.channels, cfg.channels[1:], cfg.strides))
    for side, order in (("encoder", sizes), ("decoder", [(two, one, stride) for one, two, stride in reversed(sizes)])):
        first = (1, cfg.channels[0]) if side == "encoder" else (cfg.dim, cfg.channels[-1])
        _convolution(weights, ours, f"{side}.0.conv", f"{side}.0.conv", first[1], first[0], 7)
        for index, (one, two, stride) in enumerate(order, 1):
            block, narrow = f"{side}.{index}", side == "encoder"
            for unit in range(3):
                at, width = unit + (not narrow), one if narrow else two
                _convolution(weights, ours, f"{block}.{at}.fn.0.conv", f"{block}.{at}.wide.conv", width, width, 7)
                _convolution(weights, ours, f"{block}.{at}.fn.2.conv", f"{block}.{at}.narrow", width, width, 1)
            own = f"{block}.{3 if narrow else 0}.conv"
            _convolution(weights, ours, own, own, *((two, one) if narrow else (one, two)), 2 * stride, two)
        last = (cfg.dim, cfg.channels[-1], 3) if side == "encoder" else (1, cfg.channels[0], 7)
        _convolution(weights, ours, f"{side}.{blocks + 1}.conv", f"{side}.{blocks + 1}.conv", *last)
        for layer in range(cfg.depth):
            ours |= _layer(weights, cfg, f"{side}_attn.layers.{layer}")
    books = [
        [
            weights.take(f"rq.rvqs.{group}.layers.{at}._codebook.embed", 1, cfg.codebook, cfg.dim // cfg.groups)[0]
            for at in range(cfg.quantizers)
        ]
        for group in range(cfg.groups)
    ]
    ours["quantizer.codebooks"] = torch.stack([torch.stack(group) for group in books])
    _check(weights)
    with torch.device("meta"):
        codec = SoundStream(cfg)
    codec.load_state_dict({name: tensor.float() for name, tensor in ours.items()}, assign=True)
    return codec.requires_grad_(False).eval()


def _state(source: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    held = read_checkpoint(Path(source)) if isinstance(source, (str, Path)) else source
    if isinstance(held, Mapping) and isinstance(mean := held.get("ema_model"), Mapping):
        return {str(name)[len(_EMA) :]: value for name, value in mean.items() if str(name).startswith(_EMA)}
    if isinstance(held, Mapping) and isinstance(held.get("model"), Mapping):
        held = held["model"]
    if not isinstance(held, Mapping):
        raise BundleError("checkpoint: weights expected; is it a SoundStream of audiolm-pytorch?")
    return held


def _count(weights: Weights, pattern: str) -> int:
    """One more than the largest number in names of this form; 0: there is none."""
    found = (re.match(pattern, str(name)) for name in weights.state)
    return 1 + max((int(match[1]) for match in found if match), default=-1)


def _config(weights: Weights, **told: Any) -> SoundStreamConfig:
    blocks = _count(weights, r"encoder\.(\d+)\.3\.conv\.weight$") - 1
    first, _, _ = weights.shape("encoder.0.conv.weight", 3)
    channels, strides = [first], []
    for index in range(1, blocks + 1):
        outputs, _, kernel = weights.shape(f"encoder.{index}.3.conv.weight", 3)
        channels.append(outputs)
        strides.append(kernel // 2)
    book = "rq.rvqs.0.layers.0._codebook.embed"
    if book not in weights.state:
        raise BundleError("checkpoint: no residual codebooks; is it a SoundStream, and with the usual quantiser?")
    _, codebook, part = weights.shape(book, 3)
    groups = _count(weights, r"rq\.rvqs\.(\d+)\.")
    depth = _count(weights, r"encoder_attn\.layers\.(\d+)\.")
    attn: dict[str, Any] = {}
    if depth:
        own = "encoder_attn.layers.0"
        (dim_head,) = weights.shape(f"{own}.0.q_scale", 1)
        attn = {
            "dim_head": dim_head,
            "heads": weights.shape(f"{own}.0.to_qkv.weight", 2)[0] // (3 * dim_head),
            "inner": weights.shape(f"{own}.1.4.weight", 2)[1],
        }
    try:
        return SoundStreamConfig(
            channels=tuple(channels),
            strides=tuple(strides),
            dim=part * groups,
            codebook=codebook,
            quantizers=_count(weights, r"rq\.rvqs\.0\.layers\.(\d+)\."),
            groups=groups,
            depth=depth,
            **attn,
            **told,
        )
    except ConfigError as error:
        raise BundleError(f"checkpoint: {error}") from None


def _convolution(
    weights: Weights, into: dict[str, Tensor], theirs: str, ours: str, one: int, two: int, kernel: int,
    bias: int | None = None,
) -> None:  # fmt: skip
    """Weight [one, two, kernel] and bias of a convolution. bias: its width, where it is not `one`."""
    into[f"{ours}.weight"] = weights.take(f"{theirs}.weight", one, two, kernel)
    into[f"{ours}.bias"] = weights.take(f"{theirs}.bias", one if bias is None else bias)


def _layer(weights: Weights, cfg: SoundStreamConfig, name: str) -> dict[str, Tensor]:
    dim, wide, inner = cfg.dim, cfg.heads * cfg.dim_head, cfg.inner
    attn, ff = f"{name}.0", f"{name}.1"
    return {
        f"{name}.attn.norm.weight": weights.take(f"{attn}.norm.weight", dim),
        f"{name}.attn.norm.bias": weights.take(f"{attn}.norm.bias", dim),
        f"{name}.attn.to_qkv.weight": weights.take(f"{attn}.to_qkv.weight", 3 * wide, dim),
        f"{name}.attn.q_gain": weights.take(f"{attn}.q_scale", cfg.dim_head),
        f"{name}.attn.k_gain": weights.take(f"{attn}.k_scale", cfg.dim_head),
        f"{name}.attn.gate.weight": weights.take(f"{attn}.to_v_gate.0.weight", cfg.heads, dim),
        f"{name}.attn.gate.bias": weights.take(f"{attn}.to_v_gate.0.bias", cfg.heads),
        f"{name}.attn.to_out.weight": weights.take(f"{attn}.to_out.weight", dim, wide),
        f"{name}.ff.norm.weight": weights.take(f"{ff}.0.weight", dim),
        f"{name}.ff.norm.bias": weights.take(f"{ff}.0.bias", dim),
        f"{name}.ff.up.weight": weights.take(f"{ff}.1.weight", 2 * inner, dim),
        f"{name}.ff.down.weight": weights.take(f"{ff}.4.weight", dim, inner),
    }


def _check(weights: Weights) -> None:
    """Refuse tensors that were not asked for, since they would have changed the result, and codebooks without codes."""
    for name, value in weights.state.items():
        if str(name).endswith("._codebook.initted") and isinstance(value, Tensor) and not bool(value.all()):
            raise BundleError("checkpoint: the quantiser has no codes yet; this SoundStream was never trained")
    left = [str(name) for name in weights.state if name not in weights.read and not _SPARE.match(str(name))]
    if left:
        raise BundleError(f"checkpoint: {left[0][:80]} is unknown ({len(left)} such); is it another version?")
