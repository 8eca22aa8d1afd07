"""WhisperSpeech's transformer: the real package's numbers, and what a target must do with caches, trees and rows."""

from __future__ import annotations

import random

import pytest
import torch
from whisperspeech_cases import CASES, Case, front_end, ragged, text_ids

from spear_spec.errors import ConfigError, TextError
from spear_spec.models.memory import Skip
from spear_spec.models.whisperspeech import WhisperSpeechConfig, WhisperSpeechT2S
from tests.models.cached import check_caches

TINY = WhisperSpeechConfig(
    dim=8, heads=2, source_depth=1, target_depth=2, ff_inner=12, vocab_size=7, eos_id=6, max_tokens=40,
    text_length=12, languages=4, rate_bins=3,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def tiny(dtype: torch.dtype = torch.float64, seed: int = 0) -> WhisperSpeechT2S:
    torch.manual_seed(seed)
    model = WhisperSpeechT2S(TINY)
    for parameter in model.parameters():
        parameter.normal_(0, 0.7)
    return model.to(dtype).eval()


TEXTS = [[256, 261, 72, 105], [258, 260, 3, 4, 5, 6, 200], [259, 262, 9]]


@pytest.mark.parametrize("name", CASES)
def test_logits_of_the_real_package(name: str) -> None:
    case = Case.read(name)
    model = case.model()
    assert model.dtype == torch.float32
    memory = model.encode(text_ids(model, case.requests))
    tokens = torch.cat((torch.full((len(case.requests), 1), model.start_id), case.found["tokens"]), 1)
    uncached = model(tokens, memory).logits
    cache = model.new_cache(len(tokens), capacity=3)
    cached = torch.cat([model(part, memory, cache).logits for part in (tokens[:, :1], *tokens[:, 1:].split(4, 1))], 1)
    assert uncached.shape == case.found["logits"].shape
    for ours in (uncached, cached):
        for theirs in ("logits", "stepped"):
            assert (ours - case.found[theirs]).abs().max() < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_the_front_end_lays_bytes_out_as_the_package_does(name: str) -> None:
    case = Case.read(name)
    model = case.model()
    bins = torch.tensor([rate for *_, rate in case.requests]) / 20 * model.cfg.rate_bins
    for row, ids in enumerate(text_ids(model, case.requests).tolist()):
        data = [i for i in ids[2:] if i]
        assert [0, *data] + [0] * (model.cfg.text_length - 1 - len(data)) == case.found["text"][row].tolist()
        assert ids[0] == 256 + case.found["languages"][row]
        assert ids[1] == 256 + model.cfg.languages + min(int(bins[row]), model.cfg.rate_bins - 1)


def test_the_start_is_the_padding_token_and_old_files_shift_it() -> None:
    new, old = (Case.read(name).model() for name in CASES)
    assert new.eos_id == new.vocab_size - 1 and old.eos_id == old.vocab_size - 2
    for model in (new, old):
        assert model.start_id == model.vocab_size == len(model.embedding) - 1 == len(model.head)
        assert torch.equal(model.embedding[model.start_id], model.embedding[model.eos_id])


@pytest.mark.parametrize("seed", range(3))
def test_caches_of_ragged_rows_and_trees_equal_whole_forwards(seed: int) -> None:
    """Rows of different texts advance and roll back by themselves; trees see their own branch and depth."""
    model = tiny(seed=seed)
    check_caches(model, lambda texts: model.encode(ragged(texts)), TEXTS, random.Random(seed))


def test_padding_of_a_batch_changes_nothing_and_the_mask_may_be_left_out() -> None:
    model = tiny()
    ids = ragged(TEXTS)
    together = model.encode(ids, ids != 0)
    for row, text in enumerate(TEXTS):
        alone = model.encode(torch.tensor([text]))
        assert torch.allclose(together.hidden[row], alone.hidden[0], atol=1e-12)
    filled = ids.masked_fill(ids == 0, 17)
    assert torch.equal(model.encode(filled, ids != 0).hidden, together.hidden)
    assert together.mask.all() and together.mask.shape == (3, TINY.text_length)


@pytest.mark.parametrize("at", [0, 1, 2], ids=["language", "rate", "byte"])
def test_language_rate_and_text_each_change_the_law(at: int) -> None:
    model = tiny()
    text = list(TEXTS[0])
    other = [*text[:at], text[at] + 1, *text[at + 1 :]]
    tokens = torch.tensor([[model.start_id, 3, 1]])
    one, two = (model(tokens, model.encode(torch.tensor([ids]))).logits for ids in (text, other))
    assert (one - two).abs().amax(-1).min() > 1e-4
    hidden = [model.encode(torch.tensor([ids])).hidden for ids in (text, other)]
    assert (hidden[0] - hidden[1]).abs().max() > 1e-4  # drafts, which look at it, know all three


def test_features_skips_and_early_exits() -> None:
    model = tiny()
    memory = model.encode(torch.tensor(TEXTS[:1]))
    tokens = torch.tensor([[model.start_id, 1, 2, 3]])
    out = model(tokens, memory, features=(1, 2))
    assert torch.allclose(model.logits(model.decoder_norm(out.features[1])), out.logits)
    nothing = Skip(frozenset({1}), frozenset({1}))
    assert torch.equal(model(tokens, memory, skip=nothing, features=(1, 2)).features[1], out.features[0])
    cache = model.new_cache(1)
    below = model.first_layers(tokens[:, :2], memory, cache, 1)
    assert torch.allclose(below, out.features[0][:, :2])
    cache.crop([0])
    for known in (below, model.first_layers(tokens, memory, cache, 1)):
        cache.crop([0])
        assert torch.allclose(model(tokens, memory, cache, below=(1, known)).logits, out.logits, atol=1e-12)
        cache.crop([0])


def test_it_has_as_many_positions_as_it_has() -> None:
    model = tiny()
    memory = model.encode(torch.tensor(TEXTS[:1]))
    cache = model.new_cache(1, capacity=4)
    tokens = torch.tensor([[model.start_id] + [1] * (TINY.max_tokens - 1)])
    last = model(tokens[:, :-1], memory, cache)
    # padding of a draft may reach over the edge; what stands before it is as ever
    over = model(torch.tensor([[1, 0, 0]]), memory, cache).logits[:, 0]
    assert torch.allclose(over, model(tokens, memory).logits[:, -1], atol=1e-12)
    assert last.logits.shape[1] == TINY.max_tokens - 1
    cache.crop([TINY.max_tokens])
    with pytest.raises(ConfigError, match="40 positions"):
        model(torch.tensor([[1]]), memory, cache)
    with pytest.raises(ConfigError, match="40 positions"):
        model(torch.ones(1, TINY.max_tokens + 1, dtype=torch.long), memory)


GOOD = [256, 260, 1]
BAD = {
    "nothing": ([], "a language, a speaking rate"),
    "no byte": (GOOD[:2], "at least one byte"),
    "bytes alone": ([1, 2, 3], "begin with a language"),
    "no rate": ([256, 256, 1], "begin with a language"),
    "a rate too many": ([256, 263, 1], "begin with a language"),
    "a zero": ([256, 260, 0, 1], "1 to 255"),
    "no byte value": ([256, 260, 256], "1 to 255"),
    "too long": ([256, 260, *[1] * 12], "12 bytes; 11"),
}


@pytest.mark.parametrize("name", BAD)
def test_text_ids_that_are_none(name: str) -> None:
    ids, named = BAD[name]
    with pytest.raises(TextError, match=named):
        tiny().text(ids)


def test_text_ids_are_taken_as_they_are() -> None:
    assert tiny().text((256, 262, *[255] * 11)) == [256, 262, *[255] * 11]
    with pytest.raises(TextError, match="at most 11"):
        tiny().encode(torch.ones(1, 14, dtype=torch.long))


@pytest.mark.parametrize(
    "change", [{"dim": 9}, {"heads": 0}, {"eos_id": 7}, {"text_length": 1}, {"causal_encoder": 1}, {"max_tokens": True}]
)
def test_shapes_that_are_none(change: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        WhisperSpeechConfig.from_dict({**TINY.to_dict(), **change})


def test_its_front_end_fits_it() -> None:
    model = Case.read("micro").model()
    front = front_end(model)
    assert front.num_token_ids == model.text_ids
    for segment in front.segments("One sentence. And another one, which is a little longer.", "de"):
        assert model.text(segment.ids) == segment.ids
