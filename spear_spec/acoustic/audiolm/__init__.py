"""audiolm-pytorch's chain as a stage: semantic tokens to coarse codes, to fine codes, to samples."""

from spear_spec.acoustic.audiolm.stage import AudioLMStage, Codec, Prompt

__all__ = ["AudioLMStage", "Codec", "Prompt"]
