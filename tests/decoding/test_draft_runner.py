"""The draft's inference plan against the module it is made from."""

from __future__ import annotations

import pytest
import torch

from spear_spec.config import DraftConfig
from spear_spec.exactness.oracles import texts, tiny_model
from spear_spec.kernels.packed import PackedLinear
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.runner import DraftRunner, runner_for


def parts(dtype: torch.dtype, depth: int):
    model = tiny_model(semantic=30, dtype=dtype, seed=2)
    draft = DraftDecoder(DraftConfig(dim=16, depth=depth, heads=2, dim_head=8, target_layers=(1, 2)), model.cfg)
    with torch.no_grad():
        for weight in draft.parameters():  # gains and biases that are not one and zero
            weight.add_(0.2 * torch.randn_like(weight))
    return model, draft.to(dtype).eval()


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_runner_equals_the_module(depth: int, dtype: torch.dtype, bound: float) -> None:
    """Several steps in a ragged batch with crops between: hidden states and logits."""
    model, draft = parts(dtype, depth)
    runner = DraftRunner(draft, model, exact=True)
    torch.manual_seed(0)
    with torch.inference_mode():
        memory = model.encode(texts(4))
        plain, quick = draft.start(memory, capacity=3), draft.start(memory, capacity=3)
        for turn, length in enumerate((1, 3, 1, 2, 1, 4, 1)):
            tokens = torch.randint(0, 31, (4, length))
            features = torch.randn(4, length, 16, dtype=dtype)
            if turn == 0:
                tokens.fill_(model.start_id)
                features.zero_()
            one, two = draft.step(model, tokens, features, plain), runner.step(tokens, features, quick)
            assert (one - two).abs().max() < bound
            assert (draft.logits(model, one)[:, -1] - runner.logits(two[:, -1])).abs().max() < bound
            lengths = [max(0, n - int(torch.randint(0, 3, ()))) for n in plain.cache.lengths]
            plain.cache.crop(lengths)
            quick.cache.crop(lengths)


def test_runner_follows_its_weights() -> None:
    model, draft = parts(torch.float32, 1)
    first = runner_for(draft, model)
    assert runner_for(draft, model) is first
    with torch.no_grad():
        draft.enter.weight.mul_(2.0)
    assert runner_for(draft, model) is not first
    assert runner_for(draft.double(), model.double()).table.dtype == torch.float64


@pytest.mark.parametrize("size", [(48, 256), (7, 682), (1025, 16), (1, 33)])
@pytest.mark.parametrize("rows", [1, 3, 6, 17])
def test_packed_linear_is_near_the_plain_one(size: tuple[int, int], rows: int) -> None:
    """Odd widths too: the kernel reads in blocks.

    Rounding to 8 bits and bfloat16 stays within 2 % of the largest entry.
    """
    torch.manual_seed(rows)
    weight, x = torch.randn(size), torch.randn(rows, size[1])
    expected = x @ weight.t()
    assert (PackedLinear(weight)(x).float() - expected).abs().max() < 0.02 * (
        size[1] ** 0.5
    ) + 0.02 * expected.abs().max()
    assert torch.allclose(PackedLinear(weight, exact=True)(x), expected, atol=1e-4)
    assert torch.allclose(PackedLinear(weight.double())(x.double()), expected.double(), atol=1e-4)


def test_packed_draft_says_nearly_the_same() -> None:
    model, draft = parts(torch.float32, 1)
    torch.manual_seed(1)
    with torch.inference_mode():
        memory = model.encode(texts(2))
        tokens, features = torch.randint(0, 31, (2, 9)), torch.randn(2, 9, 16)
        hidden = draft.step(model, tokens, features, draft.start(memory))
        packed = runner_for(draft, model)
        rounded = packed.step(tokens, features, draft.start(memory))
        laws = [draft.logits(model, hidden)[:, -1].softmax(-1), packed.logits(rounded[:, -1]).softmax(-1)]
    assert 0 < (laws[0] - laws[1]).abs().sum(-1).max() / 2 < 0.03


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_starts_from_zero_features(dtype: torch.dtype) -> None:
    """The first token has no feature; a zero row must not become NaN."""
    model, draft = parts(dtype, 1)
    with torch.inference_mode():
        state = draft.start(model.encode(texts(1)))
        hidden = runner_for(draft, model).step(
            torch.tensor([[model.start_id]]), torch.zeros(1, 1, 16, dtype=dtype), state
        )
        assert runner_for(draft, model).logits(hidden[:, 0]).isfinite().all()
