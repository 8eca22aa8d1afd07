"""A tiny stage of audiolm-pytorch's transformers with random weights: every part is real, nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spear_spec.acoustic.audiolm import AudioLMModule, Prompt, prompt_to_dict
from spear_spec.models.audiolm.coarse import CoarseConfig, CoarseTransformer
from spear_spec.models.audiolm.fine import FineConfig, FineTransformer
from spear_spec.models.soundstream import SoundStream, SoundStreamConfig
from spear_spec.training.drafts.trainer import draft_shapes
from spear_spec.voice.acoustic import save_stage
from spear_spec.voice.bundle import Bundle
from spear_spec.voice.drafts import build_draft
from tests.stubs.voice import VOCABULARY

RATE, HOP = 16000, 320
CODES = 4
PROMPT = Prompt((3, 1), ((0, 1, 2), (3, 3, 3), (1, 1, 1), (2, 0, 2)))


def parts(draft: bool = True, seed: int = 0) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Its shape, as `config.json` has it, and its weights."""
    torch.manual_seed(seed)
    layers = {"width": 8, "depth": 1, "heads": 2, "dim_head": 4, "ff_inner": 12, "streams": 2, "codebook": CODES}
    one = CoarseConfig(semantic=VOCABULARY, quantizers=2, **layers)
    two = FineConfig(coarse=2, quantizers=1, **layers)
    sound = SoundStreamConfig(
        sample_rate=RATE, channels=(2, 2, 2, 2), strides=(5, 8, 8), dim=4, codebook=CODES, quantizers=3, heads=1,
        dim_head=2, inner=4, window=8, decay=4,
    )  # fmt: skip
    coarse, fine, codec = CoarseTransformer(one), FineTransformer(two), SoundStream(sound)
    with torch.no_grad():
        for parameter in (*coarse.parameters(), *fine.parameters(), *codec.quantizer.parameters()):
            parameter.normal_(0, 0.5)
        for model in (coarse, fine):  # zeros where the places stand
            model.token_emb.weight[:, model.shape.width :] = 0
            model.to_logits.weight[:, model.shape.width :] = 0
    shape: dict[str, Any] = {
        "coarse": one.to_dict(), "fine": two.to_dict(), "codec": sound.to_dict(), "draft": None,
        "spec": {"drafter": "none"}, "sampling": {"temperature": 1.0, "top_p": 1.0},
        "prompts": {"am_michael": prompt_to_dict(PROMPT)},
    }  # fmt: skip
    drafts = None
    if draft:
        small = draft_shapes(coarse)["small"]
        drafts = build_draft("small", small, coarse)
        shape |= {"draft": small, "spec": {"drafter": "small", "verifier": "rejection", "gamma": 3}}
    return shape, AudioLMModule(coarse, fine, codec, drafts).state_dict()


def make_stage(folder: Path, voice: Bundle, **options: Any) -> Path:
    """Write its folder, for the stub voice."""
    shape, weights = parts(**options)
    return save_stage(
        folder, voice, name="toy", licence="CC0-1.0", origin="random weights, for tests", kind="audiolm",
        sample_rate=RATE, shape=shape, weights=weights, shard_bytes=70_000,
    )  # fmt: skip
