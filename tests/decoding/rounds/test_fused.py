"""The kernels in Triton's interpreter: law for law and token for token what the forms in torch say."""

from __future__ import annotations

import importlib.util
import itertools
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from spear_spec.config import SamplingConfig
from spear_spec.decoding import Request, make_drafter, make_verifier
from spear_spec.decoding.rounds.board import Board
from spear_spec.decoding.rounds.fused import ops
from spear_spec.decoding.rounds.laws import Kinds, Law, Settings
from spear_spec.decoding.rounds.loop import RoundSession
from spear_spec.decoding.verifiers.tensors import Settled, uniforms_for
from spear_spec.engine import Engine
from spear_spec.exactness.oracles import tiny_block, tiny_draft, tiny_model
from spear_spec.models.spear_tts import TextToSemantic
from tests.decoding.rounds.captured import bare_trace, repeated, round_of

EVERY = [
    SamplingConfig(temperature=t, top_k=k, top_p=p)
    for t, k, p in itertools.product((0.0, 0.02, 0.7, 10.0), (0, 1, 7, 5000), (1e-6, 0.1, 0.95, 1.0))
]
PLAIN, COLD = SamplingConfig(temperature=1.0, top_p=1.0), SamplingConfig(temperature=0.0)


@pytest.fixture(scope="module")
def model() -> TextToSemantic:
    return tiny_model(semantic=20, seed=4)


@pytest.fixture(autouse=True)
def _as_in_the_loop() -> Iterator[None]:
    with torch.inference_mode():
        yield


def both(logits: Tensor, samplings: list[SamplingConfig]) -> list[Law]:
    """The form in torch, and the kernel."""
    how, kinds = Settings.of(samplings), Kinds.of(samplings)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return [made(how, logits.shape[-1], dtype, kinds) for made in (Law, ops.FusedLaw)]


def near(law: Tensor, sampling: SamplingConfig) -> bool:
    """Whether a running sum comes so near to top-p that rounding decides."""
    values = law.double().sort(descending=True).values[: sampling.top_k or None]
    return bool(((values.cumsum(-1) - sampling.top_p * values.sum()).abs() < 3e-6).any())


# --- laws and draws -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "dtype"), [(1, torch.float32), (9, torch.float64), (1025, torch.float32)])
def test_it_is_the_law(size: int, dtype: torch.dtype) -> None:
    """Every row with another setting; peaked, flat and wide logits. Left out is what rounding decides: next to none."""
    scale = torch.tensor([0.1, 3.0, 20.0], dtype=dtype)[:, None]
    logits = torch.randn(len(EVERY), 3, size, dtype=dtype) * scale
    torch_form, kernel = both(logits, EVERY)
    (wanted, _), (found, total) = torch_form(logits), kernel(logits)
    assert found.dtype == dtype and total.shape == (len(EVERY), 3)
    torch.testing.assert_close(total, logits.sum(-1), atol=1e-3, rtol=1e-5)
    left_out = 0
    for row, sampling in enumerate(EVERY):
        for place in range(3):
            x = logits[row, place].double()
            soft = torch.softmax((x - x.max()) / (sampling.temperature or 1.0), -1)
            if dtype == torch.float32 and sampling.temperature > 0 and sampling.top_p < 1 and near(soft, sampling):
                left_out += 1
                continue
            torch.testing.assert_close(found[row, place], wanted[row, place], atol=1e-6, rtol=0)
            assert torch.equal(found[row, place] > 1e-30, wanted[row, place] > 1e-30), sampling
    assert left_out <= 6


def test_ties_and_sums_that_meet_the_mass() -> None:
    halves = torch.tensor([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16, 1e-80, 1e-80], dtype=torch.float64).log()
    ties = torch.tensor([[0.0, 2, 0, 2, 0, 2, 0], [1.0] * 7, [5, 4, 4, 4, 3, 3, 9]], dtype=torch.float64)
    rows = torch.cat([ties, halves[None], halves.flip(0)[None]])
    samplings = [
        SamplingConfig(temperature=1.0, top_k=k, top_p=p)
        for k, p in ((2, 1.0), (0, 0.3), (4, 1.0), (3, 0.5), (0, 0.5), (0, 0.75), (0, 0.9375), (7, 1.0), (1, 1e-3))
    ]
    logits = rows.expand(len(samplings), -1, -1).contiguous()
    torch_form, kernel = both(logits, samplings)
    (wanted, _), (found, _) = torch_form(logits), kernel(logits)
    assert torch.equal(found > 0, wanted > 0)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_same_tokens_are_drawn(dtype: torch.dtype) -> None:
    """Number 2 of each row's uniforms; 0, what lies next to 1, and laws with holes among them."""
    samplings = [PLAIN, SamplingConfig(temperature=0.8, top_p=0.6), SamplingConfig(top_k=4), COLD] * 32
    logits, uniforms = (torch.randn(128, 37) * 3).to(dtype), torch.rand(128, 5, dtype=torch.float64)
    uniforms[:4, 2], uniforms[4:8, 2] = 0.0, 1 - 2**-53
    torch_form, kernel = both(logits, samplings)
    wanted, found = (law.draw(logits, uniforms, 2) for law in (torch_form, kernel))
    assert torch.equal(wanted[1], found[1])
    flat, half = torch.zeros(1, 8, dtype=dtype), torch.full((1, 1), 0.5, dtype=torch.float64)
    assert both(flat, [PLAIN])[1].draw(flat, half, 0)[1].item() == 4  # a sum that meets u does not exceed it
    assert (found[0].gather(1, found[1][:, None]) > 0).all()
    torch.testing.assert_close(found[0], wanted[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_logits_are_told(bad: float) -> None:
    """And what is drawn from them is a token all the same: it is looked up."""
    logits = torch.zeros(4, 40)
    logits[1, 39] = logits[3, 0] = bad
    kernel = both(logits, [COLD, COLD, SamplingConfig(), SamplingConfig()])[1]
    law, token, total = kernel.draw(logits, torch.full((4, 1), 0.99, dtype=torch.float64), 0)
    assert total.isfinite().tolist() == [True, False, True, False]
    assert law[[0, 2]].isfinite().all() and ((token >= 0) & (token < 40)).all()


# --- verification ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["block", "rejection", "matching", "coupled"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_same_is_settled(rule: str, dtype: torch.dtype) -> None:
    """Drafts of every length, near their laws and far; tokens that q has not or p has not; padding of NaN."""
    generator = torch.Generator().manual_seed(1)
    rows, gamma, ids = 256, 5, 21
    p = (torch.randn(rows, gamma + 1, ids, generator=generator, dtype=dtype) * 1.5).softmax(-1)
    far = torch.rand(rows, 1, 1, generator=generator, dtype=dtype)
    q = (p[:, :-1].log() + far * torch.randn(rows, gamma, ids, generator=generator, dtype=dtype)).softmax(-1)
    p[:40], q[40:80] = p[:40] * (p[:40] > 0.05), q[40:80] * (q[40:80] > 0.05)
    q[80:90] = p[80:90, :-1]
    counts = torch.randint(0, gamma + 1, (rows,), generator=generator)
    drafted = torch.arange(gamma) < counts[:, None]
    tokens = torch.multinomial(q.reshape(-1, ids), 1, generator=generator).view(rows, gamma)
    tokens[90:100, 0] = q[90:100, 0].argmin(-1)
    q[90:100, 0] = q[90:100, 0].scatter(-1, tokens[90:100, :1], 0.0)
    tokens = tokens.masked_fill(~drafted, 0)
    q, p = q.masked_fill(~drafted[..., None], torch.nan), p.clone()
    p[:, 1:] = p[:, 1:].masked_fill(~drafted[..., None], torch.nan)
    uniforms = torch.rand(rows, gamma + uniforms_for(gamma), generator=generator, dtype=torch.float64)
    verifier: Any = make_verifier(rule)
    shares = bool(getattr(verifier, "shares", False))
    own = uniforms if shares else uniforms.gather(1, counts[:, None] + torch.arange(uniforms_for(gamma)))
    wanted = verifier.settle(tokens, counts, q, p, own)
    wanted = wanted if shares else wanted._replace(used=wanted.used + counts)
    assert ops.settles(verifier)
    found = ops.settle(verifier, tokens, counts, q, p, uniforms, shares=shares)
    for name, mine, theirs in zip(Settled._fields, found, wanted):
        assert torch.equal(mine, theirs), name
    assert found.accepted.max() >= (2 if rule in ("matching", "coupled") else gamma)


def test_a_rule_of_ones_own_decides_itself() -> None:
    class Own(type(make_verifier("block"))):  # type: ignore[misc]
        pass

    assert not ops.settles(Own()) and not ops.settles(make_verifier("typical", {"eps": 0.2, "delta": 0.6}))  # type: ignore[arg-type]


# --- rounds ---------------------------------------------------------------------------------------------------------


def made_of(model: TextToSemantic, rule: str | None, name: str = "eagle") -> tuple[Any, ...]:
    if rule is None:
        return (None, None, 3)
    draft = tiny_block(model) if name == "block" else tiny_draft(model)
    return (make_drafter(name, draft), make_verifier(rule), 3)


@pytest.mark.parametrize(
    ("rule", "name", "laws"),
    [
        (None, "", [PLAIN, COLD]),
        ("block", "eagle", [SamplingConfig(temperature=1.2, top_p=0.9), COLD]),
        ("rejection", "block", [PLAIN, COLD]),
        ("coupled", "eagle", [PLAIN]),
    ],
)
def test_rounds_say_what_the_eager_engine_says(
    model: TextToSemantic, rule: str | None, name: str, laws: list[SamplingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    filtered = any(law.top_p < 1 for law in laws)  # which takes the interpreter long
    wanted = [Request([n + 1, 2], seed=n, sampling=law, cap=5 if filtered else 9 + n) for n, law in enumerate(laws)]
    made = made_of(model, rule, name)
    right = Engine(model, *made).run(wanted)
    monkeypatch.delattr(Law, "__call__")  # no form in torch
    found = Engine(model, *made, Board(model, *made, fused=True)).run(wanted)
    assert [(u.tokens, u.ended, vars(u.stats)) for u in found] == [(u.tokens, u.ended, vars(u.stats)) for u in right]
    assert rule is None or rule == "coupled" or any(u.stats.accepted for u in found)


def session(model: TextToSemantic, rule: str | None, *, fused: bool) -> RoundSession:
    made = RoundSession(Board(model, *made_of(model, rule), fused=fused))
    made.admit([Request([n + 1, 2], seed=n, sampling=law, cap=30) for n, law in enumerate((PLAIN, COLD))])
    return made


@pytest.mark.parametrize("rule", [None, "block", "coupled"])
def test_such_a_round_can_be_captured_and_is_short(model: TextToSemantic, rule: str | None) -> None:
    found, plain = (round_of(session(model, rule, fused=fused)) for fused in (True, False))
    fused = bare_trace(found)
    kernels = [name for name, _ in fused if name.startswith("spear_spec.")]
    assert kernels == [f"spear_spec.{name}" for name in (["law"] if rule is None else ["chain", "law", "settle"])]
    assert len(fused) < len(bare_trace(plain)) - (15 if rule is None else 300)
    assert repeated(found) == fused, "the device without values is told other shapes"


def test_where_there_are_kernels(model: TextToSemantic, monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA alone, with Triton, for laws that fit; everywhere else torch does it."""
    cuda = torch.device("cuda")
    monkeypatch.setattr(ops, "works", lambda device: True)
    assert ops.available(cuda, 1025) and not ops.available(torch.device("cpu"), 1025)
    assert not ops.available(cuda, ops.MOST_IDS + 1)
    monkeypatch.setenv(ops.SWITCH, "0")
    assert not ops.available(cuda, 1025)
    monkeypatch.delenv(ops.SWITCH)
    monkeypatch.setattr(ops, "works", lambda device: False)
    assert not ops.available(cuda, 1025)
    assert not Board(model, None, None, 3).fused


def test_a_triton_that_does_not_work_is_told_and_left_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The check that is made on a device, on this one: it passes; it fails with a kernel that lies or breaks."""
    here = torch.device("cpu")
    assert ops.works.__wrapped__(here)
    right = ops.FusedLaw.draw

    def lie(self: Any, *args: Any) -> Any:
        law, token, total = right(self, *args)
        return law, token + 1, total

    def fall(self: Any, *args: Any) -> Any:
        raise RuntimeError("Failed to find C compiler\nand more")

    for fault, why in ((lie, "its numbers are others"), (fall, "RuntimeError: Failed to find C compiler)")):
        monkeypatch.setattr(ops.FusedLaw, "draw", fault)
        caplog.clear()
        assert not ops.works.__wrapped__(here)
        assert why in caplog.text and "without its kernels" in caplog.text
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    caplog.clear()
    assert not ops.works.__wrapped__(here) and not caplog.text


# --- for a GPU that is not here -------------------------------------------------------------------------------------

BUILD = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from spear_spec.decoding.rounds.fused import ahead, kernels


def build(kernel, pointers, strides=(), **constants):
    names = kernel.arg_names
    kinds = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in names}
    source = ASTSource(
        kernel, kinds, {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in (*pointers, *strides)},
    )
    built = triton.compile(source, GPUTarget("cuda", 90, 32), {"num_warps": 8})
    assert len(built.asm["cubin"]) > 1000 and built.metadata.shared < 2**16


build(
    kernels.law,
    {"logits": "*bf16", "temperature": "*fp64", "top_k": "*i64", "top_p": "*fp64", "uniforms": "*fp64",
     "laws": "*fp32", "tokens": "*i64", "totals": "*fp32"},
    FROZEN=1e-37, TOP_K=True, TOP_P=True, GREEDY=True, DRAW=True, REAL=tl.float32, WHOLE=tl.int32, BITS=30, R=1, B=2048,
)
for rule in (kernels.BLOCK, kernels.MATCHING):
    build(
        kernels.verify,
        {"tokens": "*i64", "counts": "*i64", "q": "*fp32", "p": "*fp32", "uniforms": "*fp64", "settled": "*i64",
         "accepted": "*i64", "used": "*i64"},
        RULE=rule.value, SHARES=rule is kernels.MATCHING, REAL=tl.float32, R=1, B=2048,
    )
own = {"hidden", "lengths", "limits", "uniforms", "temperature", "top_k", "top_p", "turns", "notes", "tokens", "counts",
       "laws", "fine"}
weights = ahead.chain.arg_names[:ahead.chain.arg_names.index("notes")]
half = {name: "*bf16" for name in weights if name not in own and not name.endswith(("_row", "_head", "_line"))}
build(
    ahead.chain,
    {"hidden": "*bf16", "lengths": "*i64", "limits": "*i64", "uniforms": "*fp64", "temperature": "*fp64",
     "top_k": "*i64", "top_p": "*fp64", "turns": "*fp32", "notes": "*fp32", "tokens": "*i64", "counts": "*i64",
     "laws": "*fp32", "fine": "*i1", **half},
    ("key_row", "key_head", "key_line", "text_row", "text_head", "text_line", "bias_row"),
    FED=True, DIM=256, HEADS=4, SIZE=64, INNER=341, LINE=352, IDS=1025, PAGE=1040, SCALE=0.125, TINY=1e-6,
    FROZEN=1e-37, TOP_K=True, TOP_P=True, GREEDY=True, REAL=tl.float32, WHOLE=tl.int32, BITS=30, R=1, WIDE=256, H=4,
    N=64, M=512, B=2048, TILE=2**13,
)
"""


def test_they_compile_for_a_gpu(tmp_path: Any) -> None:
    """What the interpreter lets pass a compiler may not: types of loops, shapes, what a GPU has."""
    root = str(ops.__file__).rsplit("/spear_spec/", 1)[0]
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": paths}
    script = tmp_path / "build.py"  # Triton reads the source of kernels, not of this
    script.write_text(BUILD)
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
