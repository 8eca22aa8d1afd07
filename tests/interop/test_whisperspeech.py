"""WhisperSpeech checkpoints: files as the package writes them, what they may leave out, and what is refused."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from whisperspeech_cases import CASES, Case, text_ids

from spear_spec.errors import BundleError
from spear_spec.interop import load_whisperspeech
from spear_spec.models.whisperspeech import WhisperSpeechT2S

Checkpoint = dict[str, Any]


@pytest.fixture
def held() -> Checkpoint:
    return Case.read("projected").checkpoint


def law(model: WhisperSpeechT2S, case: Case) -> torch.Tensor:
    with torch.inference_mode():
        memory = model.encode(text_ids(model, case.requests))
        tokens = torch.cat((torch.full((len(case.requests), 1), model.start_id), case.found["tokens"]), 1)
        return model(tokens, memory).logits


@pytest.mark.parametrize("name", CASES)
def test_a_file_as_the_package_saves_it(name: str, tmp_path: Path) -> None:
    case = Case.read(name)
    path = tmp_path / "t2s-micro-en+pl.model"
    torch.save(case.checkpoint, path)  # the form of the package's `save_model`
    model = load_whisperspeech(path)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert (law(model, case) - case.found["logits"]).abs().max() < 1e-5
    shape = case.checkpoint["config"]
    assert model.cfg.source_depth + model.cfg.target_depth == 2 * shape["depth"]
    assert (model.dim, model.max_tokens) == (shape["n_head"] * shape["head_width"], shape["stoks_len"])


def test_it_is_at_the_front_door() -> None:
    import spear_spec

    assert spear_spec.load_whisperspeech is load_whisperspeech


def test_the_padding_token_of_old_files(held: Checkpoint) -> None:
    """`padding_token_offset` is -1 where a file does not speak of it, and 0 where it says so."""
    codes = held["config"]["stoks_codes"]
    assert "padding_token_offset" not in held["tunables"]
    assert load_whisperspeech(held).eos_id == codes - 1
    held["tunables"]["padding_token_offset"] = 0
    new = load_whisperspeech(held)
    assert new.eos_id == codes and new.vocab_size == codes + 1
    special = held["state_dict"]["embeddings.embedding.special.weight"]
    assert torch.equal(new.embedding[new.start_id], special[0])


def test_what_a_file_leaves_out_is_the_packages_default() -> None:
    """Of the tunables that say something at inference `micro` has every default."""
    case = Case.read("micro")
    full = load_whisperspeech(case.checkpoint)
    bare = {**case.checkpoint, "tunables": {"padding_token_offset": 0}}
    assert torch.equal(law(load_whisperspeech(bare), case), law(full, case))


@pytest.mark.parametrize(
    ("name", "value"),
    [("query_mult", 2.0), ("output_mult", 0.1), ("causal_encoder", True), ("padding_token_offset", 0)],
)
def test_each_tunable_counts(held: Checkpoint, name: str, value: Any) -> None:
    case = Case.read("projected")
    before = law(load_whisperspeech(held), case)
    held["tunables"][name] = value
    assert (law(load_whisperspeech(held), case) - before).abs().max() > 1e-3


def test_without_a_speaking_rate(held: Checkpoint) -> None:
    """A model without `cps_input` is one whose rates say nothing."""
    silent = copy.deepcopy(held)
    silent["state_dict"]["cps_embeddings.weight"].zero_()
    held["tunables"]["cps_input"] = False
    del held["state_dict"]["cps_embeddings.weight"]
    case, model = Case.read("projected"), load_whisperspeech(held)
    assert model.cfg.rate_bins == 1
    assert torch.equal(law(model, case), law(load_whisperspeech(silent), case))


def test_dtypes_and_memory_of_its_own(held: Checkpoint) -> None:
    assert load_whisperspeech(held, dtype=torch.float64).dtype == torch.float64
    half = {**held, "state_dict": {name: value.half() for name, value in held["state_dict"].items()}}
    assert load_whisperspeech(half).dtype == torch.float16
    assert (law(load_whisperspeech(half, dtype=torch.float32), Case.read("projected")) - 0).isfinite().all()
    before = held["state_dict"]["lang_embeddings.weight"].clone()
    model = load_whisperspeech(held)
    with torch.no_grad():
        model.language_emb.weight.zero_()
    assert torch.equal(held["state_dict"]["lang_embeddings.weight"], before)


def test_no_global_setting_changes_what_is_loaded(held: Checkpoint) -> None:
    case = Case.read("projected")
    expected = law(load_whisperspeech(held), case)
    state = torch.random.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            model = load_whisperspeech(held)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(law(model, case), expected)
    assert torch.equal(torch.random.get_rng_state(), state)


def put(part: str, name: str, value: Any) -> Callable[[Checkpoint], Any]:
    def change(held: Checkpoint) -> Checkpoint:
        inner = dict(held[part])
        inner[name] = value(inner[name]) if callable(value) else value
        return {**held, part: inner}

    return change


def drop(part: str, name: str) -> Callable[[Checkpoint], Any]:
    return lambda held: {**held, part: {key: value for key, value in held[part].items() if key != name}}


LAYER = "decoder.layers.0"
DAMAGE: list[tuple[Callable[[Checkpoint], Any], str]] = [
    (lambda held: {}, "config, tunables and state_dict"),
    (lambda held: [1], "config, tunables and state_dict"),
    (lambda held: held["state_dict"], "config, tunables and state_dict"),
    (lambda held: {**held, "config": 3}, "config, tunables and state_dict"),
    (lambda held: {**held, "state_dict": {}}, "lang_embeddings.weight"),
    (put("config", "q_layers", 3), "config holds 'q_layers'"),
    (put("tunables", "rope", True), "tunables holds 'rope'"),
    (put("config", "depth", 10**30), "depth must be"),
    (put("config", "depth", 10**5), "positional_embedding|layers"),
    (put("config", "depth", True), "depth must be"),
    (put("config", "n_head", 2.0), "n_head must be"),
    (put("config", "head_width", "8"), "head_width must be"),
    (put("config", "stoks_codes", 10**6), "config says"),
    (put("config", "ttoks_len", 10**6), "config says"),
    (put("config", "n_head", 3), "config says"),
    (put("config", "stoks_width", 6), "config says"),
    (put("config", "ffn_mult", 3), "config says"),
    (put("config", "head_width", 1), "sines and cosines"),
    (put("tunables", "query_mult", float("nan")), "query_mult must be a finite"),
    (put("tunables", "output_mult", 0), "output_mult must be above 0"),
    (put("tunables", "cps_bins", 12.0), "cps_bins must be a whole"),
    (put("tunables", "padding_token_offset", -2), "padding_token_offset must be 0 or -1"),
    (put("tunables", "encoder_depth_ratio", 1.0), "encoder_depth_ratio must be"),
    (put("tunables", "causal_encoder", 1), "causal_encoder must be true"),
    (drop("state_dict", f"{LAYER}.attn.query.bias"), "query.bias is missing"),
    (drop("state_dict", "cps_embeddings.weight"), "cps_embeddings.weight is missing"),
    (put("state_dict", f"{LAYER}.attn.key.bias", torch.zeros(12)), "key.bias is unknown"),
    (put("state_dict", f"{LAYER}.mlp.0.weight", "x"), "is a str"),
    (put("state_dict", f"{LAYER}.mlp.0.weight", lambda v: v.long()), "not floating point"),
    (put("state_dict", f"{LAYER}.mlp.0.weight", lambda v: v * float("nan")), "NaN"),
    (put("state_dict", f"{LAYER}.mlp.0.weight", lambda v: v[:-1]), "config says"),
    (put("state_dict", "lang_embeddings.weight", lambda v: v[0]), "no matrix"),
]


@pytest.mark.parametrize(("damage", "named"), DAMAGE, ids=[f"{i}-{named[:20]}" for i, (_, named) in enumerate(DAMAGE)])
def test_damaged_and_foreign_checkpoints_are_refused_by_name(
    damage: Callable[[Checkpoint], Any], named: str, held: Checkpoint, tmp_path: Path
) -> None:
    broken = damage(held)
    torch.save(broken, tmp_path / "broken.model")
    for source in (broken, tmp_path / "broken.model"):
        with pytest.raises(BundleError, match=named) as caught:
            load_whisperspeech(source)
        assert "\n" not in str(caught.value) and len(str(caught.value)) <= 300


@pytest.mark.parametrize("content", ["empty", "text", "half"])
def test_files_that_are_no_checkpoint(content: str, held: Checkpoint, tmp_path: Path) -> None:
    path = tmp_path / "t2s.model"
    torch.save(held, path)
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "text": b"hello\n" * 50, "half": whole[: len(whole) // 2]}[content])
    with pytest.raises(BundleError, match="damaged"):
        load_whisperspeech(path)


def test_a_missing_file_and_what_is_never_unpickled(held: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such checkpoint file"):
        load_whisperspeech(tmp_path / "nothing.model")
    torch.save({**held, "tunables": argparse.Namespace(a=1)}, tmp_path / "foreign.model")
    with pytest.raises(BundleError, match="more than plain tensors"):
        load_whisperspeech(tmp_path / "foreign.model")
