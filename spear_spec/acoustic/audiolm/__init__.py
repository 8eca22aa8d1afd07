"""audiolm-pytorch's chain as a stage: semantic tokens to coarse codes, to fine codes, to samples."""

from spear_spec.acoustic.audiolm.shape import AudioLMConfig, AudioLMModule, prompt_to_dict
from spear_spec.acoustic.audiolm.stage import AudioLMStage, Codec, Prompt

__all__ = ["AudioLMConfig", "AudioLMModule", "AudioLMStage", "Codec", "Prompt", "prompt_to_dict"]
