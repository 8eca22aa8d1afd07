"""The model against itself: every cached, ragged or tree-shaped way to run it equals the uncached forward of one
row.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from spear_spec.config import T2SConfig
from spear_spec.models.memory import Memory, Skip
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.tree import Tree

CONFIG = T2SConfig(
    num_text_token_ids=9,
    num_semantic_token_ids=7,
    dim=16,
    source_depth=1,
    target_depth=3,
    heads=4,
    dim_head=4,
    kv_heads=2,
    early_exit_layer=2,
)
LIMIT = 1e-12


@pytest.fixture(autouse=True)
def _no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model() -> TextToSemantic:
    torch.manual_seed(0)
    model = TextToSemantic(CONFIG).double().eval()
    for parameter in model.parameters():
        parameter.data.mul_(1.5).add_(0.2 * torch.randn_like(parameter))
    return model


def encode(model: TextToSemantic, batch: int, rng: random.Random) -> Memory:
    """Rows of random text of different lengths."""
    texts = [[rng.randint(1, 8) for _ in range(rng.randint(1, 6))] + [model.text_eos_id] for _ in range(batch)]
    longest = max(map(len, texts))
    return model.encode(torch.tensor([text + [0] * (longest - len(text)) for text in texts]))


def alone(model: TextToSemantic, tokens: list[int], memory: Memory, row: int) -> Tensor:
    """Uncached logits [T, V] of one row."""
    return model(torch.tensor([tokens]), memory.select([row])).logits[0]


@pytest.mark.parametrize("batch", [1, 4, 8])
@pytest.mark.parametrize("seed", range(3))
def test_cached_equals_uncached_after_random_crops(model: TextToSemantic, batch: int, seed: int) -> None:
    rng = random.Random(1000 * batch + seed)
    memory = encode(model, batch, rng)
    cache = model.new_cache(batch, capacity=3)
    rows: list[list[int]] = [[] for _ in range(batch)]
    for _ in range(12):
        fresh = [
            [model.start_id if not row and i == 0 else rng.randint(0, model.eos_id) for i in range(n)]
            for n in [rng.randint(1, 5)]
            for row in rows
        ]
        got = model(torch.tensor(fresh), memory, cache).logits
        for b, new in enumerate(fresh):
            rows[b] += new
            want = alone(model, rows[b], memory, b)[-len(new) :]
            assert (got[b] - want).abs().max() < LIMIT
        lengths = [len(row) - rng.randint(0, min(len(row), 4)) for row in rows]
        cache.crop(lengths)
        rows = [row[:length] for row, length in zip(rows, lengths)]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_a_tree_equals_each_of_its_paths(model: TextToSemantic, seed: int, cached: bool) -> None:
    rng = random.Random(seed)
    batch, nodes = 3, 9
    memory = encode(model, batch, rng)
    prefix = (
        [[model.start_id] + [rng.randint(0, 6) for _ in range(rng.randint(0, 5))] for _ in range(batch)]
        if cached
        else [[]] * batch
    )
    cache = model.new_cache(batch) if cached else None
    if cache is not None:  # rows of different lengths: write the longest, crop
        longest = max(map(len, prefix))
        model(torch.tensor([row + [0] * (longest - len(row)) for row in prefix]), memory, cache)
        cache.crop([len(row) for row in prefix])
    parents = [[rng.randint(-1 if cached else 0, i - 1) if i else -1 for i in range(nodes)] for _ in range(batch)]
    tokens = [
        [model.start_id if not cached and i == 0 else rng.randint(0, 7) for i in range(nodes)] for _ in range(batch)
    ]
    got = model(torch.tensor(tokens), memory, cache, tree=Tree.from_lists(parents)).logits
    paths: list[list[list[int]]] = []
    for b in range(batch):
        paths.append([])
        for i in range(nodes):
            paths[b].append((paths[b][parents[b][i]] if parents[b][i] >= 0 else []) + [i])
            want = alone(model, prefix[b] + [tokens[b][j] for j in paths[b][i]], memory, b)[-1]
            assert (got[b, i] - want).abs().max() < LIMIT
    if cache is None:
        return
    kept = [rng.choice(row) for row in paths]  # accept a path, then go on
    width = max(map(len, kept))
    cache.keep([len(row) for row in prefix], torch.tensor([path + [-1] * (width - len(path)) for path in kept]))
    got = model(torch.tensor([[1, 5]] * batch), memory, cache).logits
    for b, path in enumerate(kept):
        want = alone(model, prefix[b] + [tokens[b][j] for j in path] + [1, 5], memory, b)[-2:]
        assert (got[b] - want).abs().max() < LIMIT


def test_rows_that_leave_do_not_change_the_others(model: TextToSemantic) -> None:
    rng = random.Random(5)
    memory, cache = encode(model, 4, rng), model.new_cache(4)
    tokens = torch.cat((torch.full((4, 1), model.start_id), torch.randint(0, 7, (4, 6))), 1)
    model(tokens, memory, cache)
    cache.crop([3, 7, 5, 1])
    rows = [3, 1]
    cache.select(rows)
    got = model(torch.tensor([[2, 4], [6, 0]]), memory.select(rows), cache).logits
    for b, (row, length, new) in enumerate(((3, 1, [2, 4]), (1, 7, [6, 0]))):
        want = alone(model, tokens[row, :length].tolist() + new, memory, row)[-2:]
        assert (got[b] - want).abs().max() < LIMIT


def test_without_text_the_text_does_not_matter(model: TextToSemantic) -> None:
    rng, tokens = random.Random(6), torch.tensor([[model.start_id, 3, 1]])
    first, second = (model(tokens, encode(model, 1, rng).unconditional()).logits for _ in range(2))
    assert torch.equal(first, second)


def test_padding_of_the_text_does_not_matter(model: TextToSemantic) -> None:
    tokens, text = torch.tensor([[model.start_id, 3, 1]]), torch.tensor([[4, 2, model.text_eos_id]])
    padded = torch.nn.functional.pad(text, (0, 5))
    assert (model(tokens, model.encode(text)).logits - model(tokens, model.encode(padded)).logits).abs().max() < LIMIT


def test_features_are_the_residual_stream_after_the_named_layers(model: TextToSemantic) -> None:
    memory, tokens = encode(model, 2, random.Random(7)), torch.tensor([[model.start_id, 1, 2]] * 2)
    out = model(tokens, memory, features=(1, 3))
    assert len(out.features) == 2
    assert (model.decoder_norm(out.features[1]) - out.hidden).abs().max() < LIMIT
    assert (
        model.logits(model.decoder_norm(out.features[0])) - model(tokens, memory, skip=only(0)).logits
    ).abs().max() < LIMIT


def only(*layers: int) -> Skip:
    """All layers of the three left out but these."""
    rest = frozenset({0, 1, 2} - set(layers))
    return Skip(rest, rest)


def test_some_layers_alone(model: TextToSemantic) -> None:
    memory, tokens = encode(model, 1, random.Random(8)), torch.tensor([[model.start_id, 1, 2]])
    full = model(tokens, memory)
    assert (model(tokens, memory, skip=only(0, 1, 2)).logits - full.logits).abs().max() < LIMIT
    skipped = TextToSemantic(T2SConfig(**{**CONFIG.to_dict(), "target_depth": 2, "early_exit_layer": None})).double()
    kept = {
        k.replace("decoder.2.", "decoder.1."): v
        for k, v in model.state_dict().items()
        if not k.startswith(("decoder.1.", "early_exit"))
    }
    skipped.load_state_dict(kept)
    want = skipped(
        tokens, Memory(memory.hidden, memory.mask, [memory.cross[0], memory.cross[2]], memory.cross_mask)
    ).logits
    assert (model(tokens, memory, skip=only(0, 2)).logits - want).abs().max() < LIMIT


def test_the_start_id_is_never_among_the_logits(model: TextToSemantic) -> None:
    memory = encode(model, 1, random.Random(9))
    assert model(torch.tensor([[model.start_id]]), memory).logits.shape[-1] == model.eos_id + 1 == model.start_id


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_run_and_stay_near(model: TextToSemantic, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    plain = TextToSemantic(CONFIG).eval()
    half = TextToSemantic(CONFIG)
    half.load_state_dict(plain.state_dict())
    half = half.to(dtype).eval()
    text, tokens = torch.tensor([[4, 2, 9, 0], [1, 5, 3, 9]]), torch.tensor([[half.start_id, 1, 2, 3]] * 2)
    cache = half.new_cache(2)
    got = torch.cat([half(tokens[:, i : i + 1], half.encode(text), cache).logits for i in range(4)], 1)
    want = plain(tokens, plain.encode(text)).logits
    assert got.dtype == cache.k.dtype == dtype
    assert (got.float() - want).abs().max() < 0.1 * want.abs().max()


def test_training_after_inference_mode() -> None:
    model = TextToSemantic(CONFIG)
    text, tokens = torch.tensor([[4, 2, 9]]), torch.tensor([[model.start_id, 1, 2]])
    with torch.inference_mode():
        model(tokens, model.encode(text))
    with torch.enable_grad():
        model(tokens, model.encode(text)).logits.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert all(bool(torch.isfinite(g).all()) for g in gradients.values())
    missing = set(dict(model.named_parameters())) - set(gradients)
    assert all(name.startswith(("text_start", "early_exit.")) for name in missing)
