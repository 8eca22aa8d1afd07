"""The target's step in C against the same model in float64 on torch, without a cache where that can be."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.config import T2SConfig
from spear_spec.decoding.request import encode
from spear_spec.errors import ContractError
from spear_spec.exactness.oracles import TEXTS, texts
from spear_spec.kernels import native
from spear_spec.kernels.matrix import Matrix
from spear_spec.kernels.step import NativeStack
from spear_spec.kernels.structures import FLOATS, HALVES
from spear_spec.models.memory import DecoderOutput, Memory, Skip
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.cache import KVCache
from spear_spec.nn.tree import Tree

# dim, heads, dim_head, kv_heads; the last two are the shipped voice's, and that with two heads that share a key head
SIZES = [(20, 3, 6, None), (33, 4, 10, 2), (256, 4, 64, None), (256, 4, 64, 2)]
BOUND = 1e-5  # of the largest entry


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)


def models(size: tuple[int, int, int, int | None] = SIZES[2], *, halves: bool = False) -> tuple[TextToSemantic, Any]:
    """A target with gains and biases of its own, and the same in float64."""
    dim, heads, dim_head, kv_heads = size
    torch.manual_seed(dim)
    cfg = T2SConfig(
        num_text_token_ids=7,
        num_semantic_token_ids=40,
        dim=dim,
        source_depth=1,
        target_depth=3,
        heads=heads,
        dim_head=dim_head,
        kv_heads=kv_heads,
    )
    model = TextToSemantic(cfg).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_((0.2 if weight.ndim == 1 else 0.01) * torch.randn_like(weight))
            if halves:
                weight.copy_(weight.half())
    return model, copy.deepcopy(model).double()


def both(model: TextToSemantic, wide: TextToSemantic, ids: Tensor) -> tuple[Memory, KVCache, Memory, KVCache]:
    memory, deep = model.encode(ids), wide.encode(ids)
    cache, slow = model.new_cache(memory.batch, 3), wide.new_cache(memory.batch, 3)
    assert cache.native is not None and slow.native is None
    return memory, cache, deep, slow


def differ(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def near(found: DecoderOutput, expected: DecoderOutput) -> None:
    pairs = [(found.logits, expected.logits), (found.hidden, expected.hidden)]
    assert len(found.features) == len(expected.features)
    for one, two in [*pairs, *zip(found.features, expected.features)]:
        assert one.shape == two.shape and one.dtype is torch.float32
        assert differ(one, two) < BOUND


@pytest.mark.parametrize("halves", [False, True], ids=["floats", "halves"])
@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("batch", [1, 4])
@torch.inference_mode()
def test_steps_equal_float64(size: tuple[int, int, int, int | None], batch: int, masked: bool, halves: bool) -> None:
    """Ragged rows of 1 to 30 tokens a call; the cache is cropped, grows, loses rows and is joined."""
    model, wide = models(size, halves=halves)
    ids = texts(batch) if batch > 1 and masked else torch.tensor([[*TEXTS[0], 0, 0] if masked else TEXTS[0]] * batch)
    memory, cache, deep, slow = both(model, wide, ids)
    assert (memory.cross_mask is not None) == masked
    for turn, length in enumerate((1, 1, 3, 11, 1, 13, 2, 5, 1, 30)):
        rows = cache.batch
        tokens = torch.randint(0, 42, (rows, length))
        near(
            model(tokens, memory, cache, features=(1, 3)),
            wide(tokens, deep, slow, features=(1, 3)),
        )
        assert cache.lengths == slow.lengths
        kept = [max(0, n - int(torch.randint(0, 3, ()))) for n in cache.lengths] if turn % 2 else cache.lengths
        for state in (cache, slow):
            state.crop(kept)
        if turn == 4 and batch > 1:
            for state in (cache, slow):
                state.select([1, 3])
            memory, deep = memory.select([1, 3]), deep.select([1, 3])
        if turn == 6 and batch > 1:
            more = both(model, wide, ids[:1])
            memory, deep = memory.trimmed().join(more[0]), deep.trimmed().join(more[2])
            cache.join(more[1])
            slow.join(more[3])
    assert cache.capacity > 3


@torch.inference_mode()
def test_the_cache_holds_what_torch_would_write() -> None:
    model, wide = models()
    memory, cache, deep, slow = both(model, wide, texts(3))
    tokens = torch.randint(0, 42, (3, 6))
    model(tokens, memory, cache)
    wide(tokens, deep, slow)
    assert differ(cache.k[:, :, :, :6], slow.k[:, :, :, :6]) < BOUND
    assert differ(cache.v[:, :, :, :6], slow.v[:, :, :, :6]) < BOUND


@pytest.mark.parametrize("batch", [1, 3])
@torch.inference_mode()
def test_trees_equal_float64(batch: int) -> None:
    """Behind prefixes of different lengths; nodes see their ancestors alone, in two parts and at once."""
    model, wide = models(SIZES[1])
    memory, cache, deep, slow = both(model, wide, texts(batch))
    prefix = torch.randint(0, 40, (batch, 5))
    model(prefix, memory, cache)
    wide(prefix, deep, slow)
    kept = [5, 2, 3][:batch]
    for state in (cache, slow):
        state.crop(kept)
    parents = [[-1, -1, 0, 0, 1, 1], [-1, -1, 1, 0, 1, 0], [-1, -1, 1, 1, 1, 1]][:batch]
    whole = Tree.from_lists(parents)
    nodes = torch.randint(0, 40, (batch, 6))
    near(model(nodes, memory, cache, tree=whole), wide(nodes, deep, slow, tree=whole))
    for state in (cache, slow):
        state.crop(kept)
    for begin, end in ((0, 2), (2, 6)):
        tree = Tree(whole.mask[:, :end, :end], whole.depth[:, :end])
        tokens = nodes[:, begin:end]
        near(model(tokens, memory, cache, tree=tree), wide(tokens, deep, slow, tree=tree))


@torch.inference_mode()
def test_parts_of_layers_equal_float64() -> None:
    """The first layers alone, the others on top of them, sublayers left out."""
    model, wide = models()
    memory, cache, deep, slow = both(model, wide, texts(2))
    tokens = torch.randint(0, 40, (2, 7))
    base = [0, 0]
    low, high = (m.first_layers(tokens[:, :4], e, c, 2) for m, e, c in ((model, memory, cache), (wide, deep, slow)))
    assert differ(low, high) < BOUND and cache.lengths == [4, 4]
    for state in (cache, slow):
        state.crop(base)
    near(
        model(tokens, memory, cache, below=(2, low), features=(2, 3)),
        wide(tokens, deep, slow, below=(2, high), features=(2, 3)),
    )
    assert cache.lengths == [7, 7]
    for state in (cache, slow):
        state.crop(base)
    skip = Skip(frozenset({0}), frozenset({1, 2}))
    near(model(tokens, memory, cache, skip=skip), wide(tokens, deep, slow, skip=skip))


@torch.inference_mode()
def test_one_token_a_call_gives_the_bits_of_many() -> None:
    """So the autoregressive loop and verification see the same numbers; alone and in a batch as well."""
    for size, halves in itertools.product(SIZES, (False, True)):
        model, _ = models(size, halves=halves)
        ids = texts(3)
        memory = model.encode(ids)
        tokens = torch.randint(0, 40, (3, 29))
        at_once = model(tokens, memory, model.new_cache(3)).logits
        cache = model.new_cache(3)
        singles = [model(tokens[:, i : i + 1], memory, cache).logits for i in range(29)]
        assert torch.equal(torch.cat(singles, 1), at_once)
        for length in (2, 5, 11):
            cache = model.new_cache(3)
            parts = [model(tokens[:, i : i + length], memory, cache).logits for i in range(0, 29, length)]
            assert torch.equal(torch.cat(parts, 1), at_once)
        for row in range(3):
            single = model(tokens[row : row + 1], memory.select([row]), model.new_cache(1)).logits
            assert torch.equal(single[0], at_once[row])


@pytest.mark.parametrize("halves", [False, True], ids=["floats", "halves"])
@torch.inference_mode()
def test_threads_change_no_bit(halves: bool) -> None:
    model, _ = models(halves=halves)
    memory, tokens = model.encode(texts(3)), torch.randint(0, 40, (3, 60))
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(model(tokens, memory, model.new_cache(3)).logits)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@torch.inference_mode()
def test_halves_are_taken_where_they_are_exact() -> None:
    """And only there: one weight between two halves keeps its matrix in 32 bits."""
    weight = torch.randn(40, 33).half().float()
    assert Matrix(weight).struct.format == HALVES
    weight[39, 32] = 6e-8 + 2.0**-14  # below what a half resolves there
    assert Matrix(weight).struct.format == FLOATS
    assert Matrix(torch.full((1, 1), 1e6)).struct.format == FLOATS  # a half would be infinite
    assert Matrix(torch.full((1, 1), 2.0**-24)).struct.format == HALVES  # the smallest half


@torch.inference_mode()
def test_small_halves_are_read_exactly() -> None:
    """Subnormal ones too, in every vector of a strip."""
    model, wide = models(SIZES[0], halves=True)
    with torch.no_grad():
        for one, two in zip(model.decoder.parameters(), wide.decoder.parameters()):
            one.copy_((one * 2.0**-16).half())
            two.copy_(one)
    memory, cache, deep, slow = both(model, wide, texts(1))
    tokens = torch.randint(0, 40, (1, 3))
    near(model(tokens, memory, cache), wide(tokens, deep, slow))


def test_weights_that_changed_are_packed_again() -> None:
    model, _ = models(SIZES[0])
    memory = encode(model, [TEXTS[0][:-1]])
    tokens = torch.randint(0, 40, (1, 3))
    with torch.inference_mode():
        before = model(tokens, memory, model.new_cache(1)).logits
    with torch.no_grad():
        model.decoder[1].ff.up.weight.mul_(1.5)
    with torch.inference_mode():
        after = model(tokens, memory, model.new_cache(1)).logits
        plain = model.new_cache(1)
        plain.native = None
        assert differ(after, model(tokens, memory, plain).logits) < BOUND
    assert not torch.allclose(before, after)


def test_where_torch_runs_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other dtypes, gradients, autocast, no kernel."""
    model, wide = models(SIZES[0])
    memory = model.encode(texts(1)[:1])
    cache = model.new_cache(1)

    def fail(*_: object) -> None:
        raise AssertionError("the kernel was called")

    cache.native.run = fail
    tokens = torch.randint(0, 40, (1, 2))
    assert model(tokens, memory, cache).logits.requires_grad
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        model(tokens, memory, cache)
    with torch.no_grad(), pytest.raises(AssertionError):
        model(tokens, memory, cache)
    assert wide.new_cache(1).native is None
    assert copy.deepcopy(model).bfloat16().new_cache(1).native is None
    monkeypatch.setenv(native.SWITCH, "0")
    assert model.new_cache(1).native is None


@torch.inference_mode()
def test_nan_stays_nan_in_its_own_row() -> None:
    model, _ = models(SIZES[0])
    memory, cache = model.encode(texts(2)), model.new_cache(2)
    model(torch.tensor([[1], [2]]), memory, cache)
    cache.k[0, 1, 0, 0, 2] = torch.nan
    out = model(torch.tensor([[1], [2]]), memory, cache).logits
    assert out[1].isnan().all() and out[0].isfinite().all()


@torch.inference_mode()
def test_what_does_not_fit_is_refused() -> None:
    model, _ = models(SIZES[0])
    memory, cache = model.encode(texts(2)), model.new_cache(2, 8)
    step, angles = cache.native, model.positions(64)
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    fine = (tokens, memory.cross, memory.cross_mask, cache, angles, 0, 3)

    def refused(match: str, **change: Any) -> None:
        names = ("entering", "cross", "cross_mask", "cache", "angles", "first", "last")
        with pytest.raises(ContractError, match=match):
            step.run(**{**dict(zip(names, fine)), **change})

    step.run(*fine)
    refused("token id", entering=torch.full((2, 3), 42))
    refused("token id", entering=torch.full((2, 3), -1))
    refused("tokens", entering=tokens.int())
    refused("do not fit", entering=torch.zeros(2, 9, dtype=torch.int64))
    refused("do not hold", entering=torch.zeros(3, 1, dtype=torch.int64))
    refused("layers need the text", cross=memory.cross[:2])
    refused("text", cross=[(k[:1], v[:1]) for k, v in memory.cross])
    refused("mask of the text", cross_mask=torch.ones(2, 1, 1, 3, dtype=torch.bool))
    refused("rotations", angles=angles.to(torch.complex128))
    refused("residual", entering=torch.zeros(2, 3, 20, dtype=torch.float64))
    tree = Tree.from_lists([[-1, 0, 1]] * 2)
    refused("tree", tree=Tree(tree.mask[:1], tree.depth[:1]))
    refused("tree", tree=Tree(tree.mask, tree.depth + 3))


@pytest.mark.parametrize(("features", "first", "last"), [((0,), 0, 3), ((4,), 0, 3), ((2,), 2, 3), ((1, 1), 0, 3)])
def test_features_of_layers_that_do_not_run_are_refused(features: tuple[int, ...], first: int, last: int) -> None:
    """They would be what lay in memory before."""
    with pytest.raises(ContractError, match="features"):
        NativeStack.check_features(features, last, first)
