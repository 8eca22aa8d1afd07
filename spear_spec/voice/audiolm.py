"""The builder of the acoustic stage of audiolm-pytorch's transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spear_spec.acoustic.audiolm.shape import AudioLMConfig, AudioLMModule
from spear_spec.acoustic.audiolm.stage import AudioLMStage
from spear_spec.config import require
from spear_spec.decoding import Parts, check
from spear_spec.models.audiolm.coarse import CoarseTransformer
from spear_spec.models.audiolm.fine import FineTransformer
from spear_spec.models.soundstream import SoundStream
from spear_spec.voice.config import VoiceConfig
from spear_spec.voice.drafts import build_draft


def audiolm(shape: Mapping[str, Any], voice: VoiceConfig) -> AudioLMStage:
    """Coarse and fine transformer, SoundStream, and what drafts for the coarse one; see `AudioLMConfig`."""
    cfg = AudioLMConfig.from_dict(shape)
    one, two, codec = cfg.shapes
    k, rate = voice.semantic["k"], voice.semantic["rate"]
    require(one.semantic == k, f"the coarse transformer reads {one.semantic} semantic tokens, the voice has {k}")
    require(
        codec.sample_rate == voice.sample_rate,
        f"the codec's sample rate {codec.sample_rate} is not the voice's {voice.sample_rate}",
    )
    require(codec.sample_rate % rate == 0, f"{rate} tokens a second do not divide {codec.sample_rate} samples")
    coarse, fine, sound = CoarseTransformer(one), FineTransformer(two), SoundStream(codec)
    draft = None if cfg.draft is None else build_draft(cfg.settings.drafter, cfg.draft, coarse)
    drafts = {} if draft is None else {cfg.settings.drafter: draft}
    check(cfg.settings, drafts)
    return AudioLMStage(
        coarse,
        fine,
        sound,
        sample_rate=codec.sample_rate,
        frame_samples=codec.hop,
        token_samples=codec.sample_rate // rate,
        parts=Parts(cfg.settings, drafts),
        sampling=cfg.law,
        prompts=cfg.heard,
        speakers=voice.speakers,
        module=AudioLMModule(coarse, fine, sound, draft),
    )
