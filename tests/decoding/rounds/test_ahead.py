"""A whole chain of a one-layer draft as one kernel, in Triton's interpreter: what the chain in torch draws."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.config import DraftConfig, SamplingConfig, T2SConfig
from spear_spec.decoding import make_drafter
from spear_spec.decoding.rounds.draft import Drawn, Fresh, StaticChain
from spear_spec.decoding.rounds.draft_rows import DraftRows
from spear_spec.decoding.rounds.fused import chain, ops
from spear_spec.decoding.rounds.fused.ops import SWITCH, FusedLaw
from spear_spec.decoding.rounds.laws import Kinds, Law, Settings
from spear_spec.decoding.verifiers.matching import MatchingVerifier
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.runtime.static import Arrived, Text

PLAIN = SamplingConfig(temperature=1.0, top_p=1.0)
ROWS, GAMMA, ROOM = 4, 3, 64
MAPS = ("to_qkv", "self_out", "to_q", "cross_out", "up", "down")
SHAPES: dict[str, dict[str, Any]] = {
    "eagle": {"target_layers": (1, 2)},
    "small": {},
    "prophet": {"target_layers": (2,), "window": True},
}


@pytest.fixture(autouse=True)
def _as_in_the_loop() -> Iterator[None]:
    with torch.inference_mode():
        yield


def made(name: str, dtype: torch.dtype, ids: int = 20, dim: int = 16, depth: int = 1, **size: int) -> DraftRows:
    """Rows with texts of different lengths, and a past that means nothing behind what they have read."""
    torch.manual_seed(3)
    size = {"heads": 2, "dim_head": 8} | size
    shape = T2SConfig(9, ids, dim=dim, source_depth=1, target_depth=2, **size)
    target = TextToSemantic(shape)
    draft = DraftDecoder(DraftConfig(dim, depth, **size, **SHAPES[name]), shape)
    for weight in [*target.parameters(), *draft.parameters()]:
        torch.nn.init.normal_(weight, 0, 0.7 if weight.ndim == 1 else 1.3 * weight.shape[-1] ** -0.5)
    target, draft = target.to(dtype).eval(), draft.to(dtype).eval()
    rows = DraftRows(make_drafter(name, draft), target, GAMMA, fused=True)
    text = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 1, 0], [2, 0, 0, 0, 0], [5, 5, 0, 0, 0]])
    memory = target.encode(text)
    rows.room(memory, ROWS, ROOM, 64)
    rows.admit(Arrived([0, 1, 2, 3], memory, [()] * ROWS, None, []))
    for store in (rows._k, rows._v):
        store.normal_()
    return rows


def fresh_of(rows: DraftRows, seed: int = 1) -> Fresh:
    """Rows at positions of their own, with one to three fresh tokens."""
    torch.manual_seed(seed)
    features = torch.randn(ROWS, 3, rows.fed, dtype=torch.float64).to(rows._k.dtype)
    tokens = torch.randint(0, rows.target.vocab_size - 1, (ROWS, 3))
    base = torch.tensor([0, 40, 7, 21]) * (not rows.window)
    return Fresh(tokens, torch.tensor([1, 3, 2, 1]), features, base)


def drawn(
    rows: DraftRows,
    law: type[Law],
    *,
    samplings: list[SamplingConfig] | None = None,
    limits: tuple[int, ...] = (3, 3, 2, 0),
    eos: int = -1,
    fresh: Fresh | None = None,
) -> tuple[Drawn, Tensor]:
    """And what the cache holds afterwards; it is as before then."""
    samplings = samplings or [PLAIN] * ROWS
    dtype = torch.promote_types(rows._k.dtype, torch.float32)
    how = law(Settings.of(samplings), rows.target.vocab_size, dtype, Kinds.of(samplings))
    torch.manual_seed(2)
    uniforms = torch.rand(ROWS, 2 * GAMMA, dtype=torch.float64)
    before = [store.clone() for store in (rows._k, rows._v)]
    view: Any = rows.view(ROWS, rows._k.shape[3], eos)
    said = view.draw(fresh or fresh_of(rows), torch.tensor(limits), uniforms, GAMMA, how)
    after = torch.stack((rows._k, rows._v))
    for store, was in zip((rows._k, rows._v), before):
        store.copy_(was)
    return said, after


def counted(said: Drawn) -> Tensor:
    """Laws of the tokens that count."""
    return said.laws[torch.arange(GAMMA) < said.counts[:, None]]


def alike(found: Drawn, right: Drawn, close: float) -> None:
    assert torch.equal(found.tokens, right.tokens) and torch.equal(found.counts, right.counts)
    assert torch.equal(found.fine, right.fine) and found.fine.dtype == torch.bool
    assert found.laws.shape == right.laws.shape and found.laws.dtype == right.laws.dtype
    torch.testing.assert_close(counted(found), counted(right), atol=close, rtol=0)


@pytest.mark.parametrize("name", SHAPES)
def test_it_draws_what_torch_draws(name: str) -> None:
    """Rows at positions of their own, of which one drafts nothing; the cache goes on as well."""
    rows = made(name, torch.float64)
    assert rows.ahead is not None and rows.ahead.fed == (name != "small")
    (found, cache), (right, wanted) = (drawn(rows, law) for law in (FusedLaw, Law))
    alike(found, right, 1e-9)
    assert found.counts.tolist() == [3, 3, 2, 0] and len(set(found.tokens.flatten().tolist())) > 4
    read = fresh_of(rows).base + (1 if rows.window else fresh_of(rows).counts)
    for row in range(ROWS):  # all but the last of its own tokens have been read
        end = int(read[row]) + max(int(found.counts[row]) - 1, 0)
        torch.testing.assert_close(cache[:, :, row, :, :end], wanted[:, :, row, :, :end], atol=1e-9, rtol=0)
    assert not torch.equal(cache, torch.stack((rows._k, rows._v)))


def test_settings_of_each_row() -> None:
    rows = made("eagle", torch.float64)
    samplings = [SamplingConfig(temperature=1.2, top_p=0.8), SamplingConfig(temperature=0.0), SamplingConfig(top_k=3)]
    samplings += [PLAIN]
    (found, _), (right, _) = (drawn(rows, law, samplings=samplings, limits=(3, 3, 2, 2)) for law in (FusedLaw, Law))
    alike(found, right, 1e-9)
    assert (counted(found) == 0).any() and (counted(found)[3:6] == 1).sum() == 3


def test_nothing_follows_an_end_token() -> None:
    rows = made("small", torch.float64)
    first = drawn(rows, FusedLaw)[0].tokens[0, 1]
    (found, _), (right, _) = (drawn(rows, law, eos=int(first)) for law in (FusedLaw, Law))
    alike(found, right, 1e-9)
    assert found.counts[0] == 2 and found.tokens[0, 2] == 0


def test_numbers_that_are_none_are_told_of_their_row() -> None:
    """Also where they come up in what no longer counts, which is not told."""
    rows = made("eagle", torch.float64)
    fresh = fresh_of(rows)
    fresh.features[1], fresh.features[3] = math.nan, math.inf
    (found, _), (right, _) = (drawn(rows, law, limits=(3, 1, 2, 0), fresh=fresh) for law in (FusedLaw, Law))
    assert found.fine.tolist() == right.fine.tolist() == [True, False, True, True]
    assert found.counts[0] == 3 and torch.equal(found.tokens[[0, 2]], right.tokens[[0, 2]])
    assert ((found.tokens >= 0) & (found.tokens < rows.target.vocab_size)).all()


@pytest.mark.parametrize(
    "size", [{"dim": 24, "heads": 3, "dim_head": 10, "ids": 33}, {"dim": 8, "heads": 1, "ids": 300}]
)
def test_shapes_that_are_no_powers_of_two(size: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """And weights and a past that are read in more parts than one."""
    monkeypatch.setattr(chain, "_TOGETHER", 2**13)
    rows = made("eagle", torch.float32, **size)
    (found, _), (right, _) = (drawn(rows, law) for law in (FusedLaw, Law))
    alike(found, right, 1e-5)


def test_more_rows_than_a_program_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "_MOST_TOGETHER", 2)
    rows = made("eagle", torch.float64)
    (found, _), (right, _) = (drawn(rows, law, limits=(1, 2, 2, 1)) for law in (FusedLaw, Law))
    alike(found, right, 1e-9)


def test_kernels_are_launched_on_the_device_of_their_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which need not be the current one; Triton does not ask."""
    rows, on = made("small", torch.float64), list[Any]()
    for module in (chain, ops):
        monkeypatch.setattr(module, "on", lambda device: on.append(device) or nullcontext())
    said, _ = drawn(rows, FusedLaw, limits=(1, 1, 1, 1))
    law = FusedLaw(Settings.of([PLAIN] * ROWS), said.laws.shape[-1], torch.float64, Kinds(False, False, False))
    law(said.laws)
    uniforms = torch.rand(ROWS, 3 * GAMMA + 2, dtype=torch.float64)
    p = torch.cat((said.laws, said.laws[:, :1]), 1)
    ops.settle(MatchingVerifier(), said.tokens, said.counts, said.laws, p, uniforms, shares=False)
    assert on == [torch.device("cpu")] * 3
    monkeypatch.undo()
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "device", lambda device: device)
        assert ops.on(torch.device("cuda", 1)) == torch.device("cuda", 1)


def test_weights_in_half_precision() -> None:
    """What torch draws in float32 from the same rounded weights, but for the cache, which is rounded as well."""
    rows = made("eagle", torch.bfloat16)
    found, _ = drawn(rows, FusedLaw)
    fresh, runner, layer = fresh_of(rows), rows.runner, rows.runner.layers[0]
    for holder, names in ((runner, ("table", "head")), (layer, ("up_bias", "down_bias")), (rows, ("_k", "_v"))):
        for name in names:
            setattr(holder, name, getattr(holder, name).float())
    for linear in (runner.enter, *(getattr(layer, name) for name in MAPS)):
        linear._plain = linear._plain.float()
    text = rows._text
    assert text is not None
    rows._text = Text(text.k.float(), text.v.float(), text.bias.float())
    right, _ = drawn(rows, Law, fresh=fresh._replace(features=fresh.features.float()))
    assert found.laws.dtype == torch.float32
    alike(found, right, 3e-3)


def test_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer, no larger than pays; as many rows as a GPU runs at once."""
    rows = made("small", torch.float32)
    assert rows.ahead is not None and rows.ahead.takes(4096)
    assert DraftRows(make_drafter("small2", _two()), rows.target, GAMMA, fused=True).ahead is None
    drafter = make_drafter("small", rows.draft)
    assert DraftRows(drafter, rows.target, GAMMA).ahead is None
    monkeypatch.setenv(SWITCH, chain.LAWS_ALONE)
    assert DraftRows(drafter, rows.target, GAMMA, fused=True).ahead is None
    monkeypatch.delenv(SWITCH)
    size = sum(weight.nbytes for weight in rows.ahead.weights[1:])
    for most, there in ((size, True), (size - 1, False)):
        monkeypatch.setattr(chain, "MOST_BYTES", most)
        assert (DraftRows(drafter, rows.target, GAMMA, fused=True).ahead is not None) == there
    monkeypatch.setattr(chain.Ahead, "takes", lambda self, count: count <= 2)
    assert isinstance(few := rows.view(2, ROOM, 9), StaticChain) and few.ahead is not None
    assert isinstance(many := rows.view(4, ROOM, 9), StaticChain) and many.ahead is None


def _two() -> DraftDecoder:
    shape = T2SConfig(9, 20, dim=16, source_depth=1, target_depth=2, heads=2, dim_head=8)
    return DraftDecoder(DraftConfig(16, 2, 2, 8), shape).eval()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_tried_before_it_is_used(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a GPU, when room is made for the first rows: here by hand, with the kernel, one that lies, one that breaks."""
    rows = made("eagle", dtype)
    assert rows.agrees() and not caplog.text
    assert not rows._k.any() and not rows._v.any()
    right = chain.Ahead.draw

    def lie(self: Any, *args: Any) -> Any:
        tokens, counts, laws, fine = right(self, *args)
        return tokens, counts, torch.cat((laws[:, :1], laws[:, 1:].flip(-1)), 1), fine

    def fall(self: Any, *args: Any) -> Any:
        raise RuntimeError("out of resource: shared memory\nand more")

    for fault, why in ((lie, "its laws are others"), (fall, "RuntimeError: out of resource: shared memory)")):
        monkeypatch.setattr(chain.Ahead, "draw", fault)
        caplog.clear()
        assert not rows.agrees()
        assert why in caplog.text and "without it" in caplog.text
