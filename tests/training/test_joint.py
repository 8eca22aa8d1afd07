"""Heads that are trained along with the target: what their losses are, what they do to the target, and that a run
goes on.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spear_spec.config import DraftConfig, T2SConfig
from spear_spec.errors import ConfigError
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.medusa import MedusaConfig, MedusaHeads
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.training.checkpoint import load_checkpoint, load_export
from spear_spec.training.data.utterances import Utterance
from spear_spec.training.order import Order, chance, seed_of
from spear_spec.training.precision import mixed
from spear_spec.training.recipe.plan import CLOCK
from spear_spec.training.t2s.batches import collate, groups, history_mask
from spear_spec.training.t2s.joint import Joint
from spear_spec.training.t2s.settings import T2STraining
from spear_spec.training.t2s.trainee import Trainee, View
from spear_spec.training.t2s.trainer import train_t2s

SHAPE = T2SConfig(6, 8, 32, 2, 2, 2, 16)
SETTINGS = T2STraining(steps=2, warmup=1, batch_tokens=100, align_layers=(0, 1), align_heads=1, joint_steps=3)
HEADS = ("medusa", "prophet")


@pytest.fixture
def data() -> list[Utterance]:
    rng = np.random.default_rng(0)
    return [
        Utterance(
            [5, *rng.integers(1, 5, s).tolist(), 6], rng.integers(0, 8, t), np.sort(rng.integers(0, s + 2, t + 1)), "a"
        )
        for s, t in ((6, 20), (4, 9), (5, 2), (3, 14), (6, 1), (7, 31))
    ]  # the last fills its row: 31 tokens, an end token, no padding


def run(data: list[Utterance], cfg: T2STraining, out: Path) -> dict[str, torch.Tensor]:
    train_t2s(data, data[:3], SHAPE, cfg, out, space=1, clock=CLOCK, every=1000, progress_bar=False)
    return load_checkpoint(out / "checkpoint.pt")["trainee"]


def by_hand(data: list[Utterance], cfg: T2STraining, begin: dict | None = None) -> dict[str, dict[str, torch.Tensor]]:
    """What `train_t2s` does, written out; it knows of the heads only what is spelt out here."""
    torch.manual_seed(cfg.seed)
    model = TextToSemantic(SHAPE, dropout=cfg.dropout)
    nn.init.normal_(model.semantic_emb.weight, std=SHAPE.dim**-0.5)
    nn.init.normal_(model.text_emb.weight, std=1.0)
    trainee = Trainee(model)
    joint = None if cfg.joint == "none" else Joint(cfg, model)
    sides: list[nn.Module] = [trainee] if joint is None else [trainee, joint.module]
    optimizers = []
    for side in sides:
        decays = [
            {"params": [p for p in side.parameters() if p.ndim >= 2], "weight_decay": cfg.weight_decay},
            {"params": [p for p in side.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimizers.append(torch.optim.AdamW(decays, lr=cfg.lr, betas=(0.9, 0.98), fused=True))
    averages = [model.state_dict()] if joint is None else [model.state_dict(), joint.module.state_dict()]
    averages = [{k: v.clone() for k, v in average.items()} for average in averages]
    first = 0
    if begin is not None:
        first = begin["step"]
        trainee.load_state_dict(begin["trainee"])
        optimizers[0].load_state_dict(begin["optimizer"])
        averages[0] = begin["ema"]
        if joint is not None:
            joint.module.load_state_dict(begin["joint"]["heads"])
            optimizers[1].load_state_dict(begin["joint"]["optimizer"])
            averages[1] = begin["joint"]["ema"]
    order = Order(lambda rng: groups(data, cfg, 1, rng, clock=CLOCK), cfg.seed)
    for step in range(first, cfg.steps):
        progress = step / cfg.steps
        batch, draws = collate(order[step], model.start_id, model.eos_id), chance(cfg.seed, "masks", step)
        no_text = torch.rand(len(batch.tokens), generator=draws) < cfg.no_text
        masked = history_mask(batch, cfg, progress, draws) & ~no_text[:, None]
        torch.manual_seed(seed_of(cfg.seed, "dropout", step, 0))
        with mixed("cpu"):
            losses = trainee(
                batch, masked, no_text, (cfg.align_layers, cfg.align_heads), joint and joint.hook(progress)
            )
        align_weight = cfg.align_floor + (cfg.align_weight - cfg.align_floor) * max(0.0, 1 - progress / 0.6)
        loss = losses["nll"] + align_weight * losses.get("align", 0) + cfg.auxiliary_weight * losses["auxiliary"]
        loss = loss + losses["joint"] if joint else loss
        rate = (
            cfg.lr
            * min(1, (step + 1) / cfg.warmup)
            * (cfg.lr_floor + (1 - cfg.lr_floor) * 0.5 * (1 + math.cos(math.pi * progress)))
        )
        loss.backward()
        modules: list[nn.Module] = [model] if joint is None else [model, joint.module]
        for side, whole, optimizer, average in zip(modules, sides, optimizers, averages):
            nn.utils.clip_grad_norm_(whole.parameters(), 1.0)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
            now = side.state_dict()
            torch._foreach_lerp_(
                list(average.values()), [now[k] for k in average], 1 - min(cfg.ema, (step + 1) / (step + 11))
            )
    out = {"trainee": trainee.state_dict(), "ema": averages[0]}
    if joint is not None:
        out |= {"heads": joint.module.state_dict(), "heads_ema": averages[1]}
    return out


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def test_without_heads_it_is_the_plain_training(data: list[Utterance], tmp_path: Path) -> None:
    run(data, SETTINGS, tmp_path)
    state, plain = load_checkpoint(tmp_path / "checkpoint.pt"), by_hand(data, SETTINGS)
    assert_same(state["trainee"], plain["trainee"])
    assert_same(state["ema"], plain["ema"])
    assert "joint" not in state
    assert not (tmp_path / "export_joint").exists()


@pytest.mark.parametrize("name", HEADS)
def test_heads_on_a_detached_state_change_nothing_of_the_target(
    name: str, data: list[Utterance], tmp_path: Path
) -> None:
    """Same initial weights, masks, order, clipping and steps in every arm: only the gradient differs."""
    plain = run(data, SETTINGS, tmp_path / "plain")
    assert_same(run(data, replace(SETTINGS, joint=name, joint_warmup=1.0), tmp_path / "detached"), plain)
    changed = run(data, replace(SETTINGS, joint=name, joint_warmup=0.0), tmp_path / "joint")
    assert not torch.equal(
        changed["model.decoder.0.self_attn.to_qkv.weight"], plain["model.decoder.0.self_attn.to_qkv.weight"]
    )


def built(name: str, data: list[Utterance], **settings: float) -> tuple[Trainee, Joint, dict[str, torch.Tensor]]:
    """A target and heads in float64, with weights that say something, and the losses of a whole batch."""
    trainee = Trainee(TextToSemantic(SHAPE)).double()
    joint = Joint(replace(SETTINGS, joint=name, **settings), trainee.model)
    joint.module.double()
    for p in (*joint.module.parameters(), trainee.model.decoder_norm.gamma):
        nn.init.normal_(p, std=0.3)
    batch = collate(data, trainee.model.start_id, trainee.model.eos_id)
    return trainee, joint, trainee(batch, None, None, None, joint.hook(0.5))


@pytest.mark.parametrize("name", HEADS)
def test_the_loss_reaches_the_target_after_the_warmup_only(name: str, data: list[Utterance]) -> None:
    for warmup in (0.6, 0.5):
        trainee, joint, losses = built(name, data, joint_warmup=warmup)
        losses["joint"].backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in joint.module.parameters())
        reached = {k for k, p in trainee.model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
        if warmup > 0.5:
            assert not reached
        else:
            nothing = {"text_start"} | (
                {"decoder_norm.gamma"} if name == "prophet" else set()
            )  # its feature leaves before that norm
            assert reached == {k for k, _ in trainee.model.named_parameters()} - nothing


def spoken(model: TextToSemantic, utterance: Utterance) -> list[int]:
    return [model.start_id, *utterance.tokens.tolist(), model.eos_id]


def assert_losses(losses: dict[str, torch.Tensor], expected: list[list[torch.Tensor]], cfg: T2STraining) -> None:
    means = [torch.stack(values).mean() for values in expected]
    for k, mean in enumerate(means, 1):
        assert losses[f"joint_{k}"].item() == pytest.approx(mean.item(), abs=1e-5), k
    total = cfg.joint_weight * sum(cfg.joint_decay**k * mean.item() for k, mean in enumerate(means, 1))
    assert losses["joint"].item() == pytest.approx(total, abs=1e-5)


def test_medusa_losses_token_by_token(data: list[Utterance]) -> None:
    trainee, joint, losses = built("medusa", data)
    model, heads = trainee.model, joint.module
    expected: list[list[torch.Tensor]] = [[] for _ in range(3)]
    with torch.no_grad():
        for utterance in data:
            tokens = spoken(model, utterance)
            memory = model.encode(torch.tensor([utterance.text]))
            for i in range(len(tokens) - 1):
                hidden = model(torch.tensor([tokens[: i + 1]]), memory).hidden[0, -1]
                for k in (1, 2, 3):
                    if i + 1 + k < len(tokens):
                        law = model.logits(heads(hidden[None])[k - 1, 0]).log_softmax(-1)
                        expected[k - 1].append(-law[tokens[i + 1 + k]])
    assert_losses(losses, expected, joint.cfg)


def test_prophet_losses_window_by_window(data: list[Utterance]) -> None:
    """Each window by the draft's own steps on a fresh cache, as it decodes: one token at a time."""
    trainee, joint, losses = built("prophet", data)
    model, draft = trainee.model, joint.module
    assert isinstance(draft, DraftDecoder)
    assert draft.cfg.window and draft.cfg.target_layers == (SHAPE.target_depth,)
    expected: list[list[torch.Tensor]] = [[] for _ in range(3)]
    with torch.no_grad():
        for utterance in data:
            tokens = spoken(model, utterance)
            memory = model.encode(torch.tensor([utterance.text]))
            for i in range(len(tokens) - 1):
                fed = torch.zeros(1, 1, SHAPE.dim, dtype=torch.float64)
                if i:
                    fed = draft.fuse_target(
                        [
                            model(torch.tensor([tokens[:i]]), memory, features=draft.cfg.target_layers).features[0][
                                :, -1:
                            ]
                        ]
                    )
                state = draft.start(memory)
                for at in range(i, min(i + 3, len(tokens) - 1)):
                    fed = draft.step(model, torch.tensor([[tokens[at]]]), fed, state)
                    law = draft.logits(model, fed)[0, 0].log_softmax(-1)
                    expected[at - i].append(-law[tokens[at + 1]])
    assert_losses(losses, expected, joint.cfg)


def test_heads_read_the_true_tokens_where_the_target_reads_a_mask(data: list[Utterance]) -> None:
    trainee = Trainee(TextToSemantic(SHAPE))
    batch = collate(data, trainee.model.start_id, trainee.model.eos_id)
    views: list[View] = []
    trainee(batch, torch.ones_like(batch.tokens, dtype=torch.bool), None, None, lambda view: views.append(view) or {})
    assert torch.equal(views[0].embedded, trainee.model.embed(batch.tokens))


@pytest.mark.parametrize("name", HEADS)
def test_a_run_goes_on_where_it_stopped(name: str, data: list[Utterance], tmp_path: Path) -> None:
    cfg = replace(SETTINGS, joint=name, joint_warmup=0.5)
    run(data, replace(cfg, steps=3), tmp_path)
    begin = load_checkpoint(tmp_path / "checkpoint.pt")
    run(data, replace(cfg, steps=6), tmp_path)
    state, plain = load_checkpoint(tmp_path / "checkpoint.pt"), by_hand(data, replace(cfg, steps=6), begin)
    assert state["step"] == 6
    assert_same(state["trainee"], plain["trainee"])
    assert_same(state["ema"], plain["ema"])
    assert_same(state["joint"]["heads"], plain["heads"])
    assert_same(state["joint"]["ema"], plain["heads_ema"])
    before = load_checkpoint(tmp_path / "checkpoint.pt")
    run(data, replace(cfg, steps=6), tmp_path)
    assert_same(load_checkpoint(tmp_path / "checkpoint.pt")["joint"]["heads"], before["joint"]["heads"])


@pytest.mark.parametrize("name", HEADS)
def test_heads_learn_and_are_exported_beside_the_target(name: str, data: list[Utterance], tmp_path: Path) -> None:
    cfg = replace(SETTINGS, joint=name, steps=40, warmup=5, lr=3e-3, ema=0.5, joint_warmup=0.2)
    run(data, cfg, tmp_path)
    first, last = (json.loads(line) for line in (tmp_path / "train.log").read_text().splitlines())
    for k in (1, 2, 3):
        assert last[f"joint_{k}"] < first[f"joint_{k}"] - 0.1
        assert f"train_joint_{k}" in last
    _, target = load_export(tmp_path / "export", "t2s")
    assert target.keys() == TextToSemantic(SHAPE).state_dict().keys()
    about, weights = load_export(tmp_path / "export_joint", name)
    heads = (
        MedusaHeads(MedusaConfig.from_dict(about[name]))
        if name == "medusa"
        else DraftDecoder(DraftConfig.from_dict(about[name]), SHAPE)
    )
    heads.load_state_dict(weights)
    assert about["step"] == 40
    averaged = load_checkpoint(tmp_path / "checkpoint.pt")["joint"]["ema"]
    assert all(torch.equal(weights[k], v.half()) for k, v in averaged.items())


def test_utterances_too_short_for_a_head_give_no_nan() -> None:
    short = [Utterance([5, 1, 6], np.array([3]), None, "a")]
    for name in HEADS:
        _, _, losses = built(name, short)
        assert losses["joint_3"].item() == 0
        assert math.isfinite(losses["joint"].item())


def test_what_cannot_be_is_refused(data: list[Utterance], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none, medusa or prophet"):
        T2STraining(joint="eagle")
    for wrong in (
        {"joint_steps": 0},
        {"joint_steps": True},
        {"joint_weight": 0.0},
        {"joint_decay": 1.5},
        {"joint_warmup": -0.1},
    ):
        with pytest.raises(ConfigError, match="joint_"):
            T2STraining(**wrong)  # type: ignore[arg-type]
    run(data, replace(SETTINGS, joint="medusa"), tmp_path)
    for other in ({"joint": "prophet"}, {"joint": "none"}, {"joint": "medusa", "joint_steps": 2}):
        with pytest.raises(ConfigError, match="another folder"):
            run(data, replace(SETTINGS, **other), tmp_path)  # type: ignore[arg-type]
