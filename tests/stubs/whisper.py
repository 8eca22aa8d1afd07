"""A speech encoder of random weights, as a folder of the Hugging Face hub has it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder


def make_whisper(folder: Path) -> Path:
    """A Whisper encoder of three narrow blocks."""
    torch.manual_seed(0)
    sizes = {"d_model": 32, "encoder_layers": 3, "encoder_attention_heads": 2, "encoder_ffn_dim": 64}
    ids = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2}
    WhisperEncoder(WhisperConfig(**sizes, **ids, **decoder)).save_pretrained(folder)
    WhisperFeatureExtractor().save_pretrained(folder)
    return folder
