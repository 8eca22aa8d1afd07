"""No loss asks for a value or a count while it is worked out: on a GPU the step would wait for the answer.

Tensors that have a shape and a device, but no values, show it: whoever asks them for one gets an error.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from spear_spec.acoustic.unit.vocoder import UnitVocoder, VocoderConfig
from spear_spec.config import T2SConfig
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.data.utterances import Utterance
from spear_spec.training.t2s.batches import Batch, collate
from spear_spec.training.t2s.joint import Joint
from spear_spec.training.t2s.settings import T2STraining
from spear_spec.training.t2s.trainee import Trainee
from spear_spec.training.vocoder.discriminators import Discriminators, discriminator_loss, generator_losses
from spear_spec.training.vocoder.settings import VocoderTraining
from spear_spec.training.vocoder.spectral import SpectralLoss
from spear_spec.training.vocoder.trainer import run_generator

SHAPE = T2SConfig(6, 8, 32, 2, 2, 2, 16)


@pytest.fixture
def empty() -> Iterator[FakeTensorMode]:
    """What is made while it is open has no values."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode


def test_such_tensors_tell_nothing(empty: FakeTensorMode) -> None:
    with pytest.raises(DataDependentOutputException):
        float(torch.zeros(()))


@pytest.mark.parametrize("joint", ["none", "medusa", "prophet"])
def test_the_transformers_losses(joint: str) -> None:
    rng = np.random.default_rng(0)
    spoken = [
        Utterance(
            [5, *rng.integers(1, 5, n).tolist(), 6], rng.integers(0, 8, n), np.sort(rng.integers(0, n, n + 1)), ""
        )
        for n in (9, 5)
    ]
    model = TextToSemantic(SHAPE)
    drawn = collate(spoken, model.start_id, model.eos_id)
    cfg = T2STraining(joint=joint, joint_steps=2)
    heads = None if joint == "none" else Joint(cfg, model)
    trainee = Trainee(model)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        batch = Batch(*(mode.from_tensor(tensor) for tensor in vars(drawn).values()))
        hidden = torch.rand(drawn.tokens.shape) < 0.5
        losses = trainee(batch, hidden, hidden[:, 0], ((0, 1), 1), None if heads is None else heads.hook(1.0))
        assert set(losses) >= {"nll", "accuracy", "align", "auxiliary"}
        sum(loss for loss in losses.values() if loss.requires_grad).backward()


@pytest.mark.parametrize("predicted", [0.0, 0.5])
def test_the_vocoders_losses(empty: FakeTensorMode, predicted: float) -> None:
    voc = VocoderConfig(8, 1, dim=32, prosody_dim=32, token_right=(1,), prosody_right=(0,), frame_right=(1,))
    cfg, tokens = VocoderTraining(left=6, right=4), 6
    length = cfg.left + tokens + cfg.right
    frames = length * voc.frames_per_token
    batch = {
        "tokens": torch.zeros(2, length, dtype=torch.long), "speaker": torch.zeros(2, dtype=torch.long),
        "valid": torch.ones(2, length, dtype=torch.bool), "voiced": torch.ones(2, frames),
        "f0": torch.ones(2, frames), "energy": torch.ones(2, frames),
        "phase": torch.zeros(2, frames, dtype=torch.float64), "audio": torch.zeros(2, tokens * voc.token_samples),
    }  # fmt: skip
    out = run_generator(UnitVocoder(voc), batch, cfg, tokens, predicted)
    mel, magnitude, phase, coherence = SpectralLoss(24000, sizes=(1024, 512))(out.fake, out.real, out.voiced)
    judges = Discriminators(periods=(2,), sizes=(512,), period_channels=(16, 32), channels=16)
    seen = judges(torch.cat([out.real, out.fake]))
    judged = discriminator_loss(seen, 2) + sum(generator_losses(judges(out.fake), judges(out.real)))
    (out.prosody_loss + mel + magnitude + phase + judged).backward()
    assert not any(value.requires_grad for value in coherence)
