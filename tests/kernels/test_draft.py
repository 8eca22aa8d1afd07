"""The draft's step in C against the same weights in float64 on torch, and what happens where it cannot be used.

The kernel is a part of every build that has a compiler, so nothing here is skipped where it is missing: it fails.
"""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.config import DraftConfig, T2SConfig
from spear_spec.errors import ContractError
from spear_spec.exactness.oracles import TEXTS, texts
from spear_spec.kernels import native, structures
from spear_spec.kernels.packed import PackedLinear
from spear_spec.models.drafts.decoder import DraftDecoder, DraftState
from spear_spec.models.drafts.runner import DraftRunner
from spear_spec.models.memory import Memory
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.nn.cache import KVCache
from spear_spec.nn.tree import Tree

ROOT = Path(__file__).parents[2]
# dim, heads, dim_head, ff_mult; the last is the shipped voice's, whose feed-forward is 341 wide
SIZES = [(20, 3, 6, 2), (33, 2, 34, 4), (256, 4, 64, 2)]
BOUND = 6e-4  # of the largest entry: float32 sums of some hundred terms, and the errors of a draft that amplifies them


@pytest.fixture(autouse=True)
def _switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)


@dataclass
class Case:
    """A draft on its target, its runner with the kernel, and the oracle: the runner's torch path in float64, rounded
    weights.
    """

    model: TextToSemantic
    draft: DraftDecoder
    runner: DraftRunner
    oracle: DraftRunner
    head: Tensor
    wide: tuple[TextToSemantic, DraftDecoder]

    def states(self, ids: Tensor, capacity: int = 3) -> tuple[DraftState, DraftState]:
        model, draft = self.wide
        return self.draft.start(self.model.encode(ids), capacity), draft.start(model.encode(ids), capacity)


def rounded(x: Tensor) -> Tensor:
    """Rows [R, in] as the kernel rounds them: to whole steps, so many that sums with codes of 127 stay below 2^31."""
    width = x.shape[1] + x.shape[1] % 2
    step = x.abs().amax(1, keepdim=True) / min(2**15 - 1, (2**31 - 1) // (127 * width))
    return (x / step).round().nan_to_num() * step


class Oracle(PackedLinear):
    """A map on what the kernel makes of its input."""

    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(rounded(x))

    def add(self, x: Tensor, to: Tensor) -> Tensor:
        return super().add(rounded(x), to)


def dequantised(packed: PackedLinear) -> Tensor:
    """[in, out] in float64."""
    codes, scale = packed.rounded()
    return (codes.double() * scale.double()[:, None]).t()


def case(size: tuple[int, int, int, int] = SIZES[0], depth: int = 1) -> Case:
    dim, heads, dim_head, ff_mult = size
    torch.manual_seed(depth)
    cfg = T2SConfig(
        num_text_token_ids=7,
        num_semantic_token_ids=40,
        dim=dim,
        source_depth=1,
        target_depth=2,
        heads=heads,
        dim_head=dim_head,
    )
    model = TextToSemantic(cfg).eval()
    draft = DraftDecoder(DraftConfig(dim, depth, heads, dim_head, ff_mult, (1, 2)), cfg).eval()
    with torch.no_grad():
        for weight in draft.parameters():  # gains and biases that are not one and zero
            weight.add_(0.2 * torch.randn_like(weight))
    wide = copy.deepcopy(model).double(), copy.deepcopy(draft).double()
    with torch.inference_mode():
        runner, oracle = DraftRunner(draft, model), DraftRunner(wide[1], wide[0], exact=True)
        pairs = [(runner.enter, oracle.enter)]
        for ours, theirs in zip(runner.layers, oracle.layers):
            pairs += [
                (value, getattr(theirs, name)) for name, value in vars(ours).items() if isinstance(value, PackedLinear)
            ]
        assert len(pairs) == 1 + 6 * depth
        for ours, theirs in pairs:
            theirs._plain = dequantised(ours)
            theirs.__class__ = Oracle
        head = dequantised(PackedLinear(runner.head.t()))
    return Case(model, draft, runner, oracle, head, wide)


def differ(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


class Counted:
    """The kernel, counting its calls."""

    def __init__(self, runner: DraftRunner) -> None:
        assert runner.native is not None, native.reason()
        self.kernel, self.steps = runner.native, 0
        runner.native = self  # type: ignore[assignment]

    def step(self, *args: Any) -> Tensor:
        self.steps += 1
        return self.kernel.step(*args)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.kernel.logits(hidden)


def test_the_kernel_is_there() -> None:
    assert native.reason() is None
    assert native.available()


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("batch", [1, 4])
@torch.inference_mode()
def test_steps_equal_float64(size: tuple[int, int, int, int], depth: int, batch: int, masked: bool) -> None:
    """Ragged rows; the cache is cropped, grows beyond its capacity, and loses rows."""
    it = case(size, depth)
    counted = Counted(it.runner)
    ids = texts(batch) if batch > 1 and masked else torch.tensor([[*TEXTS[0], 0, 0] if masked else TEXTS[0]] * batch)
    ours, theirs = it.states(ids)
    assert (ours.cross_mask is not None) == masked
    lengths = (1, 1, 1, 3, 1, 1, 4, 1, 1, 2, 1, 1)
    for turn, length in enumerate(lengths):
        rows = ours.cache.batch
        tokens = torch.randint(0, 42, (rows, length))
        features = torch.randn(rows, length, size[0])
        if turn == 0:
            tokens.fill_(it.model.start_id)
            features.zero_()
        one = it.runner.step(tokens, features, ours)
        two = it.oracle.step(tokens, features.double(), theirs)
        assert differ(one, two) < BOUND
        logits = rounded(two[:, -1] / two[:, -1].norm(dim=-1, keepdim=True)) @ it.head
        assert differ(it.runner.logits(one[:, -1]), logits) < BOUND
        kept = (
            [max(0, n - int(torch.randint(0, 3, ()))) for n in ours.cache.lengths] if turn % 2 else ours.cache.lengths
        )
        for state in (ours, theirs):
            state.cache.crop(kept)
            if turn == 7 and batch > 1:
                state.select([3, 1] if masked else [1, 3])  # in order: the store keeps a gap between layers
        assert ours.cache.lengths == theirs.cache.lengths
    assert counted.steps == len(lengths)
    assert ours.cache.capacity > 3


@pytest.mark.parametrize("batch", [1, 3])
@torch.inference_mode()
def test_trees_equal_float64(batch: int) -> None:
    """Two levels behind prefixes of different lengths; nodes see their ancestors alone."""
    it = case()
    counted = Counted(it.runner)
    states = it.states(texts(batch))
    for state, runner in zip(states, (it.runner, it.oracle)):
        torch.manual_seed(3)
        runner.step(torch.randint(0, 40, (batch, 5)), torch.randn(batch, 5, 20).to(state.cache.k.dtype), state)
        state.cache.crop([5, 2, 3][:batch])
    parents = torch.tensor([[-1, -1, 0, 0, 1, 1], [-1, -1, 1, 0, 1, 0], [-1, -1, 1, 1, 1, 1]][:batch])
    whole = Tree.from_lists(parents.tolist() if isinstance(parents, torch.Tensor) else parents)
    for begin, end in ((0, 2), (2, 6)):
        tree = Tree(whole.mask[:, :end, :end], whole.depth[:, :end])
        tokens, features = torch.randint(0, 40, (batch, end - begin)), torch.randn(batch, end - begin, 20)
        one = it.runner.step(tokens, features, states[0], tree)
        assert differ(one, it.oracle.step(tokens, features.double(), states[1], tree)) < BOUND
    assert counted.steps == 3


@torch.inference_mode()
def test_padding_is_left_out() -> None:
    """What is there has the bits that it has beside padding; padding gives 0, needs no token that exists, and leaves
    the cache alone.
    """
    it = case(SIZES[2], 2)
    memory = it.model.encode(texts(4))
    padded, counted = it.draft.start(memory), it.draft.start(memory)
    counts = [3, 1, 0, 2]
    for turn in range(3):
        tokens, features = torch.randint(0, 40, (4, 3)), torch.randn(4, 3, 256)
        expected = it.runner.step(tokens, features, padded)
        inside = torch.arange(3) < torch.tensor(counts)[:, None]
        counted.cache.reserve(99)
        before = counted.cache.k.clone()
        found = it.runner.step(
            tokens.masked_fill(~inside, -7), features.masked_fill(~inside[..., None], torch.nan), counted, counts=counts
        )
        assert torch.equal(found, expected.masked_fill(~inside[..., None], 0.0))
        assert torch.equal(counted.cache.k[:, 2], before[:, 2])
        kept = [turn * n + n for n in counts]
        for state in (padded, counted):
            state.cache.crop(kept)


@torch.inference_mode()
def test_a_row_has_the_same_bits_alone_and_in_a_batch() -> None:
    """Whatever its neighbours, their lengths, and the padding of its text."""
    it = case(SIZES[2])
    together = it.draft.start(it.model.encode(texts(4)))
    assert together.cross_mask is not None
    alone = []
    for row, text in enumerate(TEXTS[:4]):
        cross = [
            (k[row : row + 1, :, : len(text) + 1].clone(), v[row : row + 1, :, : len(text) + 1].clone())
            for k, v in together.cross
        ]
        memory = together.memory
        hidden, mask = memory.hidden[row : row + 1, : len(text)], memory.mask[row : row + 1, : len(text)]
        alone.append(DraftState(KVCache(1, 1, 4, 2, 64), Memory.of(hidden, mask, cross)))
    for length in (3, 1, 2, 1, 1):
        tokens, features = torch.randint(0, 40, (4, length)), torch.randn(4, length, 256)
        hidden = it.runner.step(tokens, features, together)
        kept = [max(1, n - row) for row, n in enumerate(together.cache.lengths)]
        together.cache.crop(kept)
        logits = it.runner.logits(hidden[:, -1])
        for row, state in enumerate(alone):
            single = it.runner.step(tokens[row : row + 1], features[row : row + 1], state)
            assert torch.equal(single[0], hidden[row])
            assert torch.equal(it.runner.logits(single[:, -1])[0], logits[row])
            state.cache.crop([kept[row]])


@torch.inference_mode()
def test_nan_stays_nan() -> None:
    """Of a feature, of a key that is seen, of a value that is seen; in its own row alone."""
    it = case()
    for where in ("features", "k", "v", "hidden"):
        state = it.draft.start(it.model.encode(texts(2)))
        features = torch.randn(2, 1, 20)
        it.runner.step(torch.tensor([[1], [2]]), features, state)
        if where == "hidden":
            features[1, 0, 3] = torch.nan
            logits = it.runner.logits(features[:, 0])
            assert logits[1].isnan().all() and logits[0].isfinite().all()
            continue
        if where == "features":
            features[1, 0, 3] = torch.nan
        else:
            getattr(state.cache, where)[0, 1, 0, 0, 2] = torch.nan
        hidden = it.runner.step(torch.tensor([[1], [2]]), features, state)
        assert hidden[1].isnan().all() and hidden[0].isfinite().all()


@torch.inference_mode()
def test_extreme_attention_is_finite() -> None:
    """Weights far below the smallest float32, and a single key."""
    it = case(SIZES[2])
    ours, theirs = it.states(torch.tensor([TEXTS[0]]))
    for state in (ours, theirs):
        state.memory = replace(state.memory, cross=[(200 * k, v) for k, v in state.cross])
    for _ in range(3):
        tokens, features = torch.randint(0, 40, (1, 1)), torch.randn(1, 1, 256)
        assert (
            differ(it.runner.step(tokens, features, ours), it.oracle.step(tokens, features.double(), theirs))
            < 50 * BOUND
        )


@torch.inference_mode()
def test_unknown_tokens_are_refused() -> None:
    it = case()
    state = it.draft.start(it.model.encode(texts(1)))
    for token in (-1, 42):
        with pytest.raises(ContractError, match="token id"):
            it.runner.step(torch.tensor([[token]]), torch.zeros(1, 1, 20), state)


def test_where_torch_runs_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other dtypes, exact weights, many tokens at once; and the two agree to the rounding of bfloat16."""
    it = case(SIZES[2])
    assert it.oracle.native is None
    assert DraftRunner(it.draft, it.model, exact=True).native is None
    counted = Counted(it.runner)
    monkeypatch.setenv(native.SWITCH, "0")
    assert native.reason() == "SPEAR_SPEC_NATIVE=0" and not native.available()
    plain = DraftRunner(it.draft, it.model)
    assert plain.native is None
    with torch.no_grad():
        memory = it.model.encode(texts(3))
        ours, theirs = it.draft.start(memory), it.draft.start(memory)
        for turn in range(5):
            tokens, features = torch.randint(0, 40, (3, 1)), torch.randn(3, 1, 256)
            one, two = it.runner.step(tokens, features, ours), plain.step(tokens, features, theirs)
            assert 0 < differ(one, two) < 0.06
            assert 0 < differ(it.runner.logits(one[:, 0]), plain.logits(two[:, 0])) < 0.06
            assert counted.steps == turn + 1
        it.runner.step(torch.zeros(3, 50, dtype=torch.long), torch.randn(3, 50, 256), ours)
    assert counted.steps == 5


def build(folder: Path, **environment: str) -> tuple[str, list[Path]]:
    """Build the extension as an install does; returns what was printed and what was made."""
    command = [
        sys.executable,
        "-c",
        "from setuptools import setup; setup()",
        "build_ext",
        "--build-lib",
        str(folder),
        "--build-temp",
        str(folder / "temp"),
    ]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr, sorted((folder / "spear_spec" / "kernels").glob("_native*"))


def test_an_install_without_compiler_goes_on(tmp_path: Path) -> None:
    _, built = build(tmp_path, CC="/bin/false")
    assert built == []
    assert native._open(tmp_path / "spear_spec" / "kernels") == (
        None,
        "not built: the package was installed without a working C compiler",
    )


def test_a_build_can_be_loaded_and_old_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "gcc"  # which does not optimise: a sixth of the time
    compiler.write_text('#!/bin/sh\nexec gcc "$@" -O0\n')
    compiler.chmod(0o755)
    printed, built = build(tmp_path, CC=str(compiler))
    assert [path.name for path in built] == ["_native.abi3.so"], printed
    library, why = native._open(built[0].parent)
    assert library is not None and why is None
    monkeypatch.setattr(structures, "VERSION", -1)
    assert "install the package again" in str(native._open(built[0].parent)[1])
    (tmp_path / "_native.so").write_bytes(b"no library")
    assert "cannot be loaded" in str(native._open(tmp_path)[1])
