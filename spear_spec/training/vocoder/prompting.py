"""Speaker vectors for a batch of crops: from prompts by the encoder under training, or the speakers' own rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spear_spec.acoustic.unit.prompt import PromptConfig, PromptEncoder
from spear_spec.acoustic.unit.vocoder import UnitVocoder
from spear_spec.training.precision import mixed
from spear_spec.training.vocoder.margin import MarginLoss
from spear_spec.training.vocoder.settings import VocoderTraining
from spear_spec.voice.bundle import Bundle

TILT, NOISE = 0.25, 0.003  # of log power from the lowest mel to the highest; of the level, under the quiet bands
SOME = 0.3  # share of the prompts that are tilted, and of those that have noise


class Prompting(nn.Module):
    """The prompt encoder and what its training alone needs: a direction for each speaker, a guess at the pitch."""

    def __init__(self, prompts: PromptConfig, cfg: VocoderTraining, speakers: int) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder = PromptEncoder(prompts)
        self.margin = MarginLoss(prompts.embedding, speakers)
        self.pitch = nn.Linear(prompts.embedding, 1)

    def forward(self, model: UnitVocoder, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Speaker vectors [B, 2 C] of a batch (`ClipStore.draw` and `prompts`), and the losses: `parting` of speakers,
        `level` of the prompt's pitch (mean absolute error of log F0, over .25); `right`: share of prompts whose nearest
        direction is their own speaker's.
        """
        speaker = batch["speaker"]
        mels, heard = disturbed(*self.encoder.features(batch["prompt"], batch["prompt_mask"]))
        with mixed(speaker.device):
            embedding = self.encoder.embed(mels, heard)
            vector = self.encoder.vector(embedding)
        parting = self.margin(embedding, speaker)
        guess = self.pitch(embedding * math.sqrt(self.encoder.cfg.embedding))[:, 0]
        voiced = batch["prompt_voiced"].float()
        target = 4 * (batch["prompt_pitch"] - 5.0)
        level = ((guess - target).abs() * voiced).sum() / voiced.sum().clamp_min(1)
        rows = model.cfg.num_speakers
        stored = (speaker < rows) & (torch.rand(len(speaker), device=speaker.device) < self.cfg.rows)
        who = torch.where(stored[:, None], model.vectors(speaker.clamp_max(rows - 1)).float(), vector)
        with torch.no_grad():
            nearest = (embedding @ nn.functional.normalize(self.margin.directions).t()).argmax(1)
        return who, {"parting": parting, "level": level, "right": (nearest == speaker).float().mean()}


def disturbed(mels: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
    """Some prompts brighter or duller, some with a noise floor: what is heard should be the voice, not the room."""
    batch, _, bands = mels.shape
    slope = torch.linspace(-1, 1, bands, device=mels.device)
    some = (torch.rand(2, batch, 1, 1, device=mels.device) < SOME).float()
    tilt = some[0] * TILT * torch.randn(batch, 1, 1, device=mels.device) * slope
    floor = some[1] * NOISE * torch.rand(batch, 1, 1, device=mels.device) + 1e-12
    return torch.logaddexp(mels + tilt, torch.log(floor).expand_as(mels)), heard


def begin(encoder: PromptEncoder, model: UnitVocoder, start: Bundle | None) -> None:
    """The encoder of the voice that is gone on from; where it has none, every prompt gives the mean of the rows."""
    if start is not None and start.has("prompt"):
        start.load_into(encoder, "prompt").train().requires_grad_(True)
        return
    with torch.no_grad():
        encoder.begin_at(model.vectors(torch.arange(model.cfg.num_speakers, device=model.device)).mean(0))
