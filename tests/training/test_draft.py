"""The roll-out that the draft is trained on is what it does at run time, position by position."""

import numpy as np
import pytest
import torch

from spear_spec.config import DraftConfig, SamplingConfig, T2SConfig
from spear_spec.models.draft import DraftDecoder
from spear_spec.models.text_to_semantic import TextToSemantic
from spear_spec.training.draft import (
    DraftTraining,
    acceptance,
    collate,
    observe,
    roll_out,
    tokens_per_call,
    train_draft,
)
from spear_spec.training.t2s import Utterance

LAYERS = (1, 2)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    model = TextToSemantic(T2SConfig(12, 20, 32, 1, 2, 2, dim_head=16)).double().eval()
    draft = DraftDecoder(DraftConfig(32, 2, 2, 16, target_layers=LAYERS), model.cfg).double().eval()
    rng = np.random.default_rng(0)
    lengths = (9, 6, 7)
    data = [Utterance([1, *rng.integers(1, 12, 5).tolist(), 12], rng.integers(0, 20, n), None, "a") for n in lengths]
    return model, draft, data


def one_at_a_time(model, draft, utterance, position, steps):
    """Logits of roll-out step `steps` at `position`, by the draft's own cached steps."""
    memory = model.encode(torch.tensor([utterance.text]))
    tokens = torch.tensor([[model.start_id, *utterance.tokens.tolist()]])
    model.feature_layers = LAYERS
    fused = draft.fuse_target(model(tokens, memory).features)
    features = torch.cat((torch.zeros_like(fused[:, :1]), fused[:, :-1]), 1)
    state = draft.start(memory)
    known = position - steps + 2  # positions with true features
    hidden = draft.step(model, tokens[:, :known], features[:, :known], state)[:, -1:]
    for at in range(known, position + 1):
        hidden = draft.step(model, tokens[:, at:at + 1], hidden, state)
    return draft.logits(model, hidden)[0, 0]


@torch.no_grad()
def test_roll_out_is_what_the_draft_does(parts):
    model, draft, data = parts
    batch = collate(observe(model, data, LAYERS))
    batch.features, batch.memory = batch.features.double(), batch.memory.double()
    # the stored features are in half precision: put exact ones in their place
    model.feature_layers = LAYERS
    for row, u in enumerate(data):
        memory = model.encode(torch.tensor([u.text]))
        seen = model(torch.tensor([[model.start_id, *u.tokens.tolist()]]), memory)
        batch.features[row, : len(u.tokens) + 1] = torch.cat(seen.features, -1)[0]
        batch.memory[row, : len(u.text)] = memory.hidden[0]
    logits = roll_out(draft, model, batch, 4)
    for row, u in enumerate(data):
        for step in range(1, 5):
            for position in range(step - 1, len(u.tokens) + 1):
                expected = one_at_a_time(model, draft, u, position, step)
                assert torch.allclose(logits[step - 1][row, position], expected, atol=1e-9), (row, step, position)


def test_acceptance_of_equal_laws_is_one_and_of_disjoint_laws_zero():
    target = torch.full((1, 2, 4), -50.0)
    target[..., 0] = 0
    other = target.roll(1, -1)
    valid = torch.ones(1, 2, dtype=torch.bool)
    rates = acceptance(target, [target, other], valid, SamplingConfig(temperature=1.0, top_p=1.0))
    assert rates[0] == pytest.approx(1) and rates[1] == pytest.approx(0)
    assert tokens_per_call([0.5], 2) == pytest.approx(1.75)


def test_training_learns_and_goes_on_where_it_stopped(parts, tmp_path):
    model, _, data = parts
    model = model.float()
    seen = observe(model, data, LAYERS)
    cfg = DraftConfig(32, 1, 2, 16, target_layers=LAYERS)
    law = SamplingConfig(temperature=1.0, top_p=1.0)

    def rate(draft):
        batch = collate(seen)
        with torch.no_grad():
            return acceptance(model.logits(batch.hidden), roll_out(draft, model, batch, 1), batch.valid, law)[0]

    kwargs = {"laws": [law], "every": 1000, "progress_bar": False}
    torch.manual_seed(0)
    before = rate(DraftDecoder(cfg, model.cfg))
    train_draft(model, seen, seen, cfg, DraftTraining(steps=15, warmup=5, lr=3e-3, ema=0.5), tmp_path, **kwargs)
    trained = train_draft(model, seen, seen, cfg, DraftTraining(steps=60, warmup=5, lr=3e-3, ema=0.5), tmp_path, **kwargs)
    assert rate(trained) > before + 0.1
    assert len((tmp_path / "train.log").read_text().splitlines()) >= 3
