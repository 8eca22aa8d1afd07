"""Logits to probabilities, against a token-by-token oracle; the one source of chance; limits and counts."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

from spear_spec.config import SamplingConfig, SpecConfig
from spear_spec.decoding import (
    DecodeStats,
    Session,
    Uniforms,
    check,
    complete,
    decode,
    generate,
    make_drafter,
    probabilities,
)
from spear_spec.decoding.limits import Guard, default_cap
from spear_spec.decoding.proposal import Proposal, Verdict
from spear_spec.errors import ConfigError, NumericsError
from spear_spec.exactness.oracles import SAMPLINGS, oracle_law, texts, tiny_model
from spear_spec.kernels import native
from spear_spec.runtime.lanes import guide

WIDE = [
    SamplingConfig(temperature=0.7, top_p=0.9),
    SamplingConfig(temperature=3.0, top_p=0.99),  # a nucleus of hundreds: beyond the first look
    SamplingConfig(temperature=1.0, top_k=50, top_p=0.95),
    SamplingConfig(temperature=1.0, top_k=1, top_p=1.0),
    SamplingConfig(temperature=1.0, top_k=5000, top_p=1.0),
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=1e-6, top_p=1.0),
    *SAMPLINGS.values(),
]


@pytest.fixture(params=["1", "0"], ids=["native", "torch"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernel and without."""
    monkeypatch.setenv(native.SWITCH, request.param)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("sampling", WIDE, ids=str)
@pytest.mark.parametrize("size", [3, 1025])
def test_probabilities_against_the_oracle(sampling: SamplingConfig, size: int) -> None:
    torch.manual_seed(size)
    logits = torch.randn(2, 3, size, dtype=torch.float64) * 3
    law = probabilities(logits, sampling)
    for b in range(2):
        for n in range(3):
            expected = oracle_law(logits[b, n].tolist(), SamplingConfig(**{**sampling.to_dict(), "guidance": 1.0}))
            assert law[b, n].tolist() == pytest.approx(expected, abs=1e-13)
    assert probabilities(logits.float(), sampling).double().sub(law).abs().max() < 1e-5
    assert torch.equal(probabilities(logits[0, 1], sampling), law[0, 1])


def test_guidance_is_the_peers_cond_scale() -> None:
    cond, null = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 3.0])
    assert guide(cond, null, 3.0).tolist() == [2.0, 0.0]
    assert torch.equal(guide(cond, null, 1.0), cond)


def test_half_precision_is_computed_in_float32() -> None:
    logits = torch.randn(1, 1025).bfloat16()
    assert torch.equal(probabilities(logits, SamplingConfig()), probabilities(logits.float(), SamplingConfig()))


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_bad_logits_are_refused(bad: float) -> None:
    logits = torch.zeros(2, 9)
    logits[1, 4] = bad
    for sampling in (SamplingConfig(), SamplingConfig(temperature=0.0)):
        with pytest.raises(NumericsError):
            probabilities(logits, sampling)


@pytest.mark.usefixtures("either")
def test_large_logits_at_a_tiny_temperature() -> None:
    law = probabilities(torch.tensor([1e4, 1e4 - 1, -1e4]), SamplingConfig(temperature=1e-37, top_p=1.0))
    assert law.tolist() == [1.0, 0.0, 0.0]


def test_chance_draws_from_the_law() -> None:
    """Counts within 4.5 standard errors; a weight of zero is never drawn; weights need not sum to 1."""
    weights = torch.tensor([0.0, 3.0, 0.0, 1.0, 2.0, 0.0])
    chance = Uniforms([5, 6])
    counts = [Counter(), Counter()]
    n = 12000
    for _ in range(n // 2):
        for row, token in enumerate(chance.categorical(weights.expand(2, -1), [0, 1])):
            counts[row][token] += 1
        counts[1].update(chance.categorical(weights[None], [1]))
    for count, total in zip(counts, (n // 2, n)):
        assert set(count) == {1, 3, 4}
        for token, p in ((1, 1 / 2), (3, 1 / 6), (4, 1 / 3)):
            assert abs(count[token] / total - p) < 4.5 * (p * (1 - p) / total) ** 0.5
    hits = sum(chance.bernoulli(0.3, 0) for _ in range(n)) / n
    assert abs(hits - 0.3) < 4.5 * (0.21 / n) ** 0.5
    assert all(chance.bernoulli(1.0, 0) and not chance.bernoulli(0.0, 1) for _ in range(3000))


def test_guard_is_a_function_of_the_prefix() -> None:
    """Stuck on one token or a short cycle; ordinary tokens and long cycles pass."""
    for cycle in (1, 2, 3, 12):
        guard = Guard(25)
        hits = [guard.push(i % cycle) for i in range(90)]
        assert hits.index(True) == 61 + cycle
    guard = Guard(25)
    assert not any(guard.push(i % 13) for i in range(500))
    rng = random.Random(0)
    guard = Guard(25)
    assert not any(guard.push(rng.randrange(3)) for _ in range(5000))
    assert not any(guard.push(7 if i % 70 < 55 else i) for i in range(500))  # 2.2 s of one token, again and again


def test_default_cap_leaves_room() -> None:
    """The slowest of the 6,494 corpus clips ("Ease.": 34 tokens for 6 symbols) takes .29 of its cap."""
    assert default_cap(6) > 3 * 34
    assert default_cap(100) > 700


class Parrot:
    """A verifier that keeps whatever it is told: for the session's own rules."""

    name, lossless = "parrot", False

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens

    def verify(self, proposal, target_probs, chance, rows):
        return Verdict(
            list(rows),
            [list(self.tokens) for _ in rows],
            [len(self.tokens) - 1] * len(rows),
            [len(self.tokens) - 1] * len(rows),
        )


@pytest.mark.parametrize(
    ("said", "cap", "kept", "ended", "accepted"),
    [
        ([1, 2, 3, 0], 9, [1, 2, 3], "eos", 3),  # 3 is the end token: what follows is dropped
        ([3, 3, 3, 3], 9, [3], "eos", 1),
        ([1, 2, 1, 2], 2, [1, 2], "cap", 2),
        ([1, 2, 3, 0], 3, [1, 2, 3], "eos", 3),
        ([1, 2, 1, 0], 4, [1, 2, 1, 0], "cap", 3),
    ],
)
def test_an_accepted_run_is_cut(said: list[int], cap: int, kept: list[int], ended: str, accepted: int) -> None:
    model = tiny_model(semantic=3)
    with torch.inference_mode():
        session = Session(model, model.encode(texts(1)), generator=torch.Generator(), max_tokens=cap)
        session.laws(Proposal([said[:-1]]))
        verdict = session.commit(Parrot(said).verify(None, None, None, session.rows))
    assert (session.tokens[0], session.ended[0], verdict.num_accepted, session.running) == (
        kept,
        ended,
        [accepted],
        False,
    )
    assert session.speech(0) == (kept[:-1] if ended == "eos" else kept)
    assert session.stats[0] == DecodeStats(1, len(kept), 3, accepted, [int(i < accepted) for i in range(3)])


def test_the_guard_ends_a_stuck_utterance() -> None:
    model = tiny_model(semantic=3)
    with torch.no_grad():
        model.decoder_norm.gamma.zero_()  # all logits equal: greedy always says token 0
    with torch.inference_mode():
        session = Session(
            model, model.encode(texts(1)), SamplingConfig(temperature=0.0), generator=torch.Generator(), max_tokens=500
        )
    for _ in generate(session):
        pass
    assert session.ended == ["guard"]
    assert session.tokens[0] == [0] * 63


def test_stats_of_the_plain_loop_are_one_token_a_call() -> None:
    model = tiny_model(semantic=3, seed=2)
    with torch.inference_mode():
        session = Session(model, model.encode(texts(4)), generator=torch.Generator(), max_tokens=20)
    verdicts = list(decode(session, SpecConfig(drafter="none")))
    for row in range(4):
        assert session.stats[row].tokens_per_call == 1
        assert session.stats[row].tokens == len(session.tokens[row])
        assert [t for v in verdicts if row in v.rows for t in v.tokens[v.rows.index(row)]] == session.tokens[row]


def test_stats_add_up() -> None:
    one, two = DecodeStats(), DecodeStats()
    one.count(4, 3, 3)
    one.count(1, 3, 0)
    two.count(2, 1, 1)
    both = one + two
    assert both == DecodeStats(3, 7, 7, 4, [2, 1, 1])
    assert both.tokens_per_call == pytest.approx(7 / 3)
    assert both.acceptance_by_position == pytest.approx([2 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize(
    "spec",
    [
        SpecConfig(drafter="eagle"),
        SpecConfig(drafter="nonsense"),
        SpecConfig(drafter="small"),
        SpecConfig(drafter="none", verifier="nonsense"),
        SpecConfig(drafter="none", num_drafts=2),
        SpecConfig(drafter="none", tree="wide"),
        SpecConfig(drafter="none", options={"theta": 1}),
    ],
    ids=str,
)
def test_what_cannot_be_decoded_with_is_refused(spec: SpecConfig) -> None:
    with pytest.raises(ConfigError):
        check(spec)


def test_a_missing_part_is_named() -> None:
    with pytest.raises(ConfigError, match="nothing to draft with as medusa does"):
        make_drafter("medusa")
    with pytest.raises(ConfigError, match="no draft decoder for medusa; it can use small"):
        make_drafter("medusa", {"small": None})


def test_session_wants_one_source_of_chance() -> None:
    model = tiny_model()
    memory = model.encode(texts(1))
    with pytest.raises(ConfigError):
        Session(model, memory)
    with pytest.raises(ConfigError):
        Session(model, memory, generator=torch.Generator(), chance=Uniforms([1]))
    with pytest.raises(ConfigError):
        Session(model, memory, generator=torch.Generator(), max_tokens=0)


def test_what_is_left_open_follows_from_what_is_given() -> None:
    base = SpecConfig(drafter="eagle", verifier="block", gamma=10)
    wanted = {
        ("drafter", "early_exit"): ("early_exit", "block", 3, None),
        ("drafter", "small"): ("small", "block", 10, None),
        ("drafter", "medusa"): ("medusa", "recursive", 8, "sparse"),
        ("drafter", "kpath"): ("kpath", "kseq", 4, None),
        ("verifier", "recursive"): ("eagle", "recursive", 6, "4-2-2-1-1-1"),
        ("verifier", "matching"): ("eagle", "matching", 10, "dynamic"),
        ("tree", "3-2"): ("eagle", "recursive_wor", 2, "3-2"),
        ("gamma", 5): ("eagle", "block", 5, None),
    }
    for (name, value), expected in wanted.items():
        spec = complete(base, {name: value})
        assert (spec.drafter, spec.verifier, spec.gamma, spec.tree) == expected, (name, value)
    chain = complete(base, {"drafter": "medusa", "verifier": "block"})
    assert (chain.verifier, chain.tree) == ("block", None)
    fed = complete(SpecConfig(drafter="prophet", gamma=4), {"verifier": "recursive"})
    assert (fed.drafter, fed.tree) == ("small", "4-2-2-1-1-1")
    assert complete(base, {"drafter": "early_exit", "gamma": 7}).gamma == 7
    stopping = SpecConfig(drafter="eagle", options={"stop": "adaedl"})
    assert complete(stopping, {"drafter": "none"}).options == {}
    assert complete(stopping, {"gamma": 4}).options == {"stop": "adaedl"}
