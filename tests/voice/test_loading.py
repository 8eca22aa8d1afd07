"""Loading: no setting of the process has a say in it, it leaves nothing behind, and it works in threads."""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spear_spec.errors import ConfigError
from spear_spec.pipeline import TTS
from spear_spec.voice.blueprint import Blueprint
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.parts import load_parts, load_stage, load_target
from tests.voice.damage import read_all


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "float16": lambda: default_dtype(torch.float16),
    "meta": lambda: default_device("meta"),
    "inference": torch.inference_mode,
    "no grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def everything(tts: TTS) -> dict[str, Tensor]:
    """All tensors that a loaded voice holds, by name."""
    modules = {"target": tts.target, "stage": tts.stage.module, **{name: tts.drafts[name] for name in tts.drafts}}
    found = {
        f"{part}.{name}": tensor for part, module in modules.items() for name, tensor in module.state_dict().items()
    }
    return {**found, "window": tts.stage.module.head.window, "centroids": tts.bundle.centroids()}


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_of_the_process_has_a_say(original: Path, setting: str) -> None:
    expected = everything(read_all(original))
    chance = torch.get_rng_state()
    with SETTINGS[setting]():
        tts = read_all(original)
        found = everything(tts)
    assert torch.equal(torch.get_rng_state(), chance)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32, name
        assert tensor.device.type == "cpu", name
        assert not tensor.is_inference() and not tensor.requires_grad, name
        assert torch.equal(tensor, expected[name]), name
    for module in (tts.target, tts.stage.module, *tts.drafts.values()):
        assert not module.training


def test_a_voice_loaded_inside_inference_mode_can_be_trained_outside(original: Path) -> None:
    with torch.inference_mode():
        t2s = load_target(open_voice(original))
    t2s.requires_grad_(True)
    t2s.encode(torch.tensor([t2s.text([1, 2])])).hidden.sum().backward()
    assert t2s.start.grad is None and t2s.text_emb.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(original: Path, dtype: torch.dtype) -> None:
    bundle = open_voice(original)
    _, t2s, stage = load_parts(bundle, dtype=dtype)
    assert {tensor.dtype for tensor in t2s.state_dict().values()} == {dtype}
    assert {tensor.dtype for tensor in stage.module.state_dict().values()} == {torch.float32}
    stored = bundle.tensors("t2s")
    for name, tensor in t2s.state_dict().items():
        assert torch.equal(tensor, stored[name].to(dtype)), name


def test_weights_have_memory_of_their_own(original: Path) -> None:
    bundle = open_voice(original)
    modules = [load_target(bundle), load_target(bundle), load_stage(bundle).module, load_stage(bundle).module]
    tensors = [tensor for module in modules for tensor in module.parameters()]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)


def test_a_blueprint_is_of_its_thread_alone() -> None:
    inside, done = threading.Event(), threading.Event()

    def build() -> nn.Linear:
        with Blueprint():
            layer = nn.Linear(3, 3)
            inside.set()
            assert done.wait(60)
            return layer

    with ThreadPoolExecutor() as pool:
        other = pool.submit(build)
        assert inside.wait(60)
        mine = nn.Linear(30, 30)
        done.set()
        assert other.result().weight.is_meta
    assert not mine.weight.is_meta
    assert 0.5 / 30**0.5 < mine.weight.abs().mean() * 1 < 0.6 / 30**0.5  # uniform in +-1 / sqrt(30): mean .5 of that


def test_a_blueprint_takes_nothing_and_draws_nothing() -> None:
    chance = torch.get_rng_state()
    with Blueprint():
        vast = nn.Linear(10**6, 10**6)
        drawn = nn.Parameter(torch.randn(10**6, 10**6, generator=None) * 3.0)
        nn.init.trunc_normal_(drawn)
        nn.Embedding(10**7, 10**5)
    assert vast.weight.shape == (10**6, 10**6) and drawn.shape == (10**6, 10**6)
    assert torch.equal(torch.get_rng_state(), chance)


def test_a_buffer_that_nobody_makes_is_named(original: Path) -> None:
    class Forgetful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.centroids = nn.Parameter(torch.randn(16, 8))
            self.register_buffer("table", torch.ones(3), persistent=False)

    with pytest.raises(ConfigError, match="buffer 'table' is not stored"):
        open_voice(original).build(Forgetful, "centroids")


def test_threads_load_and_speak_at_once(original: Path) -> None:
    text = "Yes."
    tts = TTS.load(original, device="cpu")
    expected = tts.synthesize(text, max_tokens=12).samples
    shipped = {name: getattr(nn.init, name) for name in dir(nn.init)}
    ready = threading.Barrier(9)

    def speak(_: int) -> Any:
        ready.wait(60)
        return TTS.load(original, device="cpu").synthesize(text, max_tokens=12).samples

    with ThreadPoolExecutor(8) as pool:
        spoken = [pool.submit(speak, number) for number in range(8)]
        ready.wait(60)
        layers = []
        while not all(future.done() for future in spoken):
            layers.append(nn.Linear(64, 64))
        for future in spoken:
            assert (future.result() == expected).all()
    layers.append(nn.Linear(64, 64))
    assert {name: getattr(nn.init, name) for name in dir(nn.init)} == shipped
    for layer in layers:
        assert not layer.weight.is_meta
        assert 0.4 / 8 < float(layer.weight.detach().abs().mean()) < 0.6 / 8


def test_a_voice_that_is_dropped_is_gone(original: Path) -> None:
    def life() -> list[weakref.ref[Any]]:
        tts = TTS.load(original, device="cpu")
        tts.synthesize("Yes.", max_tokens=4)
        return [
            weakref.ref(tts.target),
            weakref.ref(tts.stage.module),
            *(weakref.ref(tts.drafts[name]) for name in tts.drafts),
        ]

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    life()
    before = tensors()
    for _ in range(4):
        dropped = life()
        gc.collect()
        assert [ref() for ref in dropped] == [None] * len(dropped)
    assert tensors() == before
