"""Parity with spear-tts-pytorch 0.4.8: golden files that `tests/golden/make_golden.py` made with the real package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from spear_spec.interop import load_spear_tts
from spear_spec.models.memory import Memory
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.cache import KVCache

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = ("plain", "grouped", "early_exit")
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
precision = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])


class Case:
    """A golden file and our model with its weights."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
            self.found: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.shape: dict[str, Any] = json.loads(file.metadata()["shape"])
            self.stride = int(file.metadata()["stride"])
        weights = {
            key.removeprefix("weights/"): value for key, value in self.found.items() if key.startswith("weights/")
        }
        self.model: TextToSemantic = load_spear_tts(
            weights, early_exit_layer=self.shape.get("target_early_exit_layer"), dtype=dtype
        )
        text = torch.nn.functional.pad(self.found["text"], (0, 1))
        text[torch.arange(len(text)), (self.found["text"] != 0).sum(-1)] = self.model.text_eos_id
        self.memory: Memory = self.model.encode(text)
        self.tokens = torch.cat((torch.full((len(text), 1), self.model.start_id), self.found["tokens"]), 1)

    def stepped(self, chunks: list[int], memory: Memory | None = None) -> Tensor:
        """Logits through the cache, written in chunks of these lengths."""
        cache = self.model.new_cache(len(self.tokens), capacity=4)  # has to grow
        parts = self.tokens[:, : sum(chunks)].split(chunks, dim=1)
        return torch.cat([self.model(part, memory or self.memory, cache).logits for part in parts], dim=1)


def error(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    return (got.double() - want.double()).abs().max().item()


@pytest.fixture(autouse=True)
def _no_grad() -> Any:
    with torch.no_grad():
        yield


@precision
@pytest.mark.parametrize("name", CASES)
def test_uncached_forward_equals_the_peer(name: str, dtype: torch.dtype) -> None:
    case = Case(name, dtype)
    got = case.model(case.tokens, case.memory).logits
    assert error(got, case.found["logits"]) < TOLERANCE[dtype]
    if dtype == torch.float32:
        assert error(got[:, :: case.stride], case.found["logits_f32"]) < TOLERANCE[dtype]
    assert error(case.model(case.tokens[:, :2], case.memory).logits, case.found["logits_one"]) < TOLERANCE[dtype]


@precision
@pytest.mark.parametrize("chunks", [[1] * 201, [3, 1, 1, 64, 7, 100, 25]], ids=["steps", "chunks"])
@pytest.mark.parametrize("name", CASES)
def test_cached_steps_equal_the_peer(name: str, chunks: list[int], dtype: torch.dtype) -> None:
    case = Case(name, dtype)
    got = case.stepped(chunks)
    if dtype == torch.float64:
        assert error(got, case.found["logits"]) < TOLERANCE[dtype]
    else:
        assert error(got[:, :: case.stride], case.found["logits_f32"]) < TOLERANCE[dtype]


@precision
@pytest.mark.parametrize("name", CASES)
def test_without_text_equals_the_peers_dropped_condition(name: str, dtype: torch.dtype) -> None:
    case = Case(name, dtype)
    got = case.model(case.tokens, case.memory.unconditional()).logits[:, :: case.stride]
    assert error(got, case.found["null"]) < TOLERANCE[dtype]


@precision
@pytest.mark.parametrize("name", CASES)
def test_guidance_equals_the_logits_inside_the_peers_generate(name: str, dtype: torch.dtype) -> None:
    case = Case(name, dtype)
    want = case.found["guided" if dtype == torch.float64 else "guided_f32"]
    steps = [1] * want.shape[1]
    with_text, without = case.stepped(steps), case.stepped(steps, case.memory.unconditional())
    assert error(without + 3.0 * (with_text - without), want) < TOLERANCE[dtype]


@precision
def test_early_exit_equals_the_peers_head(dtype: torch.dtype) -> None:
    case = Case("early_exit", dtype)
    layer = case.shape["target_early_exit_layer"]

    def early(tokens: torch.Tensor, cache: KVCache | None = None) -> torch.Tensor:
        assert case.model.early_exit is not None
        return case.model.early_exit(case.model(tokens, case.memory, cache, features=(layer,)).features[0])

    assert error(early(case.tokens), case.found["early"]) < TOLERANCE[dtype]
    cache = case.model.new_cache(len(case.tokens))
    steps = [early(case.tokens[:, i : i + 1], cache) for i in range(case.tokens.shape[1])]
    assert error(torch.cat(steps, 1), case.found["early"]) < TOLERANCE[dtype]


def test_rows_do_not_see_each_other() -> None:
    case = Case("grouped", torch.float64)
    for row, length in enumerate((case.found["text"] != 0).sum(-1).tolist()):
        text = torch.cat((case.found["text"][row, :length], torch.tensor([case.model.text_eos_id])))[None]
        alone = case.model(case.tokens[row : row + 1], case.model.encode(text)).logits
        assert error(alone, case.found["logits"][row : row + 1]) < 1e-9
