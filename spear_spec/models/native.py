"""Encoder and decoder of a Spear-TTS target as one call into C each (`kernels/encoder.c`, `step.c`), for float32 on a
CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spear_spec.kernels import native
from spear_spec.kernels.encoder import EncodingLayer, NativeEncoder
from spear_spec.kernels.step import NativeStack, NativeStep, StepLayer
from spear_spec.models.seen import Plans

if TYPE_CHECKING:
    from spear_spec.models.spear_tts import TextToSemantic

_STACKS, _ENCODERS = Plans(), Plans()


def step_for(model: TextToSemantic) -> NativeStep | None:
    """Who runs the target's steps on a new cache: None where torch does (another dtype or device, no kernel).

    The weights are packed once, see `Plans`.
    """
    if model.dtype is not torch.float32 or model.device.type != "cpu" or not native.available():
        return None
    weights = (*model.decoder.parameters(), *model.decoder_norm.parameters(), *model.shared())

    def make() -> NativeStack | None:
        return _packed(model) if all(weight.dtype is torch.float32 for weight in weights) else None

    stack = _STACKS.of(model, weights, make)
    return None if stack is None else NativeStep(stack)


def encoder_for(model: TextToSemantic) -> NativeEncoder | None:
    """Who encodes texts: None where torch does (another dtype or device, gradients, autocast, dropout, no kernel)."""
    if model.dtype is not torch.float32 or model.device.type != "cpu" or model.training or not native.available():
        return None
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return None
    readers = [(layer.cross_attn.to_kv.weight, layer.cross_attn.null_kv) for layer in model.decoder]
    weights = (
        model.text_emb.weight,
        *model.encoder.parameters(),
        *model.encoder_norm.parameters(),
        *(weight for reader in readers for weight in reader),
    )

    def make() -> NativeEncoder | None:
        if any(weight.dtype is not torch.float32 for weight in weights):
            return None
        layers = []
        for layer in model.encoder:
            own, ff = layer.self_attn, layer.ff
            vectors = (own.norm.gamma, ff.norm.gamma, ff.up.bias, ff.down.bias)
            layers.append(EncodingLayer(own.to_qkv.weight, own.to_out.weight, ff.up.weight, ff.down.weight, *vectors))
        gain = model.encoder_norm.get_parameter("gamma")
        return NativeEncoder(
            layers, model.text_emb.weight, gain, readers, heads=model.cfg.heads, dim_head=model.cfg.dim_head
        )

    return _ENCODERS.of(model, weights, make)


def _packed(model: TextToSemantic) -> NativeStack:
    layers = []
    for layer in model.decoder:
        own, cross, ff = layer.self_attn, layer.cross_attn, layer.ff
        layers.append(
            StepLayer(
                own.to_qkv.weight,
                own.to_out.weight,
                cross.to_q.weight,
                cross.to_out.weight,
                ff.up.weight,
                ff.down.weight,
                own.norm.gamma,
                cross.norm.gamma,
                ff.norm.gamma,
                ff.up.bias,
                ff.down.bias,
            )
        )
    first = model.decoder[0].self_attn
    return NativeStack(
        layers,
        model.embedding,
        model.decoder_norm.get_parameter("gamma"),
        model.head,
        heads=first.heads,
        kv_heads=first.kv_heads,
        dim_head=first.dim_head,
    )
