"""spear-tts-pytorch checkpoints: round trip, and one clear line for whatever is wrong with them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from spear_spec.config import T2SConfig
from spear_spec.errors import BundleError
from spear_spec.interop import config_from_state_dict, load_spear_tts, to_spear_tts_state_dict
from spear_spec.models.spear_tts import TextToSemantic

GOLDEN = Path(__file__).parents[1] / "golden"
State = dict[str, Tensor]


def peer_state(name: str) -> State:
    """A state dict of the real package, as it stands in the golden file."""
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    return {key.removeprefix("weights/"): value for key, value in tensors.items() if key.startswith("weights/")}


@pytest.fixture
def state() -> State:
    return peer_state("grouped")


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("plain", T2SConfig(9, 5, dim=12, source_depth=2, target_depth=2, heads=2, dim_head=8, ff_mult=2)),
        (
            "grouped",
            T2SConfig(9, 5, dim=12, source_depth=1, target_depth=2, heads=4, dim_head=6, kv_heads=2, ff_mult=2),
        ),
        (
            "early_exit",
            T2SConfig(9, 5, dim=12, source_depth=1, target_depth=3, heads=2, dim_head=8, ff_mult=1, early_exit_layer=2),
        ),
    ],
)
def test_the_shape_is_read_off_the_tensors(name: str, want: T2SConfig) -> None:
    assert config_from_state_dict(peer_state(name), early_exit_layer=want.early_exit_layer) == want


@pytest.mark.parametrize("name", ["plain", "grouped", "early_exit"])
def test_what_is_read_is_written_back(name: str) -> None:
    want = peer_state(name)
    layer = 2 if name == "early_exit" else None
    got = to_spear_tts_state_dict(load_spear_tts(want, early_exit_layer=layer))
    for key, value in want.items():
        assert torch.equal(got.pop(key), value), key
    tied = {
        "token_emb.speech.weight": "semantic_token_emb.weight",
        "to_logits.speech.weight": "semantic_token_emb.weight",
        "to_logits.text.weight": "token_emb.text.weight",
    }
    assert set(got) == set(tied)
    assert all(torch.equal(value, want[tied[key]]) for key, value in got.items())


def test_our_own_weights_come_back() -> None:
    model = TextToSemantic(T2SConfig(5, 6, dim=8, source_depth=1, target_depth=1, heads=2, dim_head=4))
    back = load_spear_tts(to_spear_tts_state_dict(model))
    assert not back.training
    assert back.cfg == model.cfg
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def test_the_loaded_model_does_not_share_memory_with_the_checkpoint(state: State) -> None:
    model = load_spear_tts(state)
    before = state["start_token.speech"].clone()
    with torch.no_grad():
        model.start.zero_()
    assert torch.equal(state["start_token.speech"], before)


@pytest.mark.parametrize(
    "pack",
    [
        lambda state: state,
        lambda state: {"model": state, "optim": {"state": {}}, "scheduler": {"last_epoch": 3}},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {**state, "wav2vec.model.weight": torch.zeros(2)},
    ],
    ids=["plain", "trainer", "prefix", "wav2vec"],
)
def test_files_of_every_shape_the_package_writes(pack: Callable[[State], Any], state: State, tmp_path: Path) -> None:
    torch.save(pack(state), tmp_path / "checkpoint.pt")
    model = load_spear_tts(tmp_path / "checkpoint.pt")
    assert torch.equal(model.start, state["start_token.speech"])


def test_safetensors_and_element_types(state: State, tmp_path: Path) -> None:
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "c.safetensors")
    assert load_spear_tts(tmp_path / "c.safetensors").dtype == torch.float16
    assert load_spear_tts(tmp_path / "c.safetensors", dtype=torch.float64).dtype == torch.float64


def drop(key: str) -> Callable[[State], Any]:
    return lambda state: {k: v for k, v in state.items() if k != key}


def put(key: str, value: Any) -> Callable[[State], Any]:
    return lambda state: {**state, key: value(state[key]) if callable(value) else value}


LAYER = "target_transformer.layers.0"
DAMAGE: list[tuple[Callable[[State], Any], str]] = [
    (lambda state: {}, "target_transformer"),
    (lambda state: {"weight": torch.zeros(3)}, "target_transformer"),
    (lambda state: [1, 2], "list"),
    (lambda state: {"model": [1]}, "target_transformer"),
    (drop("start_token.text"), "start_token.text is missing"),
    (drop("semantic_token_emb.weight"), "semantic_token_emb.weight is missing"),
    (drop(f"{LAYER}.0.rotary_emb.freqs"), "freqs is missing"),
    (drop(f"{LAYER}.1.null_kv"), "null_kv is missing"),
    (drop(f"{LAYER}.0.to_kv.0.weight"), "to_kv"),
    (lambda state: {k: v for k, v in state.items() if ".layers.0." not in k or not k.startswith("target")}, "missing"),
    (
        lambda state: {k: v for k, v in state.items() if not k.startswith("source_transformer.layers.")},
        "source_transformer",
    ),
    (put("colour", torch.zeros(1)), "colour"),
    (put("start_token.speech", "text"), "str"),
    (put("start_token.speech", lambda v: v.long()), "floating"),
    (put("start_token.speech", lambda v: v[:-1]), "shape"),
    (put("start_token.speech", lambda v: v * float("nan")), "NaN"),
    (put(f"{LAYER}.2.4.weight", lambda v: v[:, :-1]), "feed-forward"),
    (put(f"{LAYER}.0.to_q.0.weight", lambda v: v[:-1]), "head width"),
    (put(f"{LAYER}.0.to_kv.0.weight", lambda v: v.repeat(2, 1)[:36]), "multiple"),
    (put(f"{LAYER}.0.to_kv.0.weight", lambda v: v[:, :-1]), "to_kv"),
    (put(f"{LAYER}.0.rotary_emb.freqs", lambda v: v * 1.1), "base 10000"),
    (put("source_transformer.layers.0.0.rotary_emb.freqs", lambda v: v[:-1]), "base 10000"),
    (put("semantic_token_emb.weight", lambda v: v[0]), "dimensions"),
    (put("to_logits.text.weight", lambda state: None), "NoneType"),
    (put("to_logits.text.weight", torch.zeros(10, 12)), "differ"),
]


@pytest.mark.parametrize(("damage", "named"), DAMAGE, ids=[f"{i}-{named}" for i, (_, named) in enumerate(DAMAGE)])
def test_damaged_and_foreign_checkpoints_are_refused_by_name(
    damage: Callable[[State], Any], named: str, state: State, tmp_path: Path
) -> None:
    broken = damage({**state, "to_logits.text.weight": state["token_emb.text.weight"]})
    torch.save(broken, tmp_path / "broken.pt")
    for source in (broken, tmp_path / "broken.pt"):
        with pytest.raises(BundleError, match=named) as caught:
            load_spear_tts(source)
        assert "\n" not in str(caught.value)


def test_the_early_exit_layer_must_be_told() -> None:
    state = peer_state("early_exit")
    with pytest.raises(BundleError, match="pass early_exit_layer"):
        load_spear_tts(state)
    with pytest.raises(BundleError, match="1 to 3"):
        load_spear_tts(state, early_exit_layer=9)
    with pytest.raises(BundleError, match="leave early_exit_layer out"):
        load_spear_tts(peer_state("plain"), early_exit_layer=1)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("content", ["empty", "text", "half", "flipped"])
def test_files_that_are_no_checkpoint(content: str, suffix: str, state: State, tmp_path: Path) -> None:
    path = tmp_path / f"checkpoint.{suffix}"
    save_file(state, path) if suffix == "safetensors" else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes(
        {
            "empty": b"",
            "text": b"hello\n" * 50,
            "half": whole[: len(whole) // 2],
            "flipped": bytes(255 - byte for byte in whole[:600]) + whole[600:],
        }[content]
    )
    with pytest.raises(BundleError, match="checkpoint"):
        load_spear_tts(path)


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.pt", tmp_path):
        with pytest.raises(BundleError, match="no such checkpoint file"):
            load_spear_tts(path)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save({"model": argparse.Namespace(a=1)}, tmp_path / "foreign.pt")
    with pytest.raises(BundleError, match="more than plain tensors"):
        load_spear_tts(tmp_path / "foreign.pt")
