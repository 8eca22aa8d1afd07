"""audiolm-pytorch checkpoints: files as its trainers write them, and what is refused."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from audiolm_cases import Case

from spear_spec.errors import BundleError
from spear_spec.interop import load_audiolm_coarse, load_audiolm_fine

State = dict[str, Any]


@pytest.fixture
def state() -> State:
    return dict(Case.read("coarse").weights)


def test_a_file_as_the_trainer_saves_it_and_its_weights_alone(state: State, tmp_path: Path) -> None:
    path = tmp_path / "coarse.transformer.1000.pt"
    torch.save({"model": state, "optim": {"state": {}, "param_groups": [{"lr": 3e-4}]}, "version": "2.4.0"}, path)
    one, two = load_audiolm_coarse(path), load_audiolm_coarse(state)
    assert not one.training and not any(p.requires_grad for p in one.parameters())
    assert all(torch.equal(one.state_dict()[key], value) for key, value in two.state_dict().items())
    cfg = one.cfg
    assert (cfg.width, cfg.depth, cfg.heads, cfg.dim_head, cfg.streams) == (16, 3, 3, 6, 4)
    assert (cfg.semantic, cfg.quantizers, cfg.codebook, one.vocab_size, one.eos_id) == (11, 3, 9, 28, 27)
    assert load_audiolm_coarse(state, dtype=torch.float64).dtype == torch.float64
    assert not load_audiolm_coarse(state, unique=False).cfg.unique


def test_what_the_weights_do_not_tell_counts(state: State) -> None:
    tokens = torch.tensor([[27, 1, 10]])
    laws = []
    for value in (True, False):
        model = load_audiolm_coarse(state, value_residual=value)
        tokens[0, 0] = model.start_id
        with torch.inference_mode():
            laws.append(model(tokens, model.encode(torch.tensor([[1, 2, 3]]))).logits)
    assert (laws[0] - laws[1]).abs().max() > 1e-3


def with_condition(state: State) -> None:
    state["transformer.layers.0.1.branch.to_q.weight"] = torch.zeros(18, 16)


def with_nan(state: State) -> None:
    state["transformer.norm.gamma"] = torch.full((16,), torch.nan)


BAD: dict[str, tuple[Callable[[State], object], str]] = {
    "conditioned": (with_condition, "conditioned on text or audio"),
    "not finite": (with_nan, "transformer.norm.gamma holds NaN"),
    "unknown": (lambda s: s.update(more=torch.zeros(1)), "more is unknown"),
    "missing": (lambda s: s.pop("transformer.layers.1.2.branch.3.gamma"), "3.gamma is missing"),
    "a layer missing": (lambda s: s.pop("transformer.layers.0.0.branch.to_kv.weight"), "to_kv.weight is missing"),
    "another shape": (lambda s: s.update(coarse_start_token=torch.zeros(3)), "coarse_start_token has shape"),
    "integers": (lambda s: s.update(coarse_start_token=torch.zeros(16, dtype=torch.int64)), "not floating point"),
    "no tensor": (lambda s: s.update(coarse_start_token=3), "no tensor"),
    "nothing": (lambda s: s.clear(), "is it the right model"),
}


@pytest.mark.parametrize("name", BAD)
def test_states_that_are_refused(state: State, name: str) -> None:
    spoil, message = BAD[name]
    spoil(state)
    with pytest.raises(BundleError, match=message):
        load_audiolm_coarse(state)


def test_one_is_not_the_other(state: State) -> None:
    with pytest.raises(BundleError, match="fine_logit_weights is missing"):
        load_audiolm_fine(state)
    with pytest.raises(BundleError, match=r"semantic_embedding\.weight is missing"):
        load_audiolm_coarse(Case.read("fine").weights)


def test_files_that_are_refused(tmp_path: Path, state: State) -> None:
    with pytest.raises(BundleError, match="no such checkpoint"):
        load_audiolm_coarse(tmp_path / "none.pt")
    torch.save({"model": state, "args": argparse.Namespace()}, tmp_path / "objects.pt")
    with pytest.raises(BundleError, match="more than plain tensors"):
        load_audiolm_coarse(tmp_path / "objects.pt")
    whole = tmp_path / "whole.pt"
    torch.save({"model": state}, whole)
    (tmp_path / "half.pt").write_bytes(whole.read_bytes()[:3000])
    with pytest.raises(BundleError, match="damaged"):
        load_audiolm_coarse(tmp_path / "half.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BundleError, match="weights expected"):
        load_audiolm_coarse(tmp_path / "list.pt")
