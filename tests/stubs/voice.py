"""A tiny voice with random weights: every part is real, nothing is trained. Built in a fraction of a second."""

from __future__ import annotations

from pathlib import Path

import torch

from spear_spec.acoustic.unit.vocoder import UnitVocoder, VocoderConfig
from spear_spec.config import SamplingConfig, SpecConfig, T2SConfig
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.text import PhonemeTokenizer
from spear_spec.training.drafts.trainer import draft_shapes
from spear_spec.voice.bundle import Bundle
from spear_spec.voice.drafts import build_draft
from spear_spec.voice.save import save_voice

VOCABULARY = 16
SPEAKERS = ("af_heart", "am_michael")
SAMPLING = SamplingConfig(temperature=1.0, top_p=0.95)


def make_voice(
    folder: Path, *, draft: bool = True, seed: int = 0, shard_bytes: int = 110_000, depth: int = 2
) -> Bundle:
    """Write a stub voice; its laws are flat enough that an end token comes after some dozen tokens."""
    torch.manual_seed(seed)
    front = PhonemeTokenizer(SPEAKERS)
    t2s_config = T2SConfig(
        len(front.vocab), VOCABULARY, dim=32, source_depth=1, target_depth=depth, heads=2, dim_head=16
    )
    vocoder_config = VocoderConfig(
        num_semantic_token_ids=VOCABULARY,
        num_speakers=len(SPEAKERS),
        dim=16,
        prosody_dim=16,
        token_right=(1, 1),
        prosody_right=(1,),
        frame_right=(1,),
    )
    t2s, vocoder = TextToSemantic(t2s_config), UnitVocoder(vocoder_config)
    with torch.no_grad():
        t2s.semantic_emb.weight.mul_(0.1)
        vocoder.head.out.bias[: vocoder.head.bins] = -2.5  # loud enough to be heard
    configs = {"t2s": t2s_config.to_dict(), "vocoder": vocoder_config.to_dict()}
    weights = {
        "t2s": t2s.state_dict(),
        "vocoder": vocoder.state_dict(),
        "centroids": {"centroids": torch.randn(VOCABULARY, 8)},
    }
    if draft:
        shapes = {"draft": {**draft_shapes(t2s_config)["small"]}, **draft_shapes(t2s_config)}
        del shapes["small"]  # it is the part "draft": what this voice ships to draft with
        shapes["medusa"] |= {"heads": 3, "tree": [[0], [1], [0, 0], [0, 0, 1]]}
        for name, shape in shapes.items():
            configs[name] = shape
            weights[name] = build_draft(name, shape, t2s_config).state_dict()
    return save_voice(
        folder,
        name=folder.name,
        licence="CC0-1.0",
        origin="random weights, for tests",
        sample_rate=vocoder_config.sample_rate,
        speakers=list(SPEAKERS),
        text=front.to_dict(),
        semantic={"encoder": "none", "layer": 0, "rate": 25, "k": VOCABULARY},
        sampling=SAMPLING,
        spec=SpecConfig(drafter="small", gamma=3),
        configs=configs,
        weights=weights,
        shard_bytes=shard_bytes,
    )
