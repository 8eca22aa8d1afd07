"""audiolm-pytorch's transformers: the real package's numbers, and what a target must do with caches, trees and rows."""

from __future__ import annotations

import random

import pytest
import torch
from audiolm_cases import COARSE, FINE, Case, places, tokens_of
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding.request import Request, encode
from spear_spec.engine import Engine
from spear_spec.errors import ConfigError, TextError
from spear_spec.models.audiolm.coarse import CoarseConfig, CoarseTransformer
from spear_spec.models.audiolm.fine import FineConfig, FineTransformer
from spear_spec.models.memory import Skip
from spear_spec.nn.tree import Tree
from tests.models.cached import check_caches

TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def read(model: CoarseTransformer, case: Case) -> Tensor:
    """What the decoder reads of a case: the start and its forced tokens."""
    written = tokens_of(case.found["written"], model.cfg.codebook, model.cfg.quantizers)
    return torch.cat((torch.full((len(written), 1), model.start_id), written), 1)


@pytest.mark.parametrize("name", COARSE)
def test_coarse_logits_of_the_real_package(name: str) -> None:
    """Ragged rows in one batch, whole and cached, against rows that the package saw alone."""
    case = Case.read(name)
    model = case.coarse()
    assert model.dtype == torch.float32
    memory, tokens = encode(model, case.prefixes), read(model, case)
    cache = model.new_cache(len(tokens), capacity=3)
    chunks = torch.cat([model(part, memory, cache).logits for part in (tokens[:, :1], *tokens[:, 1:].split(4, 1))], 1)
    theirs = case.found["logits"]
    for ours in (model(tokens, memory).logits, chunks):
        own = places(ours, model.cfg.codebook, model.cfg.quantizers)
        assert own.shape == theirs.shape
        assert (own - theirs)[..., :-1].abs().max() < TOLERANCE
        ending = torch.arange(own.shape[1]) % model.cfg.quantizers == 0
        ending[0] = False
        assert (own - theirs)[:, ending, -1].abs().max() < TOLERANCE
        assert (own[:, ~ending, -1] == -1e9).all()
        # and no other token can stand at a place
        assert ((ours > -1e9).sum(-1) == model.cfg.codebook + ending.long()).all()


@pytest.mark.parametrize("name", COARSE)
def test_greedy_tokens_of_the_real_generate(name: str) -> None:
    """The package was given each row alone, with repeats; it says on behind an end token, which is cut there."""
    case = Case.read(name)
    model = case.coarse()
    cfg, greedy = model.cfg, case.found["greedy"]
    repeated = case.found["repeated"].tolist()
    requests = [
        Request(row[: 2 * length], sampling=SamplingConfig(0.0), cap=greedy.shape[1])
        for row, length in zip(repeated, case.found["lengths"].tolist())
    ]
    engine = Engine(model, frame_rate=1000.0)
    ended = []
    for one, row in zip(engine.run(requests), greedy):
        theirs = row[: int((row >= 0).sum())]
        assert one.speech == tokens_of(theirs[None], cfg.codebook, cfg.quantizers)[0].tolist()
        ended.append(one.ended)
    assert set(ended) == {"eos", "cap"}  # the files hold both endings


def coarse_tokens(case: Case, model: FineTransformer) -> list[list[int]]:
    """What each row's fine codes follow from, as our tokens."""
    cfg = model.cfg
    return [tokens_of(torch.tensor([row]), cfg.codebook, cfg.coarse)[0].tolist() for row in case.prefixes]


@pytest.mark.parametrize("name", FINE)
def test_fine_logits_of_the_real_package(name: str) -> None:
    """As for the coarse one; rows differ in their number of frames, which the package's scores depend on."""
    case = Case.read(name)
    model = case.fine()
    cfg = model.cfg
    memory = encode(model, coarse_tokens(case, model))
    written = tokens_of(case.found["written"], cfg.codebook, cfg.quantizers)
    tokens = torch.cat((torch.full((len(written), 1), model.start_id), written), 1)
    cache = model.new_cache(len(tokens), capacity=3)
    chunks = torch.cat([model(part, memory, cache).logits for part in (tokens[:, :1], *tokens[:, 1:].split(4, 1))], 1)
    for ours in (model(tokens, memory).logits, chunks):
        own = places(ours, cfg.codebook, cfg.quantizers)
        assert (own[..., -1] == -1e9).all()
        for row, length in enumerate(case.found["lengths"].tolist()):
            count = length // cfg.coarse * cfg.quantizers
            theirs = case.found["logits"][row, :count]
            assert (own[row, :count, :-1] - theirs).abs().max() < TOLERANCE
            assert theirs.std() > 0.1


@pytest.mark.parametrize("name", FINE)
def test_greedy_fine_tokens_of_the_real_generate(name: str) -> None:
    case = Case.read(name)
    model = case.fine()
    cfg = model.cfg
    wanted = [row[row >= 0] for row in case.found["greedy"]]
    requests = [
        Request(prefix, sampling=SamplingConfig(0.0), cap=len(row))
        for prefix, row in zip(coarse_tokens(case, model), wanted)
    ]
    for one, row in zip(Engine(model, frame_rate=1000.0).run(requests), wanted):
        assert one.tokens == tokens_of(row[None], cfg.codebook, cfg.quantizers)[0].tolist() and one.ended == "cap"


@pytest.mark.parametrize("ids", [[0, 1], [3, 0, 0, 3], [0, 3, 1], [0, 6]])
def test_coarse_tokens_that_are_no_whole_frames_are_refused(ids: list[int]) -> None:
    shape = {**TINY.to_dict(), "coarse": 2}
    model = FineTransformer(FineConfig(**{k: v for k, v in shape.items() if k not in ("semantic", "unique")}))
    assert model.text([0, 3, 2, 5]) == [1, 4, 3, 6]
    with pytest.raises(TextError, match="whole frames"):
        model.text(ids)


TINY = CoarseConfig(width=8, depth=2, heads=2, dim_head=4, ff_inner=10, streams=2, codebook=3, quantizers=2, semantic=5)
PREFIXES = [[3, 1, 4], [2, 0, 2, 3, 1, 4], [4]]


def tiny(seed: int = 0, dtype: torch.dtype = torch.float64) -> CoarseTransformer:
    torch.manual_seed(seed)
    model = CoarseTransformer(TINY)
    for name, parameter in model.named_parameters():
        parameter.normal_(1.0 if "norm.weight" in name else 0.0, 0.6)
    for table in (model.token_emb.weight, model.to_logits.weight):
        table[:, TINY.width :] = 0
    return model.to(dtype).eval()


@pytest.mark.parametrize("seed", range(3))
def test_caches_of_ragged_rows_and_trees_equal_whole_forwards(seed: int) -> None:
    """Rows of different prefixes advance and roll back by themselves; trees see their own branch and places."""
    model = tiny(seed)
    check_caches(model, lambda texts: encode(model, texts), PREFIXES, random.Random(seed))


def test_a_tree_without_a_cache() -> None:
    model = tiny()
    memory = encode(model, PREFIXES[:1])
    tree = Tree.from_lists([[-1, 0, 0, 2]])
    logits = model(torch.tensor([[model.start_id, 1, 2, 4]]), memory, tree=tree).logits[0]
    for path, node in (([1], 1), ([2, 4], 3)):
        assert torch.allclose(logits[node], model(torch.tensor([[model.start_id, *path]]), memory).logits[0, -1])


def test_padding_of_a_batch_changes_nothing_but_every_semantic_token_counts() -> None:
    model = tiny()
    together = encode(model, PREFIXES)
    tokens = torch.tensor([[model.start_id, 1, 4, 0]])
    laws = []
    for row, prefix in enumerate(PREFIXES):
        alone = model(tokens, encode(model, [prefix])).logits
        assert torch.allclose(model(tokens, together.select([row])).logits, alone, atol=1e-12)
        laws.append(alone)
    other = model(tokens, encode(model, [[3, 1, 0]])).logits
    assert (laws[0] - other).abs().amax(-1).min() > 1e-4


def test_repeated_tokens_are_read_once_unless_the_shape_says_otherwise() -> None:
    model = tiny()
    assert model.text([3, 3, 1, 1, 1, 3]) == [4, 2, 4]
    plain = CoarseTransformer(CoarseConfig.from_dict({**TINY.to_dict(), "unique": False}))
    assert plain.text([3, 3, 1]) == [4, 4, 2]


def test_features_and_skips() -> None:
    """What the layers leave says which quantizer comes next; logits follow from hidden alone."""
    model = tiny()
    memory = encode(model, PREFIXES[:1])
    tokens = torch.tensor([[model.start_id, 1, 4, 0]])
    out = model(tokens, memory, features=(1, 2))
    assert [f.shape for f in out.features] == [(1, 4, model.dim)] * 2 and out.hidden.shape[-1] == model.dim
    assert torch.equal(model.logits(out.hidden), out.logits)
    assert torch.allclose(model.decoder_norm(out.features[1][..., : TINY.width]), out.hidden[..., : TINY.width])
    marks = out.hidden[0, :, TINY.width :]
    assert marks.argmax(-1).tolist() == [2, 1, 0, 1] and (marks.sum(-1) == 1).all()
    nothing = Skip(frozenset({1}), frozenset({1}))
    assert torch.equal(model(tokens, memory, skip=nothing, features=(1, 2)).features[1], out.features[0])
    assert not torch.allclose(model(tokens, memory, skip=Skip(frozenset({1}))).logits, out.logits)
    for refused in (
        lambda: model.first_layers(tokens, memory, None, 1),
        lambda: model(tokens, memory, below=(1, tokens)),
    ):
        with pytest.raises(ConfigError, match="no early exits"):
            refused()


def test_the_table_of_distances_follows_the_weights() -> None:
    model = tiny()
    memory = encode(model, PREFIXES[:1])
    tokens = torch.tensor([[model.start_id, 1, 4, 0]])
    before = model(tokens, memory).logits
    model.distances.net[0].weight.mul_(2)
    after = model(tokens, memory).logits
    assert (before - after).abs().max() > 1e-4
    fresh = CoarseTransformer(TINY).double()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(tokens, memory).logits, after)


def test_gradients_reach_every_weight() -> None:
    with torch.inference_mode(False):
        model = CoarseTransformer(TINY)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, 0, 0.5)
        memory = model.encode(torch.tensor([model.text([3, 1, 4])]))
        out = model(torch.tensor([[model.start_id, 1, 4, 0, 5, 2, 3]]), memory).logits
        out.log_softmax(-1)[..., 0].sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert still == []


@pytest.mark.parametrize("ids", [[], [5], [-1], [0, 7]])
def test_prefixes_that_are_refused(ids: list[int]) -> None:
    with pytest.raises(TextError, match="prefix"):
        tiny().text(ids)


@pytest.mark.parametrize(
    ("name", "value"), [("heads", 0), ("width", 1.5), ("unique", 1), ("codebook", True), ("semantic", "9")]
)
def test_shapes_that_are_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        CoarseConfig.from_dict({**TINY.to_dict(), name: value})
