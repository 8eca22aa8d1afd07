"""The kinds of parts that ship with the package. See `voice.registry` for what a builder is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spear_spec.acoustic.unit.stage import UnitStage
from spear_spec.acoustic.unit.vocoder import UnitVocoder, VocoderConfig
from spear_spec.config import DraftConfig, T2SConfig, require
from spear_spec.models.contract import Geometry
from spear_spec.models.drafts.block import BlockConfig, BlockDecoder
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.layer_skip import LayerSkipConfig
from spear_spec.models.drafts.medusa import MedusaConfig, MedusaHeads
from spear_spec.models.memory import Skip
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.models.whisperspeech import WhisperSpeechConfig, WhisperSpeechT2S
from spear_spec.text import PhonemeFrontEnd
from spear_spec.text.bytes import ByteFrontEnd
from spear_spec.voice.config import VoiceConfig

Shape = Mapping[str, Any]


def spear_tts(shape: Shape, voice: VoiceConfig) -> TextToSemantic:
    """The transformer of spear-tts-pytorch."""
    cfg, k = T2SConfig.from_dict(shape), voice.semantic["k"]
    require(
        cfg.num_semantic_token_ids == k,
        f"the transformer knows {cfg.num_semantic_token_ids} semantic tokens, the voice has {k}",
    )
    return TextToSemantic(cfg)


def whisperspeech(shape: Shape, voice: VoiceConfig) -> WhisperSpeechT2S:
    """The transformer of WhisperSpeech, from whatever `load_whisperspeech` has read."""
    cfg, k = WhisperSpeechConfig.from_dict(shape), voice.semantic["k"]
    require(cfg.eos_id == k, f"the transformer knows {cfg.eos_id} semantic tokens, the voice has {k}")
    return WhisperSpeechT2S(cfg)


def unit_vocoder(shape: Shape, voice: VoiceConfig) -> UnitStage:
    """The vocoder that ships."""
    cfg, k, clock = VocoderConfig.from_dict(shape), voice.semantic["k"], voice.clock
    require(
        cfg.sample_rate == voice.sample_rate,
        f"the vocoder's sample rate {cfg.sample_rate} is not the voice's {voice.sample_rate}",
    )
    require(
        cfg.frames_per_token == clock.frames_per_token,
        f"the vocoder has {cfg.frames_per_token} frames a token, the voice's rates give {clock.frames_per_token}",
    )
    require(
        cfg.num_semantic_token_ids == k,
        f"the vocoder knows {cfg.num_semantic_token_ids} semantic tokens, the voice has {k}",
    )
    require(
        cfg.num_speakers >= len(voice.speakers),
        f"{len(voice.speakers)} speakers, but the vocoder has {cfg.num_speakers}",
    )
    return UnitStage(UnitVocoder(cfg), voice.speakers)


def misaki_en_us(values: Shape) -> PhonemeFrontEnd:
    """American English phonemes; the object holds its kind."""
    return PhonemeFrontEnd.from_dict(values)


def whisperspeech_bytes(values: Shape) -> ByteFrontEnd:
    """Text as bytes with a language and a speaking rate."""
    return ByteFrontEnd.from_dict(values)


def draft_decoder(shape: Shape, target: Geometry) -> DraftDecoder:
    """A decoder of a layer or two beside the target."""
    return DraftDecoder(DraftConfig.from_dict(shape), target)


def block_decoder(shape: Shape, target: Geometry) -> BlockDecoder:
    """A decoder of a layer or two that drafts a block in one pass."""
    return BlockDecoder(BlockConfig.from_dict(shape), target)


def medusa_heads(shape: Shape, target: Geometry) -> MedusaHeads:
    """Heads on the target's last hidden state."""
    medusa = MedusaConfig.from_dict(shape)
    require(medusa.dim == target.dim, f"the heads share the target's: their dim must be {target.dim}, not {medusa.dim}")
    return MedusaHeads(medusa)


def layer_skip(shape: Shape, target: Geometry) -> Skip:
    """Switches of the target's own sublayers."""
    return LayerSkipConfig.from_dict(shape).skip(target.depth)
