"""C never gets a pointer that was not checked, and nothing that a process can set changes what the kernels give."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.config import DraftConfig, SamplingConfig
from spear_spec.errors import ContractError
from spear_spec.exactness.oracles import texts, tiny_model
from spear_spec.kernels import native
from spear_spec.kernels.draft import NativeDraft
from spear_spec.kernels.pointers import pointer, stacked_pointer
from spear_spec.models.drafts.decoder import DraftDecoder
from spear_spec.models.drafts.runner import DraftRunner
from spear_spec.models.spear_tts import Memory
from spear_spec.nn.tree import Tree

BATCH, COUNT, DIM = 2, 3, 16


def never(*args: Any) -> int:
    """In place of a function of the library: what is refused must not reach it."""
    raise AssertionError("called")


@dataclasses.dataclass
class Call:
    """The arguments of a step that is in order; each test spoils one."""

    kernel: NativeDraft
    given: dict[str, Any]

    def step(self) -> Tensor:
        return self.kernel.step(**self.given)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.delenv(native.SWITCH, raising=False)
    model = tiny_model(semantic=12, dtype=torch.float32)
    draft = DraftDecoder(DraftConfig(dim=DIM, depth=2, heads=2, dim_head=8, target_layers=()), model.cfg).eval()
    with torch.inference_mode():
        runner = DraftRunner(draft, model)
        state = draft.start(model.encode(texts(BATCH)), capacity=9)
    state.cache.lengths = [4, 2]
    assert runner.native is not None and state.cross_mask is not None
    given = {
        "tokens": torch.ones(BATCH, COUNT, dtype=torch.int64),
        "features": torch.zeros(BATCH, COUNT, DIM),
        "cache": state.cache,
        "cross": state.cross,
        "cross_mask": state.cross_mask,
        "angles": runner.angles(9),
        "tree": Tree.from_lists([[-1, 0, 0, 1]] * BATCH),
        "counts": [3, 1],
    }
    found = Call(runner.native, given)
    assert found.step().isfinite().all()
    found.kernel._step = found.kernel._chain = found.kernel._logits = never
    return found


def spoilt(x: Tensor) -> Iterator[Tensor]:
    """The same tensor with another dtype, device, size or layout."""
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool, torch.complex128):
        if x.dtype != dtype:
            yield (x.abs() if x.is_complex() and not dtype.is_complex else x).to(dtype)
    yield x.to("meta")
    yield x[:-1]
    yield x[..., :-1]
    yield x[..., None]
    yield torch.cat((x, x), -1)
    yield torch.cat((x, x), 0)


def put(name: str) -> Callable[[Call, Tensor], None]:
    def change(call: Call, value: Tensor) -> None:
        call.given[name] = value

    return change


def put_cross(index: int, pair: int) -> Callable[[Call, Tensor], None]:
    def change(call: Call, value: Tensor) -> None:
        both = [list(layer) for layer in call.given["cross"]]
        both[index][pair] = value
        call.given["cross"] = [tuple(layer) for layer in both]

    return change


def put_cache(name: str) -> Callable[[Call, Tensor], None]:
    def change(call: Call, value: Tensor) -> None:
        setattr(call.given["cache"], name, value)

    return change


def put_tree(name: str) -> Callable[[Call, Tensor], None]:
    def change(call: Call, value: Tensor) -> None:
        call.given["tree"] = dataclasses.replace(call.given["tree"], **{name: value})

    return change


PLACES: dict[str, tuple[Callable[[Call], Tensor], Callable[[Call, Tensor], None]]] = {
    "tokens": (lambda call: call.given["tokens"], put("tokens")),
    "features": (lambda call: call.given["features"], put("features")),
    "mask of the text": (lambda call: call.given["cross_mask"], put("cross_mask")),
    "rotations": (lambda call: call.given["angles"][:7], put("angles")),
    "keys of the text": (lambda call: call.given["cross"][0][0], put_cross(0, 0)),
    "values of the text": (lambda call: call.given["cross"][1][1], put_cross(1, 1)),
    "keys": (lambda call: call.given["cache"].k, put_cache("k")),
    "values": (lambda call: call.given["cache"].v, put_cache("v")),
    "mask of the tree": (lambda call: call.given["tree"].mask, put_tree("mask")),
    "depth of the tree": (lambda call: call.given["tree"].depth, put_tree("depth")),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_step_refuses_each_tensor_that_is_not_as_it_must_be(place: str, call: Call) -> None:
    right, change = PLACES[place]
    for wrong in spoilt(right(call)):
        if place == "rotations" and wrong.shape == (14, 4):
            continue  # more than are needed is in order
        before = dict(call.given), call.given["cache"].k, call.given["cache"].v
        change(call, wrong)
        with pytest.raises(ContractError) as caught:
            call.step()
        assert "\n" not in str(caught.value)
        call.given, call.given["cache"].k, call.given["cache"].v = before


@pytest.mark.parametrize(
    "change",
    [
        lambda given: given["cache"].lengths.append(0),
        lambda given: given["cache"].lengths.__setitem__(0, 7),  # no room for three
        lambda given: given["cache"].lengths.__setitem__(1, 0),  # the tree's first node is not there
        lambda given: given["cache"].lengths.__setitem__(1, -1),
        lambda given: given["counts"].__setitem__(0, 4),
        lambda given: given["counts"].__setitem__(1, -1),
        lambda given: given["counts"].append(1),
        lambda given: given["cross"].append(given["cross"][0]),
        lambda given: given["cross"].clear(),
        lambda given: given.update(tree=Tree.from_lists([[-1, 0]] * BATCH)),  # fewer nodes than tokens
        lambda given: given.update(angles=given["angles"][:6]),
        lambda given: given.update(cross_mask=None, cross=[(k[:, :, :0], v[:, :, :0]) for k, v in given["cross"]]),
    ],
)
def test_a_step_refuses_lists_that_do_not_fit(change: Callable[[dict[str, Any]], Any], call: Call) -> None:
    change(call.given)
    with pytest.raises(ContractError):
        call.step()


def test_what_takes_reading_is_checked_in_c(call: Call) -> None:
    """Ids and depths outside what there is."""
    call.kernel._step = native.library().spear_draft_step
    call.step()
    for depth in (-1, 4, 2**40):
        tree = call.given["tree"]
        call.given["tree"] = dataclasses.replace(tree, depth=tree.depth.clone().index_fill_(1, torch.tensor(2), depth))
        with pytest.raises(ContractError, match="deeper than there are nodes"):
            call.step()
        call.given["tree"] = tree
    for token in (-1, 14, 2**40):
        call.given["tokens"][0, 1] = token
        with pytest.raises(ContractError, match="token id"):
            call.step()


def test_strides_are_seen(call: Call) -> None:
    """Inputs that lie otherwise are copied, what C writes into is refused; layers may not lie upon each other."""
    call.kernel._step = native.library().spear_draft_step
    expected = call.step()
    features = call.given["features"]
    call.given["features"] = features.transpose(1, 2).contiguous().transpose(1, 2)
    call.given["cross"] = [
        (k.transpose(1, 2).contiguous().transpose(1, 2), v.repeat(1, 1, 1, 2)[..., :8]) for k, v in call.given["cross"]
    ]
    assert torch.equal(call.step(), expected)
    cache = call.given["cache"]
    k = cache.k
    cache.k = k.transpose(2, 3).contiguous().transpose(2, 3)
    with pytest.raises(ContractError, match="strides"):
        call.step()
    cache.k = k[:1].expand_as(k)
    with pytest.raises(ContractError, match="strides"):
        call.step()
    cache.k = torch.cat((k, k), 1)[:, :2]
    with pytest.raises(ContractError, match="lie alike"):
        call.step()


def chain(call: Call, **changed: Any) -> Any:
    given = {key: call.given[key] for key in ("cache", "cross", "cross_mask", "angles")}
    given |= {"hidden": torch.ones(BATCH, 1, DIM), "limits": [2, 3], "uniforms": [[0.5] * 3] * 2, "eos": 12}
    return call.kernel.chain(**(given | {"sampling": SamplingConfig()} | changed))


def test_a_chain_refuses_what_does_not_fit(call: Call) -> None:
    for hidden in spoilt(torch.zeros(BATCH, 1, DIM)):
        with pytest.raises(ContractError):
            chain(call, hidden=hidden)
    for changed in (
        {"limits": []},
        {"limits": [0, 0]},
        {"limits": [2]},
        {"limits": [2, 6], "uniforms": [[0.5] * 6] * 2},  # no room
        {"uniforms": [[0.5] * 3]},
        {"uniforms": [[0.5] * 3, [0.5] * 2]},
        {"uniforms": [[0.5] * 4] * 2},
        {"entropy": [1.0]},
        {"least": [0.1] * 3},
        {"sampling": [SamplingConfig()]},
    ):
        with pytest.raises(ContractError):
            chain(call, **changed)
    call.kernel._chain = native.library().spear_draft_chain
    assert chain(call)[1].isfinite().all()


def test_head_and_laws_refuse_other_tensors(call: Call) -> None:
    for hidden in spoilt(torch.zeros(2, DIM)):
        if hidden.dtype == torch.float32 and hidden.is_cpu and hidden.ndim == 2 and hidden.shape[1] == DIM:
            continue  # another number of rows is in order
        with pytest.raises(ContractError):
            call.kernel.logits(hidden)
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int64):
        with pytest.raises(ContractError):
            native.law_of(torch.zeros(2, 9, dtype=dtype), SamplingConfig())
    for logits in (torch.zeros(2, 9, device="meta"), torch.zeros(()), torch.zeros(2, 0)):
        with pytest.raises(ContractError):
            native.law_of(logits, SamplingConfig())
    assert native.law_of(torch.zeros(0, 9), SamplingConfig()).shape == (0, 9)


def test_what_has_no_plain_store_is_refused() -> None:
    """Sparse tensors; views that negate or conjugate, which hold other values than they say."""
    with pytest.raises(ContractError, match="sparse"):
        pointer(torch.zeros(2, 9).to_sparse(), (2, 9), torch.float32, "logits")
    turned = torch.polar(torch.ones(3), torch.arange(3.0))
    with pytest.raises(ContractError):
        pointer(turned.conj(), (3,), torch.complex64, "rotations")
    negative = turned.conj().imag
    assert negative.is_neg()
    with pytest.raises(ContractError):
        stacked_pointer(negative[:, None, None, None, None], (3, 1, 1, 1, 1), torch.float32, "keys")


# --- what a process can set -------------------------------------------------------------------------------------------


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def global_seed() -> Iterator[None]:
    torch.manual_seed(99)
    yield


SETTINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "autocast to half": lambda: torch.autocast("cpu", torch.float16),
    "gradients": torch.enable_grad,
    "no gradients": torch.no_grad,
    "inference mode": torch.inference_mode,
    "three threads": lambda: threads(3),
    "global seed": global_seed,
}


def everything(runner: DraftRunner, draft: DraftDecoder, memory: Memory) -> list[Tensor]:
    """A ragged step, a tree, the head, a chain of two samplings, laws: what decoding calls.

    The draft's own module makes the state, which is not the runner's doing: without autocast.
    """
    with torch.autocast("cpu", enabled=False), torch.no_grad():
        state = draft.start(memory)
    cpu, float32 = torch.device("cpu"), runner.table.dtype
    generator = torch.Generator().manual_seed(5)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=float32, device=cpu)

    def tokens(*shape: int) -> Tensor:
        return torch.randint(0, 12, shape, generator=generator, dtype=torch.int64, device=cpu)

    found = [runner.step(tokens(2, 3), random(2, 3, DIM), state, counts=[3, 1])]
    state.cache.crop([3, 1])
    found.append(runner.step(tokens(2, 3), None, state, Tree.from_lists([[-1, 0, 0], [-1, -1, 1]])))
    found.append(runner.logits(found[-1][:, -1]))
    samplings = [SamplingConfig(temperature=1.2), SamplingConfig(top_k=4)]
    if runner.chains(2):
        drawn, laws = runner.chain(
            found[1][:, -1:], [3, 2], [native.uniforms(row, 0, 3) for row in range(2)], samplings, 12, state
        )
        assert laws is not None
        found += [laws, torch.tensor([token for row in drawn for token in row], dtype=torch.int64, device=cpu)]
        found.append(native.law_of(found[2], samplings))
    return [x.clone() for x in found]


@pytest.mark.parametrize("kind", ["native", "torch", "exact", "double"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_changes_a_bit(setting: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a runner made before, and of one made and used under the setting."""
    monkeypatch.setenv(native.SWITCH, "1" if kind == "native" else "0")
    dtype = torch.float64 if kind == "double" else torch.float32
    model = tiny_model(semantic=12, dtype=dtype)
    draft = DraftDecoder(DraftConfig(dim=DIM, depth=2, heads=2, dim_head=8, target_layers=(1,)), model.cfg)
    draft = draft.to(dtype).eval()
    with torch.inference_mode():
        memory = model.encode(texts(2))
        runner = DraftRunner(draft, model, exact=kind == "exact")
        expected = everything(runner, draft, memory)
    assert runner.chains(2) == (kind == "native")
    with SETTINGS[setting]():
        for used in (runner, DraftRunner(draft, model, exact=kind == "exact")):
            for one, two in zip(everything(used, draft, memory), expected, strict=True):
                assert one.dtype == two.dtype and one.device == two.device and not one.requires_grad
                assert torch.equal(one, two)
