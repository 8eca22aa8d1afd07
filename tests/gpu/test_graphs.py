"""Graphs on a GPU: the eager engine's tokens, the target's law, the shipped voice, rows that come and go.

`recipes/gpu.sh bench` runs these there, and DEVICE=cpu rehearses them anywhere. The machine has no text front end, so
the voice is given text ids.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import Parts, Request, make_drafter, make_verifier
from spear_spec.decoding.chance import SENTENCE, derive
from spear_spec.decoding.request import encode
from spear_spec.decoding.rounds.board import Board
from spear_spec.decoding.rounds.draft import Fresh
from spear_spec.decoding.rounds.draft_rows import DraftRows
from spear_spec.decoding.rounds.fused import ops
from spear_spec.decoding.rounds.laws import Law, Settings
from spear_spec.decoding.sampling import probabilities
from spear_spec.decoding.verifiers.tensors import categorical, uniforms_for
from spear_spec.engine import Decoder, Engine, Utterance
from spear_spec.exactness.oracles import UncachedTarget, chi_square, tiny_block, tiny_draft, tiny_model
from spear_spec.models.spear_tts import TextToSemantic
from spear_spec.runtime.static import Arrived
from spear_spec.voice.bundle import open_voice
from spear_spec.voice.drafts import Drafts
from spear_spec.voice.parts import load_target

pytestmark = pytest.mark.gpu
DEVICE = torch.device(os.environ.get("DEVICE") or "cuda")
SMALL = DEVICE.type == "cpu"  # a rehearsal
IDS = Path(__file__).parents[2] / "recipes" / "benchmark" / "ids.json"
TEXTS = [[3, 1, 4], [2], [5, 5, 6, 2, 1], [6], [1, 2, 3], [4, 4], [2, 6, 1, 5], [3]]
MIXED = [
    SamplingConfig(temperature=1.0, top_p=1.0),
    SamplingConfig(temperature=1.2, top_p=0.9),
    SamplingConfig(temperature=0.5, top_k=4, top_p=1.0),
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=1.2, top_p=0.9, guidance=2.0),
]
RULES: dict[str, dict[str, Any]] = {
    "rejection": {}, "block": {}, "matching": {}, "coupled": {}, "tolerance": {"b": 0.2}, "lenience": {"l": 0.6},
    "typical": {"eps": 0.2, "delta": 0.6}, "coarse": {"theta": 0.3},
}  # fmt: skip


def requests(count: int, seed: int = 0) -> list[Request]:
    rng = random.Random(seed)
    return [
        Request(
            TEXTS[n % 8],
            prefix=tuple(rng.randrange(20) for _ in range(rng.choice((0, 0, 1, 4)))),
            seed=derive(seed, n, SENTENCE),
            sampling=rng.choice(MIXED),
            cap=rng.randint(6, 24),
        )
        for n in range(count)
    ]


def engines(
    model: TextToSemantic, rule: str | None, drafter: str = "eagle", fused: bool | None = None
) -> tuple[Engine, Engine]:
    """Eager, and by rounds."""
    made: tuple[Any, ...] = (None, None, 4)
    if rule is not None:
        draft: Any = {"eagle": tiny_draft, "block": tiny_block}[drafter](model)
        verifier = make_verifier(rule, RULES[rule], embedding=model.semantic_emb.weight[:-1])
        made = (make_drafter(drafter, draft.to(DEVICE)), verifier, 4)
    return Engine(model, *made), Engine(model, *made, Board(model, *made, fused=fused))


@pytest.fixture(scope="module")
def model() -> TextToSemantic:
    return tiny_model(semantic=20, seed=4).to(DEVICE)  # in float64 rounding moves no draw


def told(utterances: list[Utterance]) -> list[Any]:
    return [(u.tokens, u.ended, vars(u.stats)) for u in utterances]


@pytest.mark.parametrize("made", [Law, ops.FusedLaw])
@pytest.mark.parametrize(("size", "dtype"), [(1025, torch.float64), (1025, torch.float32), (30, torch.bfloat16)])
def test_filters_and_draws(made: type[Law], size: int, dtype: torch.dtype) -> None:
    """In float32 a token may be drawn that lies next to the one that is right, hardly ever."""
    samplings = [*MIXED, SamplingConfig(temperature=0.7, top_k=50, top_p=0.9), SamplingConfig(top_k=1)]
    samplings = samplings * (1 if SMALL else 32)
    logits = torch.randn(len(samplings), 2, size, device=DEVICE, dtype=torch.float64).mul(4).to(dtype)
    law = made(Settings.of(samplings, DEVICE), size, torch.promote_types(dtype, torch.float32))
    found, total = law(logits)
    wanted = probabilities(logits.double() if dtype == torch.bfloat16 else logits, samplings).to(found.dtype)
    far = (found - wanted).abs().amax(-1) > (1e-9 if dtype == torch.float64 else 1e-5)
    assert far.double().mean() <= (0 if dtype == torch.float64 else 0.02) and total.isfinite().all()
    uniforms = torch.rand(len(samplings), 3, dtype=torch.float64, device=DEVICE)
    told, token, _ = law.draw(logits[:, 0], uniforms, 2)
    right = categorical(told, uniforms[:, 2])
    assert (token != right).double().mean() <= (0 if dtype == torch.float64 else 0.02)


@pytest.mark.parametrize("rule", ["block", "rejection", "matching", "coupled"])
def test_kernels_settle_what_torch_settles(rule: str) -> None:
    rows, gamma, ids = (16 if SMALL else 256), 5, 1025
    p = torch.randn(rows, gamma + 1, ids, device=DEVICE, dtype=torch.float64).mul(2).softmax(-1)
    q = (p[:, :-1].log() + 0.5 * torch.randn_like(p[:, :-1])).softmax(-1)
    counts = torch.randint(0, gamma + 1, (rows,), device=DEVICE)
    tokens = torch.multinomial(q.reshape(-1, ids), 1).view(rows, gamma)
    tokens = tokens.masked_fill(torch.arange(gamma, device=DEVICE) >= counts[:, None], 0)
    uniforms = torch.rand(rows, gamma + uniforms_for(gamma), dtype=torch.float64, device=DEVICE)
    verifier: Any = make_verifier(rule)
    shares = bool(getattr(verifier, "shares", False))
    own = counts[:, None] + torch.arange(uniforms_for(gamma), device=DEVICE)
    wanted = verifier.settle(tokens, counts, q, p, uniforms if shares else uniforms.gather(1, own))
    found = ops.settle(verifier, tokens, counts, q, p, uniforms, shares=shares)
    assert torch.equal(found.tokens, wanted.tokens) and torch.equal(found.accepted, wanted.accepted)
    assert torch.equal(found.used, wanted.used if shares else wanted.used + counts)


@pytest.mark.parametrize("dtype", [torch.float32] if SMALL else [torch.float64, torch.float32, torch.bfloat16])
def test_a_whole_chain_is_one_kernel(dtype: torch.dtype) -> None:
    """On the shipped draft: the laws of the chain in torch, as long as both have drawn the same."""
    bundle = open_voice(None)
    target = load_target(bundle, DEVICE, dtype)
    count, gamma = (1, 2) if SMALL else (6, 10)
    texts = json.loads(IDS.read_text())["ids"][:count]
    with torch.inference_mode():
        drafts = Drafts(bundle, target, DEVICE, dtype)
        rows = DraftRows(make_drafter("eagle", drafts["eagle"]), target, gamma, fused=True)
        memory = encode(target, texts)
        rows.room(memory, count, 64, -(-memory.cross[0][0].shape[2] // 64) * 64)
        assert rows.ahead is not None, "the kernel is not used here"
        rows.admit(Arrived(list(range(count)), memory, [()] * count, None, []))
        limits = torch.full((count,), gamma, device=DEVICE)
        features = torch.randn(count, 3, target.dim, device=DEVICE, dtype=torch.float64).to(dtype)
        tokens = torch.randint(0, 1024, (count, 3), device=DEVICE)
        fresh = Fresh(tokens, 1 + torch.arange(count, device=DEVICE) % 3, features, 0 * limits)
        uniforms = torch.rand(count, gamma, dtype=torch.float64, device=DEVICE)
        how = Settings.of([bundle.sampling] * count, DEVICE), 1025, torch.promote_types(dtype, torch.float32)
        view = rows.view(count, 64, -1)
        found, right = (view.draw(fresh, limits, uniforms, gamma, made(*how)) for made in (ops.FusedLaw, Law))
    assert found.fine.all() and torch.equal(found.counts, right.counts)
    same = (found.tokens == right.tokens).long().cumprod(1)
    alike = torch.cat((torch.ones_like(same[:, :1]), same[:, :-1]), 1).bool()
    far = (found.laws - right.laws).abs().sum(-1)[alike]
    assert far.median() < {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1}[dtype]
    assert far.max() < {torch.float64: 1e-9, torch.float32: 0.05, torch.bfloat16: 1.0}[dtype]  # at the edge of top-p
    assert alike.double().mean() > (0.9 if dtype != torch.bfloat16 else 0.2)


def test_kernels_are_used_here(model: TextToSemantic) -> None:
    assert Board(model, None, None, 3).fused == (DEVICE.type == "cuda")


@pytest.mark.parametrize(
    ("rule", "drafter", "fused"),
    [*((rule, "eagle", None) for rule in (None, *RULES)), ("block", "block", None), ("rejection", "block", None),
     (None, "eagle", False), ("block", "eagle", False)],
)  # fmt: skip
def test_it_says_what_the_eager_engine_says(
    model: TextToSemantic, rule: str | None, drafter: str, fused: bool | None
) -> None:
    """By Triton's kernels where there are any, and without."""
    eager, rounds = engines(model, rule, drafter, fused)
    wanted = requests(4 if SMALL else 12, 2)
    assert told(eager.run(wanted)) == told(rounds.run(wanted))
    if DEVICE.type == "cuda":
        board: Any = rounds.runtime
        assert board.graphs._graphs.keys() == {"uniforms", *board.made}, "something was not captured"


@pytest.mark.parametrize("rule", [None, "block"])
def test_admit_and_release_under_load(model: TextToSemantic, rule: str | None) -> None:
    """Every utterance says what it says alone, whoever comes and goes; buffers grow and are captured anew."""
    rng, waiting, all_ = random.Random(1), requests(5 if SMALL else 16, 1), list[Utterance]()
    wanted, (_, busy) = list(waiting), engines(model, rule)
    while waiting or busy.running:
        count = min(len(waiting), rng.randint(0 if busy.running else 1, 3))
        all_ += busy.admit(waiting[:count])
        del waiting[:count]
        if busy.running:
            busy.step()
        running = [u for u in all_ if u.ended is None]
        if running and rng.random() < 0.2:
            busy.release([rng.choice(running)])
    for request, utterance in zip(wanted, all_, strict=True):
        (alone,) = engines(model, rule)[0].run([request])
        if utterance.ended == "cancelled":
            assert utterance.tokens == alone.tokens[: len(utterance.tokens)]
        else:
            assert told([utterance]) == told([alone])


def test_on_a_stream_of_ones_own(model: TextToSemantic) -> None:
    """Tokens come step by step; work on the default stream beside it does not disturb them."""
    eager, rounds = engines(model, "block")
    wanted = requests(3, 5)
    right = eager.run(wanted)
    beside = torch.randn(256, 256, device=DEVICE)
    stream = torch.cuda.Stream() if DEVICE.type == "cuda" else None
    with torch.cuda.stream(stream):  # None: nothing happens
        said, before = rounds.admit(wanted), [0, 0, 0]
        while rounds.running:
            rounds.step()
            beside = torch.tanh(beside @ beside)
            now = [len(u.tokens) for u in said]
            assert all(a <= b for a, b in zip(before, now))
            before = now
    assert told(said) == told(right)


def test_the_law_on_the_device() -> None:
    """Float32, among rows of other samplings, against the enumerated law: chi-square."""
    tiny = tiny_model(semantic=3, dtype=torch.float32, seed=3)
    law = UncachedTarget(tiny_model(semantic=3, seed=3), [3, 1, 4, 7], MIXED[0]).sequences(3)
    _, busy = engines(tiny.to(DEVICE), "block")
    counts: Counter[tuple[int, ...]] = Counter()
    rows, wanted = 8 if SMALL else 32, 200 if SMALL else 6000
    for batch in range(wanted // rows + 1):
        seeds = [derive(7, batch * 2 * rows + n, SENTENCE) for n in range(rows + 3)]
        ours = [Request([3, 1, 4], seed=seed, sampling=MIXED[0], cap=3) for seed in seeds[:rows]]
        strange = [Request(TEXTS[n], seed=seed, sampling=MIXED[n], cap=3) for n, seed in enumerate(seeds[rows:], 1)]
        counts.update(tuple(u.tokens) for u in busy.run([*ours, *strange])[:rows])
    assert chi_square(counts, law, sum(counts.values())) > 0.001


@pytest.mark.parametrize("dtype", [torch.float32] if SMALL else [torch.float32, torch.bfloat16])
def test_verify_on_the_shipped_voice(dtype: torch.dtype) -> None:
    from spear_spec.exactness.verify import _verify

    bundle = open_voice(None)
    target = load_target(bundle, DEVICE, dtype)
    parts = Parts(bundle.spec, Drafts(bundle, target, DEVICE, dtype))
    decoder = Decoder(target, parts, bundle.sampling, bundle.config.clock.token_rate, runtime="graphs")
    ids = json.loads(IDS.read_text())["ids"][: 2 if SMALL else None]
    samples, cap = (100, 60) if SMALL else (1500, None)
    result = _verify("kokoro-duo", decoder, ids, samples=samples, batch=4, seed=0, max_tokens=cap, progress=None)
    assert result["pass"], result["checks"]


def test_half_precision_speaks_for_its_own_target() -> None:
    """bf16: every token is one that the uncached target would write, near ties aside; at temperature 0."""
    bundle = open_voice(None)
    target = load_target(bundle, DEVICE, torch.bfloat16)
    ids = json.loads(IDS.read_text())["ids"][2]
    greedy = SamplingConfig(temperature=0.0)
    for spec in (SpecConfig(drafter="none"), bundle.spec):
        parts = Parts(spec, Drafts(bundle, target, DEVICE, torch.bfloat16))
        (said,) = Decoder(target, parts, runtime="graphs").engine().run([Request(ids, sampling=greedy, cap=40)])
        with torch.inference_mode():
            memory = target.encode(torch.tensor([target.text(ids)], device=DEVICE))
            tokens = torch.tensor([[target.start_id, *said.tokens[:-1]]], device=DEVICE)
            logits = target(tokens, memory).logits[0].float()
        chosen = logits.gather(-1, torch.tensor(said.tokens, device=DEVICE)[:, None])[:, 0]
        assert float((logits.amax(-1) - chosen).max()) < 0.4
