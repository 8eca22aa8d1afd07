"""The block decoder in C: against the same products in torch, alone and among other rows, token by token and at
once.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.config import SamplingConfig, T2SConfig
from spear_spec.decoding import Session, make_verifier, speculate
from spear_spec.decoding.chance import Uniforms
from spear_spec.decoding.drafters.block import BlockDrafter
from spear_spec.errors import ContractError, NumericsError
from spear_spec.kernels import native
from spear_spec.kernels.rounded import RoundedLinear
from spear_spec.models.drafts.block import BlockConfig, BlockDecoder
from spear_spec.models.drafts.block_runner import BlockRunner
from spear_spec.models.drafts.decoder import DraftState
from spear_spec.models.spear_tts import TextToSemantic

TEXT = torch.tensor([[3, 1, 4, 12, 0, 0], [2, 5, 7, 1, 8, 12], [9, 12, 0, 0, 0, 0]])


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)
    assert native.available(), native.reason()


def made(dim: int = 36, heads: int = 3, dim_head: int = 10, **settings: Any) -> tuple[TextToSemantic, BlockDecoder]:
    """Odd sizes: nothing is a multiple of a vector."""
    torch.manual_seed(0)
    model = TextToSemantic(T2SConfig(12, 70, dim, 1, 2, heads, dim_head)).eval()
    shape = {"depth": 2, "heads": heads, "dim_head": dim_head, "ff_mult": 3, "block": 5, "window": 6, "rank": 7}
    draft = BlockDecoder(BlockConfig(dim, 71, (1, 2), **{**shape, **settings}), model).eval()
    with torch.no_grad():
        for weight in draft.parameters():
            weight.add_(torch.randn_like(weight) * 0.2)
    return model, draft


def opened(
    model: TextToSemantic, draft: BlockDecoder, rows: list[int], runner: BlockRunner
) -> tuple[DraftState, Tensor]:
    """Rows with 9 tokens each, then those of `ragged` lengths: their state and the newest contexts."""
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 71, (3, 12), generator=generator)
    tokens[:, 0] = model.start_id
    features = torch.randn(3, 12, draft.cfg.dim, generator=generator)
    features[:, 0] = 0
    memory = model.encode(TEXT[rows])
    state = draft.start(memory)
    lengths = [[9, 12, 3][row] for row in rows]
    contexts = []
    for begin, end in ((0, 3), (3, 12)):
        counts = [min(max(length - begin, 0), end - begin) for length in lengths]
        found = runner.step(tokens[rows, begin:end], features[rows, begin:end], state, counts=counts)
        state.cache.crop([min(length, end) for length in lengths])
        contexts.append(found)
    both = torch.cat(contexts, 1)
    return state, torch.stack([both[place, length - 1] for place, length in enumerate(lengths)])[:, None]


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [{}, {"dim": 64, "heads": 2, "dim_head": 32, "depth": 1}])
def test_the_kernel_computes_what_torch_does(sizes: dict[str, int]) -> None:
    """Rows of different lengths, texts and blocks, past the window."""
    model, draft = made(**sizes)
    quick, slow = BlockRunner(draft, model), BlockRunner(draft, model)
    assert quick.native is not None
    slow.native = None
    counts = [5, 2, 4]
    results = []
    for runner in (quick, slow):
        state, contexts = opened(model, draft, [0, 1, 2], runner)
        said = runner.ahead(contexts, counts, state)
        laws = [runner.follow(said, k, torch.tensor([5, 71, 0])) for k in range(2)]
        results.append((contexts, said, laws, state))
    (c1, s1, l1, q1), (c2, s2, l2, q2) = results
    torch.testing.assert_close(c1, c2, atol=1e-5, rtol=1e-5)
    for row, count in enumerate(counts):
        for name in ("logits", "gate", "sure"):
            one, two = getattr(s1, name)[row, :count], getattr(s2, name)[row, :count]
            torch.testing.assert_close(one, two, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(torch.stack(l1), torch.stack(l2), atol=2e-4, rtol=1e-4)
    for row, length in enumerate(q1.cache.lengths):
        torch.testing.assert_close(q1.cache.k[:, row, :, :length], q2.cache.k[:, row, :, :length], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_row_is_the_same_alone() -> None:
    """Bit for bit, and when settled tokens come one after the other."""
    model, draft = made()
    runner = BlockRunner(draft, model)
    state, contexts = opened(model, draft, [0, 1, 2], runner)
    all_rows = runner.ahead(contexts, [5, 2, 4], state)
    for row, count in enumerate([5, 2, 4]):
        own, context = opened(model, draft, [row], runner)
        assert torch.equal(context[0], contexts[row])
        alone = runner.ahead(context, [count], own)
        for name in ("logits", "gate", "sure"):
            assert torch.equal(getattr(alone, name)[0], getattr(all_rows, name)[row, :count]), name


class Unforeseen(Uniforms):
    """The same stream, but nobody can look ahead: tokens are drawn one after the other."""

    def ahead(self, row: int, count: int) -> Any:
        return None


@pytest.mark.parametrize("options", [{}, {"stop": "survival"}, {"stop": "confidence"}, {"stop": "adaedl"}])
def test_a_draft_at_once_is_the_draft_token_by_token(options: dict[str, Any]) -> None:
    """Token for token and law for law, bit for bit."""
    model, draft = made()
    sampling = SamplingConfig(temperature=0.9, top_p=0.95)
    said = []
    for chance in (Uniforms([1, 2, 3]), Unforeseen([1, 2, 3])):
        session = Session(model, model.encode(TEXT), sampling, chance=chance, max_tokens=[20, 6, 14])
        for row in range(3):
            chance.open(row, row + 1)
        drafter = BlockDrafter(draft, **options)
        drafter.cost = None if drafter.cost is None else 0.1
        proposals: list[Any] = []
        real = drafter.propose

        def propose(*args: Any, real: Any = real, proposals: list[Any] = proposals) -> Any:
            proposals.append(real(*args))
            return proposals[-1]

        drafter.propose = propose  # type: ignore[method-assign]
        for _ in speculate(session, drafter, make_verifier("block"), 5):
            pass
        said.append((session.tokens, proposals))
    (tokens, one), (others, two) = said
    assert tokens == others and len(one) == len(two) > 3
    for a, b in zip(one, two):
        assert a.tokens == b.tokens
        for row, drawn in enumerate(a.tokens):
            if drawn:
                assert torch.equal(a.probs[row, : len(drawn)], b.probs[row, : len(drawn)])
    if options.get("stop") == "survival":
        assert len({len(row) for proposal in one for row in proposal.tokens}) > 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (64, 4), (65, 7), (130, 341), (8, 2000)])
def test_products_are_those_of_whole_numbers(shape: tuple[int, int]) -> None:
    """Every row count that the kernel treats apart, against float64."""
    import ctypes

    torch.manual_seed(1)
    weight = torch.randn(shape)
    linear = RoundedLinear(weight)
    tiles = linear.packed()
    struct = tiles.struct
    call = ctypes.CDLL(native.library()._name).spear_bytes
    call.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64] + [
        ctypes.c_void_p
    ] * 2
    call.restype = None
    scale = weight.abs().amax(1).double() / 127
    codes = (weight / (weight.abs().amax(1, keepdim=True) / 127)).round()
    room = torch.empty(19 * (shape[1] + 80) + 64, dtype=torch.int8)
    for rows in (*range(1, 7), 11, 16, 17, 19):
        x = torch.randn(rows, shape[1])
        x[0, 0] = 0
        add, y = torch.randn(rows, shape[0]), torch.empty(rows, shape[0])
        call(ctypes.byref(struct), rows, x.data_ptr(), add.data_ptr(), shape[0], y.data_ptr(), room.data_ptr())
        top = x.abs().amax(1, keepdim=True)
        rounded = (x * torch.where(top > 0, 127 / top, 0)).round().double()
        expected = rounded @ codes.double().T * scale * (top.double() / 127) + add.double()
        torch.testing.assert_close(y.double(), expected, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(linear(x).double() + add.double(), expected, atol=1e-4, rtol=1e-5)


@torch.inference_mode()
def test_numbers_that_are_none_are_seen() -> None:
    model, draft = made()
    runner = BlockRunner(draft, model)
    state, contexts = opened(model, draft, [0], runner)
    contexts[0, 0, 3] = float("nan")
    with pytest.raises(NumericsError):
        runner.chain(contexts, [1], [3], [[0.5] * 3], SamplingConfig(), model.eos_id, state)


@torch.inference_mode()
def test_what_does_not_fit_is_refused() -> None:
    model, draft = made()
    runner = BlockRunner(draft, model)
    assert runner.native is not None
    state, contexts = opened(model, draft, [0, 1], runner)
    given = (state.cache, state.cross, state.cross_mask, runner.angles(50))
    with pytest.raises(ContractError, match="1 to 5 positions"):
        runner.native.ahead(contexts, [6, 1], *given)
    with pytest.raises(ContractError, match="1 to 5 positions"):
        runner.native.ahead(contexts, [0, 1], *given)
    with pytest.raises(ContractError, match="contexts"):
        runner.native.ahead(contexts.double(), [1, 1], *given)
    with pytest.raises(ContractError, match="token id"):
        runner.native.read(torch.tensor([[72], [1]]), contexts, *given)
    with pytest.raises(ContractError, match="token id"):
        runner.native.chain(contexts, [1, -1], [1, 1], [[0.1]] * 2, SamplingConfig(), 70, *given)
    with pytest.raises(ContractError, match="newest"):
        runner.native.chain(contexts, [1], [1, 1], [[0.1]] * 2, SamplingConfig(), 70, *given)
    state.cache.lengths = [510, 3]
    with pytest.raises(ContractError, match="do not fit"):
        runner.native.ahead(contexts, [5, 1], state.cache, state.cross, state.cross_mask, runner.angles(600))
