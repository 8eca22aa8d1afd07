"""What drafts are trained on is what they do at run time, position by position and depth by depth."""

import numpy as np
import pytest
import torch

from spear_spec.config import DraftConfig, SamplingConfig, T2SConfig
from spear_spec.errors import ConfigError
from spear_spec.models.drafts.block_runner import BlockRunner
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.data.utterances import Utterance
from spear_spec.training.drafts.blocks import run_blocks
from spear_spec.training.drafts.observed import collate, observe
from spear_spec.training.drafts.rollout import says
from spear_spec.training.drafts.settings import DraftTraining
from spear_spec.training.drafts.trainer import acceptance, draft_shapes, loss_of, tokens_per_call, train_drafts
from spear_spec.voice.drafts import build_draft

LAYERS = (1, 2)
KINDS = {
    "eagle": DraftConfig(32, 2, 2, 16, target_layers=LAYERS),
    "small2": DraftConfig(32, 2, 2, 16),
    "prophet": DraftConfig(32, 2, 2, 16, target_layers=(2,), window=True),
    "early_exit": DraftConfig(32, 1, 2, 16, target_layers=(1,), feed="same"),
}
PLAIN = SamplingConfig(temperature=1.0, top_p=1.0)


@pytest.fixture
def parts():
    torch.manual_seed(0)
    model = TextToSemantic(T2SConfig(12, 20, 32, 1, 2, 2, dim_head=16)).double().eval()
    rng = np.random.default_rng(0)
    data = [Utterance([1, *rng.integers(1, 12, 5).tolist(), 12], rng.integers(0, 20, n), None, "a") for n in (9, 6, 7)]
    return model, data


def build_block(model, **settings):
    shape = {"depth": 2, "heads": 2, "dim_head": 16, "ff_mult": 2, "block": 3, "rank": 4, **settings}
    return build_draft("block", {"dim": 32, "ids": 21, "target_layers": list(LAYERS), **shape}, model.cfg)


def tiny_block(model, **settings):
    """One that looks at the token before."""
    torch.manual_seed(1)
    draft = build_block(model, **settings).double().eval()
    torch.nn.init.normal_(draft.after, std=0.3)
    torch.nn.init.normal_(draft.positions)
    return draft


def exact_batch(model, data):
    """A batch whose features are not rounded to half precision."""
    batch = collate(observe(model, data, LAYERS))
    batch.features, batch.memory, batch.hidden = batch.features.double(), batch.memory.double(), batch.hidden.double()
    for row, u in enumerate(data):
        memory = model.encode(torch.tensor([u.text]))
        out = model(torch.tensor([[model.start_id, *u.tokens.tolist()]]), memory, features=LAYERS)
        batch.features[row, : len(u.tokens) + 1] = torch.cat(out.features, -1)[0]
        batch.hidden[row, : len(u.tokens) + 1] = out.hidden[0]
        batch.memory[row, : len(u.text)] = memory.hidden[0]
    return batch


def one_at_a_time(model, draft, utterance, position, steps):
    """Logits at `position` after `steps - 1` tokens of the draft's own, by its cached steps."""
    cfg = draft.cfg
    memory = model.encode(torch.tensor([utterance.text]))
    tokens = torch.tensor([[model.start_id, *utterance.tokens.tolist()]])
    features = None
    if cfg.target_layers:
        features = draft.fuse_target(model(tokens, memory, features=cfg.target_layers).features)
        if cfg.feed == "previous":
            features = torch.cat((torch.zeros_like(features[:, :1]), features[:, :-1]), 1)
    state = draft.start(memory)
    known = position - steps + 2  # positions whose features are the target's
    begin = known - 1 if cfg.window else 0
    hidden = draft.step(model, tokens[:, begin:known], None if features is None else features[:, begin:known], state)[
        :, -1:
    ]
    for at in range(known, position + 1):
        hidden = draft.step(model, tokens[:, at : at + 1], hidden, state)
    return draft.logits(model, hidden)[0, 0]


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_trained_is_what_the_draft_does(parts, kind):
    model, data = parts
    draft = DraftDecoder(KINDS[kind], model.cfg).double().eval()
    found = says(draft, model, exact_batch(model, data), 4)
    assert [first for first, _ in found] == ([0] if kind in ("small2", "early_exit") else [0, 1, 2, 3])
    for row, u in enumerate(data):
        for first, logits in found:
            for position in range(first, len(u.tokens) + 1):
                expected = one_at_a_time(model, draft, u, position, first + 1)
                assert torch.allclose(logits[row, position], expected, atol=1e-9), (row, first, position)


@torch.no_grad()
def test_medusa_head_k_speaks_of_the_token_k_behind_the_next(parts):
    model, data = parts
    heads = build_draft("medusa", {"dim": 32, "heads": 3, "inner": 16}, model.cfg).double()
    torch.nn.init.normal_(heads.down)
    batch = exact_batch(model, data)
    for first, logits in says(heads, model, batch, 4):
        for row, u in enumerate(data):
            for position in range(first, len(u.tokens) + 1):
                hidden = batch.hidden[row, position - first]  # it has predicted token position - first + 1 itself
                expected = model.logits(heads(hidden[None]))[first - 1, 0]
                assert torch.allclose(logits[row, position], expected, atol=1e-9), (row, first, position)


@torch.no_grad()
def test_what_a_block_is_trained_on_is_what_it_says(parts):
    """Every position of the block behind every token, by passes on a cache; the window is shorter than the text."""
    model, data = parts
    draft = tiny_block(model, window=4)
    runner = BlockRunner(draft, model)
    batch = exact_batch(model, data)
    found = says(draft, model, batch, 4)
    assert [first for first, _ in found] == [0, 1, 2]
    for row, u in enumerate(data):
        memory = model.encode(torch.tensor([u.text]))
        tokens = torch.tensor([[model.start_id, *u.tokens.tolist()]])
        features = draft.fuse_target(model(tokens, memory, features=LAYERS).features)
        features = torch.cat((torch.zeros_like(features[:, :1]), features[:, :-1]), 1)
        state = draft.start(memory)
        for newest in range(tokens.shape[1]):
            contexts = runner.step(tokens[:, newest : newest + 1], features[:, newest : newest + 1], state)
            said = runner.ahead(contexts, [3], state)
            for k, logits in found:
                if newest + k <= len(u.tokens):
                    expected = runner.follow(said, k, tokens[:, newest + k])[0]
                    assert torch.allclose(logits[row, newest + k], expected, atol=1e-9), (row, k, newest)


@pytest.mark.parametrize("loss", ["ce", "kl", "tv", "ce_tv", "lk"])
def test_losses_of_a_block_one_after_the_other(parts, loss):
    model, data = parts
    model = model.float()
    draft = tiny_block(model).float()
    batch = collate(observe(model, data, LAYERS))
    law = model.logits(batch.hidden)[batch.valid]
    cfg = DraftTraining(loss=loss, temperature=0.7, stride=2, rollout_decay=0.8)
    for step in (0, 3):
        found = loss_of(draft, model, batch, law, cfg, 0.0, step).item()
        terms, weights, sure = [], [], []
        with torch.no_grad():
            for k, logits in says(draft, model, batch, 1):
                for row, u in enumerate(data):
                    for at in range(k, len(u.tokens) + 1):
                        if (at - k) % 2 != step % 2:
                            continue
                        p, q = model.logits(batch.hidden)[row, at].double(), logits[row, at].double()
                        sharp, drawn = (p / 0.7).softmax(-1), (q / 0.7).softmax(-1)
                        share = torch.minimum(sharp, drawn).sum()
                        hidden = run_blocks(draft, model, batch, torch.tensor([at - k]))[row, 0, k]
                        chance = draft.sure(draft.norm(hidden))[0].double()
                        sure.append(torch.nn.functional.binary_cross_entropy_with_logits(chance, share))
                        known = at < len(u.tokens)
                        ce = -q.log_softmax(-1)[u.tokens[at]] if known else torch.zeros(()).double()
                        far = torch.exp(-3 * share)
                        term = {
                            "ce": ce,
                            "kl": -(p.softmax(-1) * q.log_softmax(-1)).sum(),
                            "tv": 4 * (1 - share),
                            "ce_tv": 0.1 * ce + 0.9 * (1 - share),
                            "lk": far * -(sharp * drawn.log()).sum() - (1 - far) * share.log(),
                        }[loss]
                        terms.append(0.8**k * term)
                        weights.append(0.8**k * (known or loss != "ce"))
        expected = torch.stack(terms).sum() / sum(weights) + 0.1 * torch.stack(sure).mean()
        assert found == pytest.approx(expected.item(), rel=2e-2)  # the draft runs in bfloat16 there


@torch.no_grad()
def test_a_block_begins_with_what_an_eagle_has_learnt(parts):
    model, data = parts
    eagle = DraftDecoder(DraftConfig(32, 1, 2, 16, ff_mult=2, target_layers=LAYERS), model.cfg)
    one, two = (build_block(model, depth=depth) for depth in (1, 2))
    for draft in (one, two):
        draft.begin_with(eagle)
        assert torch.equal(draft.enter.weight, eagle.enter.weight)
        assert torch.equal(draft.layers[0].ff.up.weight, eagle.layers[0].ff.up.weight)
    two.positions.copy_(one.positions)
    model = model.float()
    batch = collate(observe(model, data, LAYERS))
    starts = torch.arange(4)
    both = (run_blocks(draft, model, batch, starts) for draft in (one, two))
    torch.testing.assert_close(*both)  # a further layer adds nothing yet
    with pytest.raises(ConfigError, match="own shape"):
        one.begin_with(DraftDecoder(KINDS["eagle"], model.cfg))
    with pytest.raises(ConfigError, match="same features"):
        one.begin_with(DraftDecoder(KINDS["prophet"], model.cfg))


def test_acceptance_of_equal_laws_is_one_and_of_disjoint_laws_zero():
    target = torch.full((1, 2, 4), -50.0)
    target[..., 0] = 0
    other = target.roll(1, -1)
    valid = torch.ones(1, 2, dtype=torch.bool)
    rates = acceptance(target, [(0, target), (1, other)], valid, PLAIN)
    assert rates[0] == pytest.approx(1) and rates[1] == pytest.approx(0)
    assert tokens_per_call([0.5], 2) == pytest.approx(1.75)


@torch.no_grad()
@pytest.mark.parametrize("loss", ["ce", "kl", "tv"])
def test_losses_are_what_they_are_called(parts, loss):
    model, data = parts
    model = model.float()
    draft = DraftDecoder(KINDS["small2"], model.cfg)
    batch = collate(observe(model, data, LAYERS))
    law = model.logits(batch.hidden)[batch.valid]
    found = loss_of(draft, model, batch, law, DraftTraining(loss=loss, temperature=0.7), 0.0).item()
    terms = []
    [(_, logits)] = says(draft, model, batch, 1)
    for row, u in enumerate(data):
        for at in range(len(u.tokens) + 1):
            p, q = model.logits(batch.hidden)[row, at].double(), logits[row, at].double()
            if loss == "kl":  # up to the entropy of p, which no draft changes
                terms.append(-(p.softmax(-1) * q.log_softmax(-1)).sum())
            elif loss == "tv":
                terms.append(4 * (1 - torch.minimum((p / 0.7).softmax(-1), (q / 0.7).softmax(-1)).sum()))
            elif at < len(u.tokens):
                terms.append(-q.log_softmax(-1)[u.tokens[at]])
    assert found == pytest.approx(torch.stack(terms).mean().item(), rel=2e-2)  # the draft runs in bfloat16 there


def test_an_unknown_loss_is_refused():
    with pytest.raises(ConfigError, match="loss must be ce, kl, tv, mixed"):
        DraftTraining(loss="mse")


def test_every_draft_learns_and_goes_on_where_it_stopped(parts, tmp_path):
    model, data = parts
    model = model.float()
    shapes = draft_shapes(model.cfg, exit_layer=1)
    layers = (1, 2)
    seen = observe(model, data, layers)
    quick = {"warmup": 5, "lr": 3e-3, "ema": 0.5}
    kwargs = {"laws": [PLAIN], "every": 1000, "progress_bar": False}

    def rates(drafts):
        batch = collate(seen)
        with torch.no_grad():
            return {
                name: acceptance(model.logits(batch.hidden), says(draft, model, batch, 1), batch.valid, PLAIN)[0]
                for name, draft in drafts.items()
            }

    torch.manual_seed(0)
    before = rates({name: build_draft(name, shape, model.cfg) for name, shape in shapes.items()})
    train_drafts(model, seen, seen, shapes, DraftTraining(steps=15, **quick), tmp_path, **kwargs)
    trained = train_drafts(model, seen, seen, shapes, DraftTraining(steps=60, **quick), tmp_path, **kwargs)
    after = rates(trained)
    assert {name for name in shapes if after[name] < before[name] + 0.1} == set()
    for name in shapes:
        lines = (tmp_path / name / "train.log").read_text().splitlines()
        assert [line.split(",")[0] for line in lines] == ['{"step": 0', '{"step": 15', '{"step": 60']
