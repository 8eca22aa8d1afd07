"""The prompt encoder under training: its margin loss, its prompts, gradients, exports, and going on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spear_spec.acoustic.unit.prompt import PromptConfig, PromptEncoder
from spear_spec.acoustic.unit.vocoder import VocoderConfig
from spear_spec.errors import ConfigError
from spear_spec.training.checkpoint import load_export
from spear_spec.training.loop import Run
from spear_spec.training.recipe.plan import CLOCK, Vocoder
from spear_spec.training.vocoder.data import ClipStore
from spear_spec.training.vocoder.margin import MarginLoss
from spear_spec.training.vocoder.settings import VocoderTraining
from spear_spec.training.vocoder.trainer import VocoderLearner, train_vocoder

SMALL = VocoderConfig(
    num_semantic_token_ids=8, num_speakers=2, dim=32, prosody_dim=32, token_right=(1,), prosody_right=(0,),
    frame_right=(1,),
)  # fmt: skip
PROMPT = PromptConfig(vector=64, dim=16, blocks=1, attention=8, embedding=12)
SHORT = VocoderTraining(
    steps=4, tail=2, warmup=2, gan_start=3, batch=4, tokens=6, gan_batch=2, gan_tokens=5, judge_tokens=3, left=6,
    right=4, shortest=0.5, longest=1.0,
)  # fmt: skip
LENGTHS, VOICES = (30, 28, 12, 33, 40), (0, 0, 1, 2, 2)  # the second speaker has one clip; the third has no row


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips of three speakers; every sample of clip n lies near (n + 1) / 10, its F0 is 100 + 20 n."""
    folder = tmp_path_factory.mktemp("clips")
    chance = np.random.default_rng(0)
    levels = np.repeat(np.arange(5), LENGTHS)
    frames = np.repeat(levels, 4)
    audio = np.repeat((levels + 1) / 10, 960) + 0.01 * chance.standard_normal(len(levels) * 960)
    (audio * 32767).astype(np.int16).tofile(folder / "audio.0.i16")
    np.savez(
        folder / "frames.0.npz",
        lengths=np.array(LENGTHS),
        voices=np.array(VOICES),
        ids=np.array([f"{n}" for n in range(5)]),
        tokens=chance.integers(0, 8, len(levels)).astype(np.int16),
        f0=(100.0 + 20 * frames).astype(np.float32),
        voiced=np.ones(len(frames), np.float32),
        phase=np.zeros(len(frames), np.float32),
        energy=np.full(len(frames), -2.0, np.float32),
    )
    return folder


def learner(data: Path, **changes: object) -> VocoderLearner:
    return VocoderLearner(SMALL, replace(SHORT, **changes), ClipStore(data, CLOCK), prompts=PROMPT, speakers=3)  # type: ignore[arg-type]


def test_margin_loss_against_its_formula() -> None:
    """ArcFace, equation 3, in float64 with angles."""
    torch.manual_seed(0)
    loss = MarginLoss(12, 5, margin=0.3, scale=9.0).double()
    embedding = torch.nn.functional.normalize(torch.randn(7, 12, dtype=torch.float64))
    speaker = torch.tensor([0, 1, 2, 3, 4, 0, 1])
    directions = torch.nn.functional.normalize(loss.directions.detach())
    total = 0.0
    for row, who in zip(embedding, speaker.tolist(), strict=True):
        angles = torch.arccos(directions @ row)
        angles[who] += 0.3
        assert float(angles[who]) < torch.pi
        scores = 9.0 * torch.cos(angles)
        total += float(torch.logsumexp(scores, 0) - scores[who])
    assert float(loss(embedding, speaker).detach()) == pytest.approx(total / 7, rel=1e-6)


def test_margin_loss_rises_with_the_angle_up_to_half_a_turn() -> None:
    """Beyond pi - margin too, where the cosine of the enlarged angle would rise again."""
    loss = MarginLoss(4, 3, margin=0.3, scale=9.0)
    with torch.no_grad():
        loss.directions.copy_(torch.eye(4)[:3])
    angles = torch.linspace(0.1, torch.pi - 0.01, 60)
    rows = torch.stack([angles.cos(), 0 * angles, 0 * angles, angles.sin()], dim=1)
    losses = torch.stack([loss(row[None], torch.tensor([0])).detach() for row in rows])
    assert bool((losses[1:] > losses[:-1]).all())


def test_prompts_are_other_clips_of_the_speaker(data: Path) -> None:
    store = ClipStore(data, CLOCK)
    others = {0: {1}, 1: {0}, 2: {2}, 3: {4}, 4: {3}}
    clips = np.array([0, 1, 2, 3, 4] * 8)
    drawn = store.prompts(np.random.default_rng(1), clips, 0.5, 1.0)
    seconds = drawn["prompt_mask"].sum(1) / 24000
    for row, clip in enumerate(clips):
        mask = drawn["prompt_mask"][row]
        heard = int(np.round(10 * drawn["prompt"][row][mask].mean())) - 1
        assert heard in others[int(clip)]
        assert not drawn["prompt"][row][~mask].any()
        assert drawn["prompt_voiced"][row]
        assert drawn["prompt_pitch"][row] == pytest.approx(np.log(100.0 + 20 * heard), rel=1e-5)
        assert 0.48 - 1e-6 <= seconds[row] <= 1.0
    assert len(set(seconds[clips == 0])) > 3


def test_stored_speakers_have_the_share_that_is_asked_for(data: Path) -> None:
    def share(stored: float) -> float:
        store = ClipStore(data, CLOCK)
        store.favour(2, stored)
        drawn = store.draw(np.random.default_rng(0), 400, 4, 2, 2)
        assert (np.array(VOICES)[drawn["clip"].astype(int)] == drawn["speaker"]).all()
        return float((drawn["speaker"] < 2).mean())

    assert share(0.2) == pytest.approx(0.2, abs=0.06)
    assert share(0.0) == pytest.approx(70 / 143, abs=0.07)


def test_the_gradient_reaches_the_encoder_through_the_sound(data: Path) -> None:
    """Neither loss of its own has a say here: what moves the first layer came through the vocoder."""

    def moved(**changes: object) -> dict[str, float]:
        it = learner(data, parting=0.0, level=0.0, warmup=1, **changes)
        assert it.prompting is not None
        with torch.no_grad():
            it.prompting.encoder.out.weight.normal_(0, 0.1)
        before = {k: v.clone() for k, v in it.prompting.encoder.state_dict().items()}
        it.optimiser.param_groups[0]["weight_decay"] = 0.0
        it.learn(0, 0.0, None)
        return {k: float((v - before[k]).abs().max()) for k, v in it.prompting.encoder.state_dict().items()}

    by_sound = moved()
    assert all(by_sound[name] > 1e-6 for name in ("enter.weight", "weigh.weight", "embedding.weight", "out.weight"))
    it = learner(data, rows=1.0)
    rows = it.model.speaker_embedding.weight.detach().clone()
    it.learn(0, 0.0, None)
    assert not torch.equal(it.model.speaker_embedding.weight, rows)


def test_stored_speakers_take_their_row_and_others_never(data: Path) -> None:
    it = learner(data, rows=1.0)
    assert it.prompting is not None
    batch = it.batch(0, 40, 6)
    who, told = it.prompting(it.model, batch)
    for row, speaker in enumerate(batch["speaker"].tolist()):
        if speaker < 2:
            assert torch.equal(who[row], it.model.vectors(torch.tensor([speaker]))[0])
        else:
            assert torch.allclose(who[row], it.model.vectors(torch.arange(2)).mean(0), atol=1e-2)
    assert set(batch["speaker"].tolist()) == {0, 1, 2}
    assert all(torch.isfinite(value) for value in told.values())


def test_resuming_gives_the_uninterrupted_encoder(data: Path, tmp_path: Path) -> None:
    whole, cfg = {"progress_bar": False, "prompts": PROMPT, "speakers": 3}, replace(SHORT, learning_rate=0.02)
    train_vocoder(data, tmp_path / "straight", cfg, SMALL, **whole)  # type: ignore[arg-type]
    broken = Run("vocoder", learner(data, learning_rate=0.02), tmp_path / "broken", steps=cfg.steps, every=50)
    for _ in range(2):
        broken.advance()
    broken.save()
    train_vocoder(data, tmp_path / "broken", cfg, SMALL, **whole)  # type: ignore[arg-type]
    exports = [load_export(tmp_path / name / "export", "prompt") for name in ("straight", "broken")]
    assert PromptConfig.from_dict(exports[0][0]["prompt"]) == PROMPT
    encoder = PromptEncoder(PROMPT)
    fresh = {k: v.half() for k, v in encoder.state_dict().items()}
    encoder.load_state_dict({k: v.float() for k, v in exports[0][1].items()})
    for name, value in exports[0][1].items():
        assert torch.allclose(value.float(), exports[1][1][name].float(), atol=1e-4), name
        assert name.endswith("bias") or "norm" in name or not torch.equal(value, fresh[name])
    with pytest.raises(ConfigError, match="of a run with prompts"):
        train_vocoder(data, tmp_path / "broken", replace(SHORT, steps=6), SMALL, progress_bar=False)


def test_a_recipe_gives_the_encoder_the_vocoders_width() -> None:
    assert Vocoder().encoder(SMALL) is None
    shape = Vocoder(prompts=True, prompt={"dim": 24}).encoder(SMALL)
    assert shape is not None and (shape.vector, shape.dim, shape.sample_rate) == (64, 24, 24000)
    with pytest.raises(ConfigError, match="prompt: unknown key vector"):
        Vocoder(prompts=True, prompt={"vector": 3})
