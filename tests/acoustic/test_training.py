"""Losses against torch's own, the trainer on synthetic clips: it learns, it resumes to the same weights, it prepares
data.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spear_spec.acoustic.unit.stage import render
from spear_spec.acoustic.unit.vocoder import UnitVocoder, VocoderConfig
from spear_spec.audio import Audio
from spear_spec.errors import NumericsError, SpearSpecError
from spear_spec.training.checkpoint import load_export
from spear_spec.training.data.corpus import Clip
from spear_spec.training.data.prepared import Prepared, save_rows
from spear_spec.training.loop import Run
from spear_spec.training.recipe.plan import CLOCK
from spear_spec.training.vocoder.analysis import analyse, frames_from_pitch
from spear_spec.training.vocoder.data import ClipStore, missing_parts, prepare
from spear_spec.training.vocoder.discriminators import Discriminators, discriminator_loss, generator_losses
from spear_spec.training.vocoder.settings import VocoderTraining
from spear_spec.training.vocoder.spectral import SpectralLoss, rfft, stft
from spear_spec.training.vocoder.trainer import VocoderLearner, learning_rate, train_vocoder

SMALL = VocoderConfig(
    num_semantic_token_ids=8,
    num_speakers=1,
    dim=32,
    prosody_dim=32,
    token_right=(1,),
    prosody_right=(0,),
    frame_right=(1,),
)
SHORT = VocoderTraining(
    steps=4,
    tail=2,
    warmup=2,
    gan_start=2,
    batch=2,
    tokens=6,
    gan_batch=2,
    gan_tokens=5,
    judge_tokens=3,
    left=6,
    right=4,
)


def voice(f0: np.ndarray) -> np.ndarray:
    phase = 2 * np.pi * np.cumsum(f0) / 24000
    return sum(0.2 / h * np.cos(h * phase + h) for h in range(1, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of a synthetic voice, prepared."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    (folder / "v").mkdir()
    tokens, clips = {}, []
    for i in range(3):
        count = 30 + i
        ids = rng.integers(0, 8, count)
        f0 = np.repeat(120.0 + 10 * ids, 960)
        f0 = np.convolve(np.pad(f0, 480, mode="edge"), np.ones(961) / 961, mode="valid")[: count * 960]
        Audio(voice(f0), 24000).save(folder / f"v/{i}.wav")
        tokens[f"v/{i}"] = torch.from_numpy(ids)
        clips.append(Clip(f"v/{i}", "v", "text", str(folder / f"v/{i}.wav")))
    source, out = Prepared(folder / "prepared"), folder / "clips"
    source.write(clips)
    save_rows(source.tokens, tokens)
    assert prepare(source, out, clock=CLOCK, part=0, parts=2) == 2
    assert missing_parts(out, 2) == [1]
    assert prepare(source, out, clock=CLOCK, part=1, parts=2) == 1
    return out


def test_analysis_finds_pitch_and_phase() -> None:
    f0 = 150.0 + 30.0 * np.sin(np.arange(48000) / 24000 * 4)
    frames = analyse(voice(f0), CLOCK)
    centres = np.arange(200) * 240 + 120
    inner = slice(15, -15)
    assert (frames.voiced[inner] == 1).all()
    assert np.abs(frames.f0[inner] / f0[centres][inner] - 1).max() < 0.02
    truth = 2 * np.pi * np.cumsum(f0)[centres] / 24000 + 1.0
    error = np.angle(np.exp(1j * (frames.phase - truth)))[inner]
    assert np.abs(error).max() < 0.15
    assert analyse(np.zeros(4800, np.float32), CLOCK).voiced.sum() == 0


def test_a_pitch_that_is_told_gives_the_phase_of_its_own_source() -> None:
    """The teacher's source written out: phase knots in the middle of steps of 300 samples, straight lines between."""
    curve = np.concatenate([np.full(10, 5.0), 200 + 5.0 * np.arange(20), np.full(8, 4.0), np.full(22, 130.0)])
    knots = 2 * np.pi * np.cumsum(curve / 24000) * 300
    phase = np.interp(np.arange(60 * 300), np.arange(60) * 300 + 149.5, knots)
    voiced = np.repeat(curve > 10, 300)
    samples = np.where(voiced, 0.2 * np.cos(phase), 0.0).astype(np.float32)
    frames = frames_from_pitch(samples, curve.astype(np.float32), CLOCK)
    centres = np.arange(75) * 240 + 120
    assert (frames.voiced == voiced[centres]).all()
    inside = voiced & np.roll(voiced, 300) & np.roll(voiced, -300)
    error = np.angle(np.exp(1j * (frames.phase - phase[centres])))
    assert np.abs(error[inside[centres]]).max() < 1e-4
    assert np.abs(frames.f0[inside[centres]] - np.repeat(curve, 300)[centres][inside[centres]]).max() <= 5.0
    assert frames.f0.min() > 100  # never the teacher's idle 5 Hz
    # F0 leads the phase from frame to frame to the same multiple of a turn
    from spear_spec.acoustic.unit.excitation import unwrap

    run = unwrap(torch.tensor(frames.phase)[None], torch.tensor(frames.f0)[None], 0.01)[0]
    rate = run.diff() / (2 * np.pi * 0.01)
    assert float(rate.min()) > 60 and float(rate.max()) < 400


def test_crops_line_up(data: Path) -> None:
    store = ClipStore(data, CLOCK)
    assert store.seconds == pytest.approx((30 + 31 + 32) * 0.04)
    drawn = store.draw(np.random.default_rng(1), 8, 5, 3, 2)
    assert drawn["tokens"].shape == (8, 10) and drawn["f0"].shape == (8, 40) and drawn["audio"].shape == (8, 4800)
    assert drawn["valid"][:, 3:8].all()
    for row in range(8):
        expected = 120.0 + 10 * drawn["tokens"][row, 3:8]
        got = drawn["f0"][row].reshape(-1, 4)[3:8, 1:3].mean(1)
        assert np.abs(got / expected - 1)[1:-1].max() < 0.1
        spectrum = np.abs(np.fft.rfft(drawn["audio"][row]))
        assert drawn["f0"][row].min() * 0.9 < spectrum.argmax() * 5.0 < drawn["f0"][row].max() * 1.1
    with pytest.raises(SpearSpecError):
        ClipStore(data.parent / "nowhere", CLOCK)


def test_a_clip_shorter_than_the_crop_is_padded(data: Path) -> None:
    drawn = ClipStore(data, CLOCK).draw(np.random.default_rng(1), 2, 50, 3, 2)
    assert (~drawn["valid"]).any() and drawn["valid"].any(axis=1).all()


def test_stft_and_its_gradient_equal_torchs() -> None:
    x = torch.randn(2, 2000, requires_grad=True)
    window = torch.hann_window(256)
    ours = stft(x, window, 64)
    reference = torch.stft(x, 256, 64, window=window, center=True, return_complex=True).transpose(1, 2)
    assert torch.allclose(ours, reference, atol=1e-4)
    weight = torch.randn_like(reference)
    got = torch.autograd.grad((ours * weight).real.sum() + (ours * weight).imag.sum(), x)[0]
    expected = torch.autograd.grad((reference * weight).real.sum() + (reference * weight).imag.sum(), x)[0]
    assert torch.allclose(got, expected, atol=1e-3)
    double = torch.randn(3, 16, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: torch.view_as_real(rfft(v)), (double,))


def test_spectral_loss_orders_what_it_should() -> None:
    torch.manual_seed(0)
    loss = SpectralLoss(24000)
    t = torch.arange(9600) / 24000
    real = 0.3 * torch.sin(2 * torch.pi * 200 * t)[None]
    shifted = 0.3 * torch.cos(2 * torch.pi * 200 * t)[None]
    same = loss(real, real)
    assert all(float(x) < 1e-6 for x in same[:3]) and same[3][0] == pytest.approx(1.0, abs=1e-3)
    mel, magnitude, phase, coherence = loss(shifted, real)
    assert float(phase) > 10 * float(mel) * 0.01 and abs(coherence[0]) < 0.2
    assert float(loss(0.5 * real, real)[0]) > float(loss(0.9 * real, real)[0]) > 0
    silent_voicing = loss(shifted, real, torch.zeros(1, 40))
    assert float(silent_voicing[2]) == 0.0 and float(magnitude) >= 0


def test_discriminators_tell_apart_and_learn() -> None:
    torch.manual_seed(0)
    judges = Discriminators(periods=(2, 3), sizes=(512,), period_channels=(16, 32), channels=16)
    optimiser = torch.optim.Adam(judges.parameters(), 2e-3)
    t = torch.arange(3840) / 24000
    real = torch.stack([0.3 * torch.sin(2 * torch.pi * f * t) for f in (180.0, 240.0, 300.0)])
    fake = 0.1 * torch.randn_like(real)
    first = float(discriminator_loss(judges(torch.cat([real, fake])), 3))
    for _ in range(10):
        loss = discriminator_loss(judges(torch.cat([real, fake])), 3)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.6 * first
    heard = judges(real)
    adversarial, matching = generator_losses(heard, heard)
    assert float(matching) == 0.0
    assert float(generator_losses(judges(fake), heard)[0]) > float(adversarial)
    assert len(judges(real, [2, 0])) == 2


def test_learning_rate_rises_stays_and_falls() -> None:
    cfg = replace(SHORT, steps=100, tail=40, warmup=10)
    rates = [learning_rate(step, 1.0, cfg) for step in range(100)]
    assert rates[0] == 0.1 and rates[10:60] == [1.0] * 50 and rates[-1] < 0.05
    assert rates == sorted(rates[:10]) + rates[10:60] + sorted(rates[60:], reverse=True)


def test_a_few_steps_reduce_the_loss(data: Path) -> None:
    cfg = replace(SHORT, steps=40, gan_start=1000, warmup=5, tail=1, learning_rate=5e-3)
    learner = VocoderLearner(SMALL, cfg, ClipStore(data, CLOCK))
    losses = [{k: float(v) for k, v in learner.learn(step, 0.0, None).items()} for step in range(24)]
    for key in ("mel", "pros"):
        assert np.mean([x[key] for x in losses[-5:]]) < 0.8 * np.mean([x[key] for x in losses[:3]])


def test_a_gradient_that_is_not_finite_ends_the_run_and_leaves_no_checkpoint(data: Path, tmp_path: Path) -> None:
    learner = VocoderLearner(SMALL, SHORT, ClipStore(data, CLOCK))
    run = Run("vocoder", learner, tmp_path, steps=SHORT.steps, every=2)
    run.advance()
    with torch.no_grad():
        next(learner.model.parameters()).fill_(float("nan"))
    run.advance()
    for end in (run.save, run.tell):
        with pytest.raises(NumericsError, match="vocoder's gradient"):
            end()
    assert not run.work.checkpoint.exists()


def test_resuming_gives_the_uninterrupted_weights(data: Path, tmp_path: Path) -> None:
    straight = train_vocoder(data, tmp_path / "straight", SHORT, SMALL, progress_bar=False)
    learner = VocoderLearner(SMALL, SHORT, ClipStore(data, CLOCK))
    broken = Run("vocoder", learner, tmp_path / "broken", steps=SHORT.steps, every=50)
    for _ in range(3):
        broken.advance()
    broken.save()
    resumed = train_vocoder(data, tmp_path / "broken", SHORT, SMALL, progress_bar=False)
    for (name, a), b in zip(straight.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name
    about, weights = load_export(tmp_path / "straight/export", "vocoder")
    model = UnitVocoder(VocoderConfig.from_dict(about["vocoder"]))
    model.load_state_dict({k: v.float() for k, v in weights.items()})
    assert torch.isfinite(render(model.eval(), torch.arange(8))).all()
    lines = [json.loads(line) for line in (tmp_path / "straight/train.log").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 4]
