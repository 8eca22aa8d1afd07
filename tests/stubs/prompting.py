"""The stub voice with a prompt encoder of random weights."""

from __future__ import annotations

from pathlib import Path

import torch

from spear_spec.acoustic.unit.prompt import PromptConfig, PromptEncoder
from spear_spec.voice.bundle import Bundle
from tests.voice.test_save import again

SHAPE = PromptConfig(vector=32, dim=16, blocks=1, attention=8, embedding=12)


def make_encoder() -> PromptEncoder:
    """As a bundle stores it."""
    torch.manual_seed(5)
    return PromptEncoder(SHAPE).half().float().eval()


def prompting_voice(source: Bundle, folder: Path) -> Path:
    """A copy of the stub voice that takes prompts."""
    config = source.config
    configs = {"t2s": config.t2s, "vocoder": config.vocoder, "draft": config.draft, **config.drafters}
    weights = {part: source.tensors(part) for part in config.files} | {"prompt": make_encoder().state_dict()}
    return again(source, folder, configs={**configs, "prompt": SHAPE.to_dict()}, weights=weights).path
