"""WhisperSpeech's T2S checkpoints (`t2s-....model`) to our model.

A file holds `config` (shape), `tunables` (multipliers and choices) and `state_dict`. What the package computes anew for
each token is done here once, in float64: queries and keys are multiplied by sqrt(query_mult 8 / sqrt(head width)),
logits by output_mult 3 head_width / width (muP), and narrow embeddings go through their projections.
"""

from __future__ import annotations

import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spear_spec.errors import BundleError, ConfigError
from spear_spec.models.whisperspeech import WhisperSpeechConfig, WhisperSpeechT2S

_SHAPE = ("depth", "n_head", "head_width", "ffn_mult", "ttoks_len", "ttoks_codes", "stoks_len", "stoks_codes")
_WIDTHS = ("ttoks_width", "stoks_width")
# the package's own defaults, for what a file leaves out; but for the last, where an old file means -1
_TUNABLES: dict[str, Any] = {
    "output_mult": 0.35,
    "query_mult": 1,
    "encoder_depth_ratio": 0.25,
    "causal_encoder": True,
    "cps_input": True,
    "cps_bins": 32,
    "padding_token_offset": -1,
}
_OF_TRAINING = frozenset(
    "init_std embeddings_std embeddings_lr_scale embedding_projector_lr_scale eot_dropout_p lr0 clip_gradient_norm "
    "weight_decay warmup_steps random".split()
)
_MOST = 1 << 20  # no size in a config is above: nothing is allocated for a damaged file


def load_whisperspeech(
    source: str | Path | Mapping[str, Any], *, dtype: torch.dtype | None = None
) -> WhisperSpeechT2S:
    """Build the text-to-semantic model of a WhisperSpeech checkpoint, in evaluation mode, on the CPU.

    Args:
        source: a `t2s-....model` file as the package saves it (read with weights_only=True), or what it holds.
        dtype: of the model; the checkpoint's own if left out.

    Raises:
        BundleError: the file is missing, damaged, or another model's; says what is wrong.
    """
    held = _read(Path(source)) if isinstance(source, (str, Path)) else source
    config, tunables, state = _parts(held)
    cfg = _config(config, tunables, state)
    model, weights = _Blank(cfg).model, _Weights(state)
    ours = _translate(weights, config, tunables, cfg)
    weights.check_all_read()
    expected = model.state_dict()
    dtype = dtype or state["lang_embeddings.weight"].dtype
    for name, tensor in ours.items():
        if tensor.shape != expected[name].shape:
            raise BundleError(
                f"checkpoint: shape {list(tensor.shape)} for {name}, {list(expected[name].shape)} expected"
            )
        ours[name] = tensor.to(dtype)
    model.load_state_dict(ours, assign=True)
    return model.eval()
