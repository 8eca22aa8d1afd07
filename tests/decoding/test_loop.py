"""The whole loop with the real small draft: its sampled law, greedy identity, caches, independence of rows."""

from __future__ import annotations

import pytest
import torch

from spear_spec.config import SamplingConfig
from spear_spec.decoding import Session, generate, make_drafter, make_verifier, speculate
from spear_spec.exactness.oracles import (
    SAMPLINGS,
    cache_error,
    greedy_flips,
    loop_error,
    sampled_pvalues,
    texts,
    tiny_draft,
    tiny_model,
)


def with_draft(model=None, gamma: int = 3):
    """A decode function with a random small draft, made for the session's model."""
    drafts = {}

    def decode(session: Session):
        if session.model not in drafts:
            drafts[session.model] = make_drafter("small", tiny_draft(session.model))
        return speculate(session, drafts[session.model], make_verifier("rejection"), gamma)

    return decode


@pytest.mark.parametrize(("batch", "watch"), [(1, 0), (8, 5)])
@pytest.mark.parametrize("sampling", ["plain", "all"])
def test_small_draft_exact_law(batch: int, watch: int, sampling: str) -> None:
    """Enumerated, with the real draft decoder: its cache, features and roll-back are all in the loop."""
    error = loop_error(
        lambda targets: make_drafter("small", tiny_draft(targets[0].model)),
        make_verifier("rejection"),
        SAMPLINGS[sampling],
        batch=batch,
        watch=watch,
        caps=[4, 2, 3, 1, 4, 3, 2, 4][:batch],
    )
    assert error < 1e-9


@pytest.mark.parametrize(("batch", "rounds"), [(1, 400), (8, 120)])
@pytest.mark.parametrize("loop", ["autoregressive", "speculative"])
def test_sampled_law(batch: int, rounds: int, loop: str) -> None:
    decode = generate if loop == "autoregressive" else with_draft()
    values = sampled_pvalues(decode, SamplingConfig(temperature=0.9, top_p=0.95), batch=batch, rounds=rounds, cap=3)
    assert min(values) * len(values) > 0.001, values


@pytest.mark.parametrize("batch", [1, 4, 8])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_greedy_identity(batch: int, guidance: float) -> None:
    assert greedy_flips(with_draft(gamma=4), batch=batch, guidance=guidance) == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cached_equals_uncached_after_random_crops(seed: int) -> None:
    assert cache_error(seed) < 1e-9


def test_a_row_does_not_depend_on_its_batch() -> None:
    """In float64 rounding moves no draw: row r of a batch of 8 says what it says in a batch of r + 1."""
    model = tiny_model(semantic=20, seed=4)
    draft = make_drafter("small", tiny_draft(model))
    outputs = {}
    for batch in (1, 3, 8):
        with torch.inference_mode():
            memory = model.encode(texts(batch))
        for name in ("plain", "speculative"):
            session = Session(
                model,
                memory,
                SamplingConfig(),
                generator=torch.Generator().manual_seed(9),
                max_tokens=[20, 11, 17, 5, 20, 9, 14, 3][:batch],
            )
            for _ in generate(session) if name == "plain" else speculate(session, draft, make_verifier("rejection"), 4):
                pass
            outputs[batch, name] = session.tokens
    for name in ("plain", "speculative"):
        assert outputs[8, name][:3] == outputs[3, name]
        assert outputs[8, name][:1] == outputs[1, name]


def test_same_seed_same_tokens() -> None:
    model = tiny_model(semantic=20, dtype=torch.float32, seed=4)
    with torch.inference_mode():
        memory = model.encode(texts(2))
    runs = []
    for seed in (1, 1, 2):
        session = Session(model, memory, generator=torch.Generator().manual_seed(seed), max_tokens=30)
        for _ in with_draft()(session):
            pass
        runs.append(session.tokens)
    assert runs[0] == runs[1] != runs[2]
